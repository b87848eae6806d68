"""Estimates as a log file shows them."""

import pytest

from blip2vqa.reporting.estimates import print_estimates


def kind(peak: int, epoch: float, *, chosen: bool = False, fits: bool = True) -> dict:
    return {
        "memory": {"weights": 2**30, "activations": peak - 2**30, "logits": 0}, "peak": peak, "encode_range": [5.25, 8.1],
        "epoch_range": [epoch / 2, epoch], "chosen": chosen, "fits": {"8": fits, "24": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"), [(80, "40 to 80 s"), (600, "5 to 10 min"), (4 * 3600 + 1800, "2.2 to 4.5 h")]
)
def test_one_table_a_base_with_memory_times_and_what_fits(seconds, said, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    base = {
        "base_model_id": "some/[base]", "parameters": 3_745_000_000, "trainable": 5_000_000, "dtype": "float32",
        "longest_batch": {"rows": 8, "tokens": 64}, "starts_from": "Q-Former output",
        "quantization": {"none": kind(3 * 2**30, seconds, fits=False), "4bit": kind(2 * 2**30, 50, chosen=True)},
    }  # fmt: skip
    print_estimates({"bases": [base], "device": "cpu", "busy": 0.456, "assumed": ["a thing", "another"]})
    output = capsys.readouterr().out
    assert "some/[base]: 3,745,000,000 parameters, 5,000,000 train, float32" in " ".join(output.split())
    assert "longest batch 8 rows × 64 tokens, from Q-Former output" in " ".join(output.split())
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines()]
    assert ["none", "1.00", "2.00", "3.00", "5.2 to 8.1 s", said, "24 GB"] in lines
    assert ["4bit *", "1.00", "1.00", "2.00", "5.2 to 8.1 s", "25 to 50 s", "8, 24 GB"] in lines
    assert "Assumed: a thing.\nAssumed: another." in output and "this device: cpu" in output
    assert "logits" not in output, "a column of zeros says nothing"
    assert "This machine is busy: other programs use 46% of its cores." in output

"""Batches: split by tokens, sorted by length; always the same gradients and every question once."""

import pytest
import torch

from blip2vqa.data.examples import Example
from blip2vqa.models.loading import load_base
from blip2vqa.models.text import IGNORE
from blip2vqa.training.collators import TrainingCollator
from blip2vqa.training.micro_batches import split_by_tokens
from blip2vqa.training.recipe import finetune
from helpers.device_waits import DeviceTraffic
from helpers.finetune_runs import adapter_of, make_run
from helpers.tiny_blip2 import GivenFeatures

WORDS = "what is the color of the square and how many are there".split()
EXACT = (
    "--lora_dropout", "0", "--max_steps", "3", "--eval_strategy", "no", "--save_strategy", "no", "--optim", "sgd",
    "--batch_size", "8",
)  # fmt: skip


def assert_same_training(one, other, **tolerance) -> None:
    """Two runs' adapters have moved, and to the same place."""
    first, second = adapter_of(one), adapter_of(other)
    assert first.keys() == second.keys()
    assert max(value.abs().max() for key, value in first.items() if "lora_B" in key) > 1e-4
    for key in first:
        torch.testing.assert_close(second[key], first[key], **tolerance)


@pytest.fixture(params=["opt", "t5", "opt shared"])
def batch(request, tiny_opt, tiny_t5):
    """Nine questions of three to eleven words on four images, and the text encoder that made the batch."""
    base = tiny_t5 if request.param == "t5" else tiny_opt
    loaded = load_base(str(base), dtype="float32", quantization="none", device=torch.device("cpu"))
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "{question}")
    features = GivenFeatures("abcd", torch.arange(4.0)[:, None, None].expand(4, 4, 32))
    names = ["abcd"[number % 4] for number in range(9)]
    items = [
        (Example(row, None, name, name, " ".join(WORDS[: 3 + row]), ("yes",), "other", {}), ["no", "one two"][row % 2])
        for row, name in enumerate(names)
    ]
    return loaded, TrainingCollator(text, features, 512 if "shared" in request.param else None)(items)


def test_parts_hold_every_row_once_and_keep_to_the_budget(batch):
    _, whole = batch
    rows = len(whole["input_ids"])
    widest = whole["input_ids"].shape[1]
    for tokens in (1, widest, 2 * widest, 10**6):
        parts = split_by_tokens(whole, tokens)
        assert sum(len(part["input_ids"]) for part in parts) == rows
        assert all(len(part["input_ids"]) == 1 or part["input_ids"].numel() <= tokens for part in parts)
        assert sum((part["labels"] != IGNORE).sum() for part in parts) == (whole["labels"] != IGNORE).sum()
        assert tokens != 1 or len(parts) == rows
        assert tokens != 10**6 or len(parts) == 1
        # Trimmed: some row fills the last column of each part.
        for part in parts:
            assert part["input_ids"].shape[1] <= widest
            if part["attention_mask"].ndim == 2:
                assert part["attention_mask"][:, -1].any()


def row_by_row(whole, tokens):
    """The parts as `split_by_tokens` is to make them, put together from single rows."""
    supervised, mask = whole["labels"] != IGNORE, whole["attention_mask"]
    ends = [max(column for column, kept in enumerate(row) if kept) + 1 for row in supervised.tolist()]
    lengths = mask.sum(1).tolist() if "decoder_input_ids" in whole else ends
    groups = []
    for row in sorted(range(len(ends)), key=lambda row: -lengths[row]):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > tokens:
            groups.append([])
        groups[-1].append(row)
    parts = []
    for rows in groups:
        part = {name: tensor[rows] for name, tensor in whole.items()}
        longest, answer = lengths[rows[0]], max(ends[row] for row in rows)
        for name in ("labels", "keep", "decoder_input_ids", "input_ids", "position_ids"):
            if name in part:
                part[name] = part[name][:, : longest if name in ("input_ids", "position_ids") else answer]
        if mask.ndim == 4:
            part["attention_mask"] = part["attention_mask"][:, :, :longest]
        parts.append({**part, "attention_mask": part["attention_mask"][..., :longest]})
    return parts


def test_parts_are_cut_on_the_device(batch, monkeypatch):
    """The same parts as row by row, with one read of all lengths, and nothing copied to the device."""
    _, whole = batch
    for tokens in (1, 60, 10**6):
        with monkeypatch.context() as patch, DeviceTraffic(patch) as ours:
            parts = split_by_tokens(whole, tokens)
        assert ours.waits.total() == 1 and ours.copies.total() == 0
        with monkeypatch.context() as patch, DeviceTraffic(patch) as plain:
            expected = row_by_row(whole, tokens)
        assert plain.copies.total() == len(whole) * len(expected)
        assert len(parts) == len(expected)
        for part, wanted in zip(parts, expected, strict=True):
            assert part.keys() == wanted.keys()
            assert all(torch.equal(part[name], wanted[name]) for name in part)


def test_parts_give_the_logits_of_the_whole(batch):
    loaded, whole = batch
    labels = whole.pop("labels")
    with torch.no_grad():
        expected = loaded.model(**whole).logits
        parts = split_by_tokens({**whole, "labels": labels}, 60)
        assert len(parts) > 1
        targets, logits = [], []
        for part in parts:
            kept = part.pop("labels")
            targets.append(kept[kept != IGNORE])
            logits.append(loaded.model(**part).logits)
    # In another order: compared by the loss of each token.
    loss = torch.nn.functional.cross_entropy(expected, labels[labels != IGNORE], reduction="none").sort().values
    split = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(targets), reduction="none").sort().values
    torch.testing.assert_close(split, loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_a_batch_in_parts_trains_as_the_whole(kind, tiny_opt, tiny_t5, drawn, tmp_path):
    base = tiny_opt if kind == "opt" else tiny_t5
    finetune(make_run(base, drawn, tmp_path / "whole", *EXACT))
    finetune(make_run(base, drawn, tmp_path / "parts", *EXACT, "--tokens_per_batch", "64"))
    assert_same_training(tmp_path / "whole", tmp_path / "parts", rtol=1e-3, atol=1e-6)


def test_compiled_training_is_the_same(tiny_opt, drawn, tmp_path):
    finetune(make_run(tiny_opt, drawn, tmp_path / "plain", *EXACT))
    # Traced and differentiated as for any backend, but not translated to C++, which takes minutes.
    compiled = ("--torch_compile", "true", "--torch_compile_backend", "aot_eager")
    finetune(make_run(tiny_opt, drawn, tmp_path / "compiled", *EXACT, *compiled))
    assert_same_training(tmp_path / "plain", tmp_path / "compiled", rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_checkpointed_activations_change_nothing(quantization, tiny_opt, drawn, tmp_path):
    """The adapter's dropout falls on the same places when a layer is run again."""
    fixed = ("--max_steps", "3", "--eval_strategy", "no", "--save_strategy", "no", "--lora_dropout", "0.3")
    fixed += ("--quantization", quantization)
    finetune(make_run(tiny_opt, drawn, tmp_path / "kept", *fixed))
    finetune(make_run(tiny_opt, drawn, tmp_path / "again", *fixed, "--activation_checkpointing", "true"))
    assert_same_training(tmp_path / "kept", tmp_path / "again", rtol=1e-4, atol=1e-6)

"""ZeRO-3 as accelerate's configuration asks for it, where DeepSpeed is installed: two processes end with the files of one."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

from blip2vqa.config.sharding import ZERO3
from blip2vqa.models.loading import load_base
from blip2vqa.models.zero3 import gathered, gathered_to_compute
from helpers.launching import Launch, in_two_processes
from helpers.script_runs import SAME, assert_same_run, base_arguments

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed, and no dependency: pip install deepspeed")

CONFIG = "configs/accelerate/zero3.yaml"
LOADED = {"dtype": "float32", "quantization": "none", "device": torch.device("cpu")}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


def test_a_divided_base_trains_answers_and_goes_on_as_a_whole_one(tuned, tiny_opt, drawn, tmp_path):
    one, two, again = tuned[0], tmp_path / "two", tmp_path / "again"
    arguments = [*base_arguments(tiny_opt, drawn), *SAME, "--batch_size", "2", "--ddp_backend", "gloo"]
    arguments += ["--per_device_eval_batch_size", "5"]
    with Launch(tmp_path, CONFIG, "finetune.py", *arguments, "--output_dir", two) as launch:
        assert launch.wait(600) == [0, 0], launch.said(1)
    assert "ZeRO-3, every weight divided among all processes" in launch.said(0)[0]
    assert_same_run(one, two)

    shutil.copytree(two, again)  # stopped behind its best checkpoint, the only one kept
    for path in [again / "metrics.json", *again.glob("adapter_*")]:
        path.unlink()
    more = ("--output_dir", again, "--resume_from_checkpoint")
    with Launch(tmp_path, CONFIG, "finetune.py", *arguments, *more) as launch:
        assert launch.wait(600) == [0, 0], launch.said(1)
    assert (again / "adapter_model.safetensors").read_bytes() == (two / "adapter_model.safetensors").read_bytes()
    assert _history(again) == _history(two)


def _history(folder: Path) -> list[tuple]:
    return [
        (entry["step"], entry["loss"]) for entry in json.loads((folder / "history.json").read_text()) if "loss" in entry
    ]


def test_a_weight_is_whole_only_while_it_computes(tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    drawn = {
        name: tensor + torch.randn_like(tensor) / 20 if name.endswith("bias") else tensor
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(drawn, base / "model.safetensors", metadata={"format": "pt"})
    whole = load_base(str(base), **LOADED).base
    total = sum(weight.numel() for weight in whole.parameters())
    for resident, after, kept, unlike, logits in in_two_processes(_divided, str(base)):
        assert resident == after < total / 100 and kept == pytest.approx(total / 2, rel=0.01)
        assert not unlike
        assert torch.allclose(torch.tensor(logits), _logits(whole), atol=1e-5)


def _logits(base) -> torch.Tensor:
    ids = torch.arange(6)[None]
    more = {"decoder_input_ids": ids} if base.config.text_config.is_encoder_decoder else {}
    return base.language_model(input_ids=ids, **more).logits.detach()


def _divided(folder: str) -> tuple:
    os.environ.update(ZERO)
    PartialState(cpu=True, backend="gloo")
    base, whole = load_base(folder, **LOADED, sharded=ZERO3).base, load_base(folder, **LOADED).base
    weights = [*base.parameters()]
    resident = sum(weight.numel() for weight in weights)
    with gathered_to_compute(base):
        logits = _logits(base).tolist()
    after = sum(weight.numel() for weight in weights)
    kept = sum(weight.ds_tensor.numel() for weight in weights if hasattr(weight, "ds_tensor"))
    with gathered(weights):
        unlike = [
            name for name, weight in base.named_parameters() if not torch.equal(weight, whole.get_parameter(name))
        ]
    return resident, after, kept, unlike, logits

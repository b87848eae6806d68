"""Fine-tuning runs of tests, in this process."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.training.recipe import finetune
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import VQATrainer


def parse_run(*argv: str) -> Run:
    """The run that these arguments ask for."""
    parts, resolved = parse(FINETUNE_ARGUMENTS, "test", list(argv))
    return Run(*parts, resolved)


def make_run(base, drawn, out, *extra: str) -> Run:
    """A run on the drawn table, in float32 on the CPU, with `extra` flags."""
    images, table = drawn
    argv = [
        *("--base_model_id", str(base), "--image_dir", str(images), "--csv_path", str(table), "--output_dir", str(out)),
        *("--dtype", "float32", "--quantization", "none", "--bertscore_model", "none", "--disable_tqdm", "true"),
        *("--learning_rate", "1e-2", "--warmup_steps", "2", "--epochs", "2", "--use_cpu", *extra),
    ]
    return parse_run(*argv)


class _StopAtCheckpoint(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


def interrupt(run: Run) -> None:
    """Carry out a run that is stopped behind its first checkpoint."""

    def make_and_stop(*args):
        trainer = VQATrainer(*args)
        trainer.add_callback(_StopAtCheckpoint())
        return trainer

    with pytest.raises(KeyboardInterrupt):
        finetune(run, make_and_stop)


def adapter_of(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same_weights(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)

"""A run that diverges or is told to stop ends with its last good checkpoint, and goes on to the same weights."""

import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from blip2vqa.data.examples import load_examples
from blip2vqa.training import guards
from blip2vqa.training.interruption import Interruption
from blip2vqa.training.recipe import finetune
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.errors import Failure
from helpers.feature_stores import in_child
from helpers.finetune_runs import adapter_of, make_run, same_weights
from helpers.launching import free_port, in_launch, start_script
from helpers.script_runs import base_arguments


class At(TrainerCallback):
    """Does something as soon as a step begins, or a validation ends."""

    def __init__(self, step: int, action, event: str = "on_step_begin"):
        self.step, self.action = step, action
        setattr(self, event, self._act)

    def _act(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.action(model)


def with_callback(callback):
    def make(*args):
        trainer = VQATrainer(*args)
        trainer.add_callback(callback)
        return trainer

    return make


def ended(run, callback) -> Failure:
    with pytest.raises(Failure) as caught:
        finetune(run, with_callback(callback))
    assert not (run.folder / "metrics.json").exists() and not (run.folder / "adapter_model.safetensors").exists()
    return caught.value


def spoil(model) -> None:
    """Make one weight of the frozen base NaN, as a damaged row or an overflow would make its output."""
    model.get_base_model().language_model.get_output_embeddings().weight.data[0] = torch.nan


def saved(run) -> list[str]:
    return sorted(path.name for path in (run.folder / "checkpoints").glob("*"))


@pytest.mark.parametrize("flag", ["--gradient_accumulation_steps", "--tokens_per_batch"])
def test_a_loss_that_is_not_finite_ends_the_run_before_its_step(flag, tiny_opt, tiny_t5, drawn, tmp_path):
    base, value = (tiny_t5, "40") if flag == "--tokens_per_batch" else (tiny_opt, "2")
    run = make_run(base, drawn, tmp_path / "run", flag, value)
    failure = ended(run, At(1, spoil))
    assert failure.exit_code == 1
    what, kept = failure.problems
    assert what.startswith("training has diverged at step 2: the loss is nan, at learning rate 0.0")
    assert "on rows " in what and "of the training table" in what and "--learning_rate, such as 0.0001" in what
    assert kept == "no checkpoint was saved yet"


@pytest.fixture(scope="module")
def spoiled(tiny_opt, drawn, tmp_path_factory) -> tuple[Path, tuple[Path, Path], str]:
    """A base that computes no number from position 45 on, a table with one question as long, and how its row is named."""
    folder = tmp_path_factory.mktemp("spoiled")
    base = shutil.copytree(tiny_opt, folder / "base")
    weights = load_file(base / "model.safetensors")
    weights["language_model.model.decoder.embed_positions.weight"][45:] = torch.nan
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    question = f"5.png,Is it {'~' * 30} red?,no"
    (folder / "table.csv").write_text(drawn[1].read_text().replace("5.png,Is the square red?,no", question))
    examples, _ = load_examples(folder / "table.csv", drawn[0], progress=False)
    row = next(example.row for example in examples if "~" in example.question)
    return base, (drawn[0], folder / "table.csv"), f"{row} (5.png)"


def test_the_batch_whose_loss_is_not_finite_is_named_row_by_row(spoiled, drawn, tmp_path):
    base, table, row = spoiled
    flags = ("--eval_csv_path", str(drawn[1]), "--batch_size", "2", "--gradient_accumulation_steps", "8")
    what, _ = ended(make_run(base, table, tmp_path / "run", *flags), At(-1, None)).problems
    rows = what.split("on rows ")[1].split(" of the training table")[0].split(", ")
    assert row in rows and len(rows) == 2  # of the 16 of its step


def test_all_processes_end_when_the_loss_of_one_is_not_finite(spoiled, drawn, tmp_path):
    base, table, row = spoiled
    port, processes = free_port(), []
    for rank in (0, 1):
        streams = [tmp_path / f"{name}{rank}" for name in ("out", "err")]
        processes.append(
            start_script(
                streams, "finetune.py", *base_arguments(base, table), "--eval_csv_path", drawn[1], "--batch_size", "4",
                "--use_cpu", "--ddp_backend", "gloo", "--output_dir", tmp_path / "run", **in_launch(rank, 2, port),
            )
        )  # fmt: skip
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [1, 1]
    what, kept = [line for line in (tmp_path / "err0").read_text().splitlines() if line.startswith("error: ")]
    assert "training has diverged at step " in what and row in what and what.count(".png") == 4
    assert kept.startswith("error: ") and "error: " not in (tmp_path / "err1").read_text()


def with_scaler(action, scaler: torch.amp.GradScaler):
    """A trainer that scales the loss as on a GPU that computes in float16, and does `action` before its first step."""

    def make(*args):
        trainer = with_callback(At(0, action))(*args)
        trainer.accelerator.scaler, trainer.accelerator.native_amp = scaler, True
        return trainer

    return make


def overflow(times: float):
    """Make the first gradients, or all, overflow."""
    left = [times]

    def spoil_gradient(gradient):
        left[0] -= 1
        return gradient * torch.inf if left[0] >= 0 else gradient

    def hook(model):
        next(weight for weight in model.parameters() if weight.requires_grad).register_hook(spoil_gradient)

    return hook


def test_float16_leaves_out_steps_that_overflow_and_ends_where_all_do(tiny_opt, drawn, tmp_path):
    flags = ("--eval_strategy", "no", "--save_strategy", "no", "--fp16")
    scaler = torch.amp.GradScaler("cpu")
    finetune(make_run(tiny_opt, drawn, tmp_path / "some", *flags), with_scaler(overflow(5), scaler))
    assert scaler.get_scale() == 2**11
    for steps, said in (
        ("30", "step 17: the gradient is not finite in 17 steps"),
        ("3", "step 3: no step had a gradient"),
    ):
        with pytest.raises(Failure, match=said) as caught:
            run = make_run(tiny_opt, drawn, tmp_path / steps, *flags, "--max_steps", steps)
            finetune(run, with_scaler(overflow(torch.inf), torch.amp.GradScaler("cpu")))
        assert "--dtype bfloat16 or float32" in str(caught.value)


def test_a_gpu_is_not_waited_for_but_what_it_found_is_read_in_time(tiny_opt, drawn, tmp_path, monkeypatch):
    """A step's findings come from a GPU while the next is under way; before a checkpoint they are waited for."""
    waited = []

    def send(tensor):
        return tensor, SimpleNamespace(synchronize=lambda: waited.append(len(sent)))

    sent, plain = [], guards.send_to_host
    monkeypatch.setattr(guards, "send_to_host", lambda tensor: sent.append(1) or send(plain(tensor)[0]))
    flags = ("--eval_strategy", "no", "--save_strategy", "steps", "--save_steps", "3", "--max_steps", "6")
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", *flags))
    assert waited == [2, 3, 3, 5, 6, 6]  # of step 3 and 6 before they are saved
    waited.clear(), sent.clear()
    what, kept = ended(make_run(tiny_opt, drawn, tmp_path / "lost", *flags), At(4, spoil)).problems
    assert "step 5: the loss is nan" in what and "checkpoint-3;" in kept and len(sent) == 6


def test_a_gradient_that_is_not_finite_ends_the_run(tiny_opt, drawn, tmp_path):
    def overflow(model):
        weight = next(weight for weight in model.parameters() if weight.requires_grad)
        weight.register_hook(lambda gradient: gradient * torch.inf)

    run = make_run(tiny_opt, drawn, tmp_path / "run", "--save_minutes", "1e-9", "--max_grad_norm", "0")
    what, kept = ended(run, At(2, overflow)).problems
    assert "step 3: the norm of the gradient is " in what and "--max_grad_norm 1" in what
    assert saved(run) == ["checkpoint-2"] and f"{run.folder.absolute()}/checkpoints/checkpoint-2;" in kept


def test_weights_that_are_not_finite_are_never_saved(tiny_opt, drawn, tmp_path):
    run = make_run(
        tiny_opt, drawn, tmp_path / "run", "--learning_rate", "1e39", "--warmup_steps", "0", "--max_steps", "1"
    )
    what, _ = ended(run, At(-1, None)).problems
    assert "step 1: the adapter's weights are not finite" in what and saved(run) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(number, finished, tiny_opt, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["finetune.py", "--csv_path", "my table.csv"])
    before = signal.getsignal(number)
    run = make_run(tiny_opt, drawn, tmp_path / "run")
    failure = ended(run, At(1, lambda _: os.kill(os.getpid(), number)))
    assert failure.exit_code == 128 + number and signal.getsignal(number) == before
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert failure.problems[0].startswith(f"{name}: stopped at step 2 of ") and saved(run) == ["checkpoint-2"]
    assert failure.problems[1] == "to go on: python finetune.py --csv_path 'my table.csv' --resume_from_checkpoint"
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--resume_from_checkpoint"))
    assert same_weights(adapter_of(finished[0]), adapter_of(tmp_path / "run"))


def test_a_run_stopped_behind_its_last_step_takes_no_other(tiny_opt, drawn, tmp_path):
    flags = ("--max_steps", "2", "--load_best_model_at_end", "false", "--eval_strategy", "no", "--learning_rate", "0.1")
    finetune(make_run(tiny_opt, drawn, tmp_path / "whole", *flags))
    callback = At(-1, None)
    callback.on_train_end = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM)
    assert ended(make_run(tiny_opt, drawn, tmp_path / "run", *flags), callback).exit_code == 143
    (tmp_path / "run").rename(tmp_path / "moved")
    finetune(make_run(tiny_opt, drawn, tmp_path / "moved", *flags, "--resume_from_checkpoint"))
    assert same_weights(adapter_of(tmp_path / "whole"), adapter_of(tmp_path / "moved"))


def test_a_second_ctrl_c_ends_at_once_and_one_handed_on_does_not():
    def press():
        with Interruption(speaks=False) as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)  # as a launcher hands it on
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.signal == signal.SIGINT
            interruption.since = time.monotonic() - 2
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still there")

    assert in_child(press) == 130


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.signal is None
    finally:
        signal.signal(signal.SIGINT, before)

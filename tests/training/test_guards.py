"""A run that diverges or is told to stop ends with its last good checkpoint, and goes on to the same weights."""

import os
import signal
import time

import pytest
import torch
from transformers import TrainerCallback

from blip2vqa.training.interruption import Interruption
from blip2vqa.training.recipe import finetune
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.errors import Failure
from helpers.feature_stores import in_child
from helpers.finetune_runs import adapter_of, make_run, same_weights


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

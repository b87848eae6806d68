"""Ends a run that diverges, or that is told to stop, with its last good checkpoint; and saves checkpoints by time."""

import math
import signal
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import DistributedType
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from blip2vqa.models.zero3 import gathered
from blip2vqa.training.interruption import SIGNALS, Interruption
from blip2vqa.training.resume import last_checkpoint
from blip2vqa.utils.errors import Failure
from blip2vqa.utils.restart import resuming_command

SHOWN_ROWS = 8
MOST_SKIPPED = 17
"""Steps one after another that float16 may leave out for gradients that overflow: its scale begins at 2¹⁶ and is halved each
time, so that by then nothing is scaled any more."""


@dataclass(frozen=True)
class _Step:
    """A step of the optimizer, and what the processes have found in it."""

    number: int
    """From 1."""
    rate: float
    losses: torch.Tensor
    """Of this process's batches."""
    norm: torch.Tensor
    """Of the gradient."""
    found: torch.Tensor
    """How many processes say that the norm is not finite, heard Ctrl-C, heard SIGTERM, and want a checkpoint; then, for each
    batch of each process, whether its loss is not finite."""
    arrived: torch.cuda.Event | None
    """Happens when `found` has come from the GPU; None where it is there."""


class Guard(TrainerCallback):
    """Looks at every step; all processes of a launch decide alike.

    On a CPU it looks before the weights change. A GPU would have to finish all that it was given before a number could be read
    off it: there a step is judged one step late, while the next one is under way, but always before anything is saved or
    validated. It reads `step_losses` and `grad_norm` of the trainer, and raises `Failure`.
    """

    def __init__(self, trainer: Trainer, interruption: Interruption):
        self.trainer, self.interruption = trainer, interruption
        self.stop: signal.Signals | None = None
        self.due, self.saved = False, time.monotonic()
        self.unjudged: _Step | None = None
        self.skipped, self.moved = 0, False

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = time.monotonic()
        self.moved = state.global_step > 0
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and not state.best_model_checkpoint and best.is_dir():
            state.best_model_checkpoint = str(best)  # the folder was moved since
        # A resumed run has waited as long for a better score as the stopped one.
        known = state.stateful_callbacks.get("EarlyStoppingCallback")
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback) and isinstance(known, dict) and state.global_step:
                callback.early_stopping_patience_counter = waited = known["attributes"][
                    "early_stopping_patience_counter"
                ]
                control.should_training_stop |= waited >= callback.early_stopping_patience
        control.should_training_stop |= state.global_step >= state.max_steps  # stopped behind its last step

    def on_pre_optimizer_step(self, args, state, control, lr_scheduler=None, train_dataloader=None, **kwargs):
        trainer, minutes = self.trainer, (time.monotonic() - self.saved) / 60
        by_time = args.save_minutes and args.save_strategy != "no" and state.is_world_process_zero
        heard = [
            self.interruption.signal == signal.SIGINT,
            self.interruption.signal == signal.SIGTERM,
            bool(by_time and minutes >= args.save_minutes),
        ]
        losses, norm = torch.stack(trainer.step_losses), trainer.grad_norm
        trainer.step_losses.clear()
        if not isinstance(norm, torch.Tensor):  # DeepSpeed's, which has none before its first step
            norm = torch.full((), norm or 0.0, device=losses.device)
        # One number a question, added up over the processes, and read off the device once.
        processes, batches = trainer.accelerator.num_processes, args.gradient_accumulation_steps
        found = torch.zeros(1 + len(heard) + processes * batches, device=losses.device)
        found[0] = ~torch.isfinite(norm)
        for place, said in enumerate(heard, 1):
            if said:
                found[place] = 1
        own = 1 + len(heard) + args.process_index * batches
        found[own : own + len(losses)] = ~torch.isfinite(losses)
        found = trainer.accelerator.reduce(found, "sum")
        found, arrived = send_to_host(found)
        step = _Step(state.global_step + 1, lr_scheduler.get_last_lr()[0], losses, norm, found, arrived)
        before, self.unjudged = self.unjudged, step
        self._judge(before if arrived else self._take(), train_dataloader)

    def on_step_end(self, args, state, control, train_dataloader=None, **kwargs):
        # Behind the last step of an epoch the validation comes first: a run that goes on would not catch up on it.
        if self.due and not state.epoch.is_integer() and state.global_step < state.max_steps:
            control.should_save = True
        self._check_weights(state, control, train_dataloader)

    def on_epoch_end(self, args, state, control, train_dataloader=None, **kwargs):
        self._judge(self._take(), train_dataloader)  # by the order of this epoch's rows
        control.should_save |= self.due
        self._check_weights(state, control, train_dataloader)

    def on_save(self, args, state, control, **kwargs):
        self.due, self.saved = False, time.monotonic()
        if self.stop:
            self.trainer.accelerator.wait_for_everyone()  # each process has files of its own in it
            raise stopped(self.trainer, self.stop)

    def _take(self) -> _Step | None:
        step, self.unjudged = self.unjudged, None
        return step

    def _judge(self, step: _Step | None, dataloader) -> None:
        """Note what the processes have heard in a step; raise `Failure` for a loss or a gradient that is not finite."""
        if step is None:
            return
        if step.arrived:
            step.arrived.synchronize()
        bad_norm, ctrl_c, sigterm, due, *bad_losses = step.found.tolist()
        self.stop = signal.SIGTERM if sigterm else signal.SIGINT if ctrl_c else self.stop
        self.due = bool(self.due or self.stop or due)
        # float16 finds its scale by gradients that overflow: those steps are left out, and are no sign of anything.
        scaled = self._is_scaled()
        self.skipped = self.skipped + 1 if bad_norm else 0
        self.moved = self.moved or not bad_norm
        if any(bad_losses):
            loss = step.losses.sum().item()
            self._diverge(
                step, "a loss is not finite" if math.isfinite(loss) else f"the loss is {loss:g}", dataloader, bad_losses
            )
        if bad_norm and not scaled:
            self._diverge(step, f"the norm of the gradient is {step.norm.item():g}", dataloader)
        if self.skipped >= MOST_SKIPPED:
            what = f"the gradient is not finite in {self.skipped} steps one after another, however the loss is scaled"
            self._diverge(step, what, dataloader)

    def _is_scaled(self) -> bool:
        """Tell whether the loss is scaled up for float16, and a step left out where that makes the gradient overflow."""
        accelerator = self.trainer.accelerator
        by_deepspeed = (
            accelerator.distributed_type == DistributedType.DEEPSPEED and accelerator.mixed_precision == "fp16"
        )
        return accelerator.scaler is not None or by_deepspeed

    def _check_weights(self, state, control, dataloader) -> None:
        """Refuse to save or validate weights that are not finite: the step before has thrown them there."""
        if control.should_save or control.should_evaluate or control.should_training_stop:
            self._judge(self._take(), dataloader)
            trained = [weight for weight in self.trainer.model.parameters() if weight.requires_grad]
            with gathered(trained):
                norm = torch.nn.utils.get_total_norm([weight.detach() for weight in trained])
            if not torch.isfinite(norm):
                raise self._diverged(f"step {state.global_step}: the adapter's weights are not finite any more")
            if control.should_training_stop and self.skipped and not self.moved:
                raise self._diverged(f"step {state.global_step}: no step had a gradient that is finite")

    def _diverge(self, step: _Step, what: str, dataloader, bad_losses: list[float] | None = None) -> NoReturn:
        """Raise the `Failure` of a step; `bad_losses`: as in `_Step.found`, None where all of its rows may be the cause."""
        rows = self._rows(step, dataloader, bad_losses)
        raise self._diverged(f"step {step.number}: {what}, at learning rate {step.rate:.3g}{rows}")

    def _rows(self, step: _Step, dataloader, bad_losses: list[float] | None) -> str:
        """Say which rows of the table a step is about, where the order is the trainer's own."""
        args, processes = self.trainer.args, self.trainer.accelerator.num_processes
        if args.train_sampling_strategy != "random":
            return ""
        batches, size = args.gradient_accumulation_steps, args.train_batch_size
        order, examples = list(self.trainer.sampler), self.trainer.train_dataset.examples
        first = (step.number - 1) % math.ceil(len(dataloader) / batches) * batches
        rows = {}
        for process, batch in product(range(processes), range(len(step.losses))):
            if bad_losses is None or bad_losses[process * batches + batch]:
                start = ((first + batch) * processes + process) * size  # the processes take turns
                for place in range(start, start + size):
                    if place < len(order) or processes > 1:  # several fill up the last batches from the epoch's start
                        example = examples[order[place % len(order)]]
                        rows[example.row] = f"{example.row} ({example.image.name})"
        named = [rows[row] for row in sorted(rows)]
        more = f" and {len(named) - SHOWN_ROWS} more" if len(named) > SHOWN_ROWS else ""
        return f", on rows {', '.join(named[:SHOWN_ROWS])}{more} of the training table"

    def _diverged(self, what: str) -> Failure:
        args = self.trainer.args
        last = last_checkpoint(Path(args.output_dir), args.save_only_model)
        lower = min(args.learning_rate / 10, 1e-4)
        remedy = f"start again in a new --output_dir with a lower --learning_rate, such as {lower:.3g}"
        if not args.max_grad_norm:
            remedy += ", or with --max_grad_norm 1"
        if self.trainer.accelerator.mixed_precision == "fp16":
            remedy += ", or with --dtype bfloat16 or float32"
        kept = (
            f"the last good checkpoint is kept: {last}; --start_from it uses it"
            if last
            else "no checkpoint was saved yet"
        )
        return Failure(f"training has diverged at {what}; {remedy}", kept)


def send_to_host(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """Copy a tensor to the CPU without waiting for the GPU that computes it.

    Returns the copy and the event after which it may be read; None where it is there already.
    """
    if not tensor.is_cuda:
        return tensor.cpu(), None
    copy, arrived = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()
    return copy, arrived


def stopped(trainer: Trainer, number: signal.Signals) -> Failure:
    """Return what ends a run that a signal has stopped: where it is, and the command that goes on with it."""
    last = last_checkpoint(Path(trainer.args.output_dir), trainer.args.save_only_model)
    step = f"at step {trainer.state.global_step} of {trainer.state.max_steps}"
    kept = f"saved as {last}" if last else "no checkpoint was saved"
    return Failure(
        f"{SIGNALS[number]}: stopped {step}; {kept}", f"to go on: {resuming_command()}", exit_code=128 + number
    )

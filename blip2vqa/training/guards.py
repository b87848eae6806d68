"""Ends a run that diverges, or that is told to stop, with its last good checkpoint; and saves checkpoints by time."""

import math
import signal
import time
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from blip2vqa.training.interruption import SIGNALS, Interruption
from blip2vqa.training.resume import last_checkpoint
from blip2vqa.utils.errors import Failure
from blip2vqa.utils.restart import resuming_command

SHOWN_ROWS = 8


class Guard(TrainerCallback):
    """Looks at every step before its weights change; all processes of a launch decide alike.

    It reads `step_losses` and `grad_norm` of the trainer, and raises `Failure`.
    """

    def __init__(self, trainer: Trainer, interruption: Interruption):
        self.trainer, self.interruption = trainer, interruption
        self.stop: signal.Signals | None = None
        self.due, self.saved = False, time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = time.monotonic()
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
        loss = sum(trainer.step_losses)
        # DeepSpeed has no norm before its first step.
        norm = torch.as_tensor(0.0 if trainer.grad_norm is None else trainer.grad_norm, device=args.device)
        by_time = args.save_minutes and args.save_strategy != "no" and state.is_world_process_zero
        heard = [
            self.interruption.signal == signal.SIGINT,
            self.interruption.signal == signal.SIGTERM,
            bool(by_time and minutes >= args.save_minutes),
        ]
        # One number a question, added up over the processes, and read off the device once.
        flags = torch.stack([~torch.isfinite(loss), ~torch.isfinite(norm)]).float()
        flags = torch.cat([flags, torch.tensor(heard, device=flags.device).float()])
        bad_loss, bad_norm, ctrl_c, sigterm, due = trainer.accelerator.reduce(flags, "sum").tolist()
        self.stop = signal.SIGTERM if sigterm else signal.SIGINT if ctrl_c else None
        self.due = bool(self.stop or due)
        trainer.step_losses.clear()
        scaler = trainer.accelerator.scaler
        # float16 finds its scale by gradients that overflow: those steps are left out, and are no sign of anything.
        if bad_loss or (bad_norm and (scaler is None or scaler.get_scale() <= 1)):
            what = f"the loss is {loss.item():g}" if bad_loss else f"the norm of the gradient is {norm.item():g}"
            what = what if not math.isfinite((loss if bad_loss else norm).item()) else "a loss is not finite"
            rate = lr_scheduler.get_last_lr()[0]
            rows = self._rows(args, state, train_dataloader)
            raise self._diverged(f"step {state.global_step + 1}: {what}, at learning rate {rate:.3g}{rows}")

    def on_step_end(self, args, state, control, **kwargs):
        # Behind the last step of an epoch the validation comes first: a run that goes on would not catch up on it.
        if self.due and not state.epoch.is_integer() and state.global_step < state.max_steps:
            control.should_save = True
        self._check_weights(state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save |= self.due
        self._check_weights(state, control)

    def on_save(self, args, state, control, **kwargs):
        self.due, self.saved = False, time.monotonic()
        if self.stop:
            self.trainer.accelerator.wait_for_everyone()  # each process has files of its own in it
            raise stopped(self.trainer, self.stop)

    def _check_weights(self, state, control) -> None:
        """Refuse to save or validate weights that are not finite: the step before has thrown them there."""
        if control.should_save or control.should_evaluate or control.should_training_stop:
            trained = [weight.detach() for weight in self.trainer.model.parameters() if weight.requires_grad]
            if not torch.isfinite(torch.nn.utils.get_total_norm(trained)):
                raise self._diverged(f"step {state.global_step}: the adapter's weights are not finite any more")

    def _rows(self, args, state, dataloader) -> str:
        """Say which rows of the table the step is about, where the order is the trainer's own."""
        if args.train_sampling_strategy != "random":
            return ""
        accumulated = args.gradient_accumulation_steps
        size = args.train_batch_size * accumulated * self.trainer.accelerator.num_processes
        start = state.global_step % math.ceil(len(dataloader) / accumulated) * size
        examples = self.trainer.train_dataset.examples
        rows = sorted(examples[index].row for index in list(self.trainer.sampler)[start : start + size])
        more = ", …" if len(rows) > SHOWN_ROWS else ""
        return f", on rows {', '.join(map(str, rows[:SHOWN_ROWS]))}{more} of the training table"

    def _diverged(self, what: str) -> Failure:
        args = self.trainer.args
        last = last_checkpoint(Path(args.output_dir))
        lower = min(args.learning_rate / 10, 1e-4)
        remedy = f"start again in a new --output_dir with a lower --learning_rate, such as {lower:.3g}"
        if not args.max_grad_norm:
            remedy += ", or with --max_grad_norm 1"
        if args.fp16:
            remedy += ", or with --dtype bfloat16 or float32"
        kept = (
            f"the last good checkpoint is kept: {last}; --start_from it uses it"
            if last
            else "no checkpoint was saved yet"
        )
        return Failure(f"training has diverged at {what}; {remedy}", kept)


def stopped(trainer: Trainer, number: signal.Signals) -> Failure:
    """Return what ends a run that a signal has stopped: where it is, and the command that goes on with it."""
    last = last_checkpoint(Path(trainer.args.output_dir))
    step = f"at step {trainer.state.global_step} of {trainer.state.max_steps}"
    kept = f"saved as {last}" if last else "no checkpoint was saved"
    return Failure(
        f"{SIGNALS[number]}: stopped {step}; {kept}", f"to go on: {resuming_command()}", exit_code=128 + number
    )

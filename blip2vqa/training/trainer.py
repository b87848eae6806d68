"""Trainer for answers: its arguments, its data set, and an evaluation that generates answers from prompts alone."""

import copy
import random
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset, Sampler
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import has_length

from blip2vqa.adapters.files.adapter import share_weights
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.config.sharding import FSDP, ZERO3
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.metrics import MAIN_METRICS, METRICS
from blip2vqa.evaluation.scores import swap_images
from blip2vqa.evaluation.tasks import LOSS
from blip2vqa.features.encode import Features
from blip2vqa.inference.generation import Answer
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.sharding import replicate
from blip2vqa.training.collators import COLLATORS, TrainingCollator
from blip2vqa.training.data import RunData
from blip2vqa.training.guards import Guard, stopped
from blip2vqa.training.interruption import Interruption
from blip2vqa.training.micro_batches import split_by_tokens
from blip2vqa.training.run import Run
from blip2vqa.utils.files import writing
from blip2vqa.utils.progress import show_progress

Answering = Callable[[list[Example], str], list[Answer]]
"""`answer(examples, progress)`: what the model answers as it is now; `progress` names the bar."""


def trainer_arguments(run: Run, dtype: torch.dtype) -> FinetuneArguments:
    """Derive the arguments that Trainer gets from those that the user gave, which stay as they are.

    `dtype`: the base's precision.
    """
    args, best = copy.copy(run.training), run.task.find_best_metric(run.training.metric_for_best_model)
    args.output_dir = str(run.folder.absolute() / "checkpoints")  # the state of a checkpoint names the best one
    args.metric_for_best_model = best
    args.greater_is_better = best != LOSS and METRICS[best].higher_is_better
    args.logging_nan_inf_filter = False  # it hides what `Guard` looks for, and waits for the device at every batch
    # The finished adapter is published once; Trainer would publish its checkpoints, and keep the token in them.
    args.push_to_hub, args.hub_token = False, None
    if args.device.type == "cpu":
        args.dataloader_pin_memory = False  # else torch warns at every epoch
    if dtype == torch.float16:
        args.fp16, args.mixed_precision = True, "fp16"  # brings the gradient scaler that float16 needs
    if args.n_gpu > 1:
        # Trainer would copy the model to all of them in one process, which is slow, and count the loss once for each.
        args._n_gpu = 1
    return args


class AnsweredQuestions(Dataset):
    """Pairs of an example and one of its answers; with several annotators it is drawn among theirs, anew in every epoch."""

    def __init__(self, examples: Sequence[Example], seed: int):
        self.examples = examples
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Example, str]:
        example = self.examples[index]
        # Seeded by epoch and row, so that a resumed or a distributed run draws the same answers.
        draw = random.Random(f"{self.seed}-{self.epoch}-{example.row}")
        return example, draw.choice([answer for answer in example.answers if answer.strip()])


class _EpochCallback(TrainerCallback):
    """Sets the epoch of data set and sampler; the one that accelerate sets depends on the number of processes."""

    def __init__(self, dataset: AnsweredQuestions, sampler: "RowSampler"):
        self.dataset, self.sampler = dataset, sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.epoch = self.sampler.epoch = int(state.epoch or 0)


def for_screen(logs: dict) -> dict:
    """Leave out the scores by type of question, which would make a line of the log too long to read."""
    by_type = tuple(f"eval_{name}_" for name in MAIN_METRICS)
    return {name: value for name, value in logs.items() if not name.startswith(by_type)}


class TrainingLines(PrinterCallback):
    """Upstream's callback without bars, whose lines stay short."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, for_screen(logs), **kwargs)


class TrainingProgress(ProgressCallback):
    """Upstream's callback, whose bars become lines where there is no terminal, and whose lines stay short."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, for_screen(logs), **kwargs)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.training_bar = show_progress(total=state.max_steps, desc="training", unit="step")
        self.current_step = 0

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if state.is_world_process_zero and has_length(eval_dataloader):
            if self.prediction_bar is None:
                self.prediction_bar = show_progress(
                    total=len(eval_dataloader), desc="validation loss", unit="batch", leave=self.training_bar is None
                )
            self.prediction_bar.update(1)


class RowSampler(Sampler):
    """Yields questions in random order, those that share a row side by side, and if asked also rows of similar length.

    Rows, and the questions in each, are shuffled anew in every epoch. Batches are cut from this order at any place.
    """

    def __init__(self, rows: Iterable[Hashable], seed: int, lengths: Sequence[int] | None = None, window: int = 1):
        """Questions with equal entries in `rows` share a row.

        `lengths` holds the length of each question in tokens: with it, the rows of every `window` questions are sorted, the
        longest first.
        """
        self.groups: dict[Hashable, list[int]] = {}
        for index, row in enumerate(rows):
            self.groups.setdefault(row, []).append(index)
        self.length = sum(map(len, self.groups.values()))
        self.seed, self.epoch, self.lengths, self.window = seed, 0, lengths, window

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        draw = random.Random(f"{self.seed}-{self.epoch}")
        groups = [draw.sample(group, len(group)) for group in self.groups.values()]
        draw.shuffle(groups)
        if self.lengths is not None:
            size = max(1, self.window * len(groups) // self.length)  # rows that hold about a window of questions
            windows = [groups[start : start + size] for start in range(0, len(groups), size)]
            groups = [group for window in windows for group in sorted(window, key=self._tokens, reverse=True)]
        return (index for group in groups for index in group)

    def _tokens(self, group: list[int]) -> int:
        return sum(self.lengths[index] for index in group)


def make_batches(data: RunData, features, args) -> tuple[AnsweredQuestions, RowSampler, TrainingCollator]:
    """Make the training questions, the sampler that orders them, and the collator that the base needs.

    `features`: what the batches start from; `args`: what `trainer_arguments` returns.
    """
    train, text = data.train, data.text
    # An encoder would have to be kept from looking across questions in every layer, which T5's does not offer.
    shared = text.shares_image and len({example.digest for example in train}) < len(train)
    tokens_per_row, lengths = (args.tokens_per_row or None) if shared else None, None
    if args.train_sampling_strategy == "group_by_length":
        lengths = text.prompt_lengths([example.question for example in train])
    rows = range(len(train)) if tokens_per_row is None else (example.digest for example in train)
    sampler = RowSampler(rows, args.seed, lengths, window=50 * args.train_batch_size)  # the window is upstream's own
    return AnsweredQuestions(train, args.seed), sampler, COLLATORS[text.answers_with](text, features, tokens_per_row)


class VQATrainer(Trainer):
    """Trainer over features of the frozen stage; `evaluate()` reports the loss and the score of generated answers."""

    def __init__(self, run: Run, loaded: LoadedModel, features: Features, data: RunData, answer: Answering):
        """Build the trainer of a run, whose model has its adapter already."""
        args = trainer_arguments(run, loaded.dtype)
        dataset, self.sampler, collator = make_batches(data, features, args)
        if args.train_sampling_strategy == "group_by_length":
            # The sampler sees to it. Trainer would look for lengths in the validation set, too, and find none.
            args.train_sampling_strategy = "random"
        patience = args.early_stopping_patience
        super().__init__(
            model=loaded.model,
            args=args,
            train_dataset=dataset,
            eval_dataset=AnsweredQuestions(data.val, args.seed),
            data_collator=collator,
            compute_loss_func=collator.LOSS(args.label_smoothing_factor),
            callbacks=[EarlyStoppingCallback(patience)] if patience else [],
        )
        self.answer, self.task, self.sharded = answer, run.task, loaded.sharded
        if self.sharded == ZERO3:
            unset_hf_deepspeed_config()  # which upstream has set: BERTScore's encoder, too, is to be loaded whole
        self.answers_by_step: dict[int, list[Answer]] = {}  # to the validation questions
        self.answers_at_end: dict[str, list[Answer]] = {}
        self.add_callback(_EpochCallback(dataset, self.sampler))
        self.interruption = Interruption(speaks=self.is_world_process_zero())
        self.add_callback(Guard(self, self.interruption))
        for upstream, ours in ((ProgressCallback, TrainingProgress), (PrinterCallback, TrainingLines)):
            if self.pop_callback(upstream):  # the first, or with --disable_tqdm the second; a notebook has its own
                self.add_callback(ours())

    def train(self, *args, **kwargs):
        """Train as upstream does. Raises `Failure` when the run diverges, or is stopped by a signal."""
        self.step_losses, self.grad_norm = [], 0.0
        with self.interruption:
            done = super().train(*args, **kwargs)
        if self.interruption.signal:  # in the validation behind the last step
            raise stopped(self, self.interruption.signal)
        return done

    def evaluation_loop(self, dataloader, description, *args, metric_key_prefix: str = "eval", **kwargs):
        """Compute the loss as upstream does, then generate answers from prompts alone.

        The training batches would show a causal model the answer.
        """
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        examples = self.eval_dataset.examples
        answers = self.answers_by_step[self.state.global_step] = self._answer(examples, "validation")
        scores = self.task.score(examples, [answer.text for answer in answers])
        reported = dict.fromkeys((self.task.main, self.args.metric_for_best_model))
        output.metrics.update({f"{metric_key_prefix}_{name}": scores[name] for name in reported if name in scores})
        for kind, entry in scores.get("by_question_type", {}).items():
            named = re.sub(r"[^\w\- ./]", "_", kind)  # some trackers refuse other signs
            output.metrics[f"{metric_key_prefix}_{self.task.main}_{named}"] = entry[self.task.main]
        return output

    def final_answers(self) -> dict[str, list[Answer]]:
        """Answer the validation questions by the trained model, as `adapter`, and about other images, as `swapped`.

        Nothing is asked twice: not what was answered at the step that is kept, nor when this is called again. Without a
        second image nothing is swapped.
        """
        if not self.answers_at_end:
            examples = self.eval_dataset.examples
            step = self.state.best_global_step if self.args.load_best_model_at_end else self.state.global_step
            self.answers_at_end["adapter"] = self.answers_by_step.get(step) or self._answer(examples, "adapter")
            if swapped := swap_images(examples, self.args.seed):
                self.answers_at_end["swapped"] = self._answer(swapped, "swapped images")
        return self.answers_at_end

    def _answer(self, examples: list[Example], progress: str) -> list[Answer]:
        answers = self.answer(examples, progress)
        if self.sharded == ZERO3:
            self.deepspeed.empty_partition_cache()  # no gradient passes through weights that were gathered in inference mode
        return answers

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Train on one batch, whole or in parts of at most `tokens_per_batch` tokens, whose gradients are added up."""
        loss = self._train_in_parts(model, inputs, num_items_in_batch)
        self.step_losses.append(loss)
        return loss

    def _train_in_parts(self, model, inputs, num_items_in_batch) -> torch.Tensor:
        if not self.args.tokens_per_batch:
            return super().training_step(model, inputs, num_items_in_batch)
        *before, last = split_by_tokens(inputs, self.args.tokens_per_batch)
        loss = 0.0
        for part in before:
            with self.accelerator.no_sync(model):  # processes exchange gradients once a batch, not once a part
                loss += super().training_step(model, part, num_items_in_batch)
        return loss + super().training_step(model, last, num_items_in_batch)

    def _save_checkpoint(self, *args, **kwargs):
        with writing(self.args.output_dir):
            super()._save_checkpoint(*args, **kwargs)
            if self.is_deepspeed_enabled and self.args.should_save:
                for script in Path(self.args.output_dir).glob("checkpoint-*/zero_to_*.py"):
                    script.unlink()  # DeepSpeed puts programs beside its states; a folder of an adapter must hold none

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            share_weights(Path(output_dir or self.args.output_dir))

    def _wrap_model(self, model, training=True, dataloader=None):
        done = self.accelerator.unwrap_model(model) is not model
        if done or not (training and self.sharded == FSDP):
            return super()._wrap_model(model, training, dataloader)
        model = self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)  # autocast alone
        return replicate(model, self.args.device, **self.accelerator.ddp_handler.to_kwargs())

    def _get_grad_norm(self, model, grad_norm=None):
        self.grad_norm = super()._get_grad_norm(model, grad_norm)
        return self.grad_norm

    def _run_epoch(self, **kwargs):
        if not self.control.should_training_stop:  # upstream takes one step before it asks
            super()._run_epoch(**kwargs)

    def _get_train_sampler(self, train_dataset=None):
        ours = self.args.train_sampling_strategy == "random"
        return self.sampler if ours else super()._get_train_sampler(train_dataset)

    def floating_point_ops(self, inputs) -> int:
        """Return 0: upstream counts the tokens of `pixel_values`, which are not in the batch."""
        return 0

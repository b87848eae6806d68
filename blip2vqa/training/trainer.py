"""Trainer for answers: its data set, its loss, and an evaluation that generates answers from prompts alone."""

import random
from collections.abc import Callable, Hashable, Iterable, Sequence

from torch.utils.data import Dataset, Sampler
from transformers import ProgressCallback, Trainer, TrainerCallback

from blip2vqa.data.examples import Example
from blip2vqa.evaluation.tasks import VQA, Task
from blip2vqa.features.encode import Features
from blip2vqa.inference.generation import Answer
from blip2vqa.models.text import TextEncoder
from blip2vqa.training.micro_batches import split_by_tokens
from blip2vqa.training.progress_callback import TrainingProgress


class AnsweredQuestions(Dataset):
    """`(example, answer)` pairs; with several annotators the answer is drawn among theirs, anew in every epoch."""

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
    """Tells data set and sampler which epoch it is; what accelerate tells them differs by the number of processes."""

    def __init__(self, *told):
        self.told = told

    def on_epoch_begin(self, args, state, control, **kwargs):
        for one in self.told:
            one.epoch = int(state.epoch or 0)


class RowSampler(Sampler):
    """Questions in random order, but those that share a row side by side, and if asked rows of like length, too.

    Rows, and the questions of each, are shuffled anew in every epoch; batches are cut from this order anywhere.
    """

    def __init__(self, rows: Iterable[Hashable], seed: int, lengths: Sequence[int] | None = None, window: int = 1):
        """`rows`: what each question shares a row by; `lengths`: of each question in tokens, to sort the rows of every
        `window` questions by, longest first."""
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


def row_length(train: Sequence[Example], text: TextEncoder, args) -> int | None:
    """Longest row, in tokens, that questions of one image share; None where each has a row of its own.

    A seq2seq model's encoder would have to be kept from looking across questions in every layer, which T5's does not offer.
    """
    shared = len({example.digest for example in train}) < len(train)
    return args.tokens_per_row if shared and args.tokens_per_row and text.shares_image else None


def row_sampler(train: Sequence[Example], text: TextEncoder, args, tokens_per_row: int | None) -> RowSampler:
    """The order in which a run with `TrainingArguments` `args` takes its training questions."""
    lengths = None
    if args.train_sampling_strategy == "group_by_length":
        lengths = text.prompt_lengths([example.question for example in train])
    rows = range(len(train)) if tokens_per_row is None else (example.digest for example in train)
    return RowSampler(rows, args.seed, lengths, window=50 * args.train_batch_size)  # the window is upstream's own


class VQATrainer(Trainer):
    """Trainer over features of the frozen stage; `evaluate()` reports the loss and the task's score of what is generated."""

    def __init__(
        self,
        text: TextEncoder,
        features: Features,
        answers: Callable[[list[Example], str], list[Answer]],
        *,
        train,
        val,
        tokens_per_row: int | None = None,
        task: Task = VQA,
        **kwargs,
    ):
        """`answers(examples, progress)`: what the model says as it is now, the bar's name given."""
        args = kwargs["args"]
        dataset = AnsweredQuestions(train, args.seed)
        super().__init__(
            train_dataset=dataset,
            eval_dataset=AnsweredQuestions(val, args.seed),
            data_collator=text.collator(features, tokens_per_row),
            compute_loss_func=text.loss(args.label_smoothing_factor),
            **kwargs,
        )
        self.answers, self.task = answers, task
        self.said: dict[int, list[Answer]] = {}  # answers to the validation questions, by step
        self.sampler = row_sampler(train, text, args, tokens_per_row)
        self.add_callback(_EpochCallback(dataset, self.sampler))
        if self.pop_callback(ProgressCallback):  # upstream's is there unless --disable_tqdm
            self.add_callback(TrainingProgress())

    def evaluation_loop(self, dataloader, description, *args, metric_key_prefix: str = "eval", **kwargs):
        """Upstream's loop for the loss, then answers from prompts: the training ids would show a causal model the answer."""
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        examples = self.eval_dataset.examples
        said = self.said[self.state.global_step] = self.answers(examples, "validation")
        scores = self.task.score(examples, [answer.text for answer in said])
        output.metrics[f"{metric_key_prefix}_{self.task.main}"] = scores[self.task.main]
        return output

    def final_answers(self) -> list[Answer]:
        """What the trained model says to the validation questions, asked again only if it was not asked as it is now."""
        step = self.state.best_global_step if self.args.load_best_model_at_end else self.state.global_step
        return self.said.get(step) or self.answers(self.eval_dataset.examples, "adapter")

    def training_step(self, model, inputs, num_items_in_batch=None):
        """As upstream, or in parts of at most `tokens_per_batch` tokens, whose gradients add up to the batch's own."""
        if not self.args.tokens_per_batch:
            return super().training_step(model, inputs, num_items_in_batch)
        *before, last = split_by_tokens(inputs, self.args.tokens_per_batch)
        loss = 0.0
        for part in before:
            with self.accelerator.no_sync(model):  # processes exchange gradients once a batch, not once a part
                loss += super().training_step(model, part, num_items_in_batch)
        return loss + super().training_step(model, last, num_items_in_batch)

    def _get_train_sampler(self, train_dataset=None):
        ours = self.args.train_sampling_strategy in ("random", "group_by_length")
        return self.sampler if ours else super()._get_train_sampler(train_dataset)

    def floating_point_ops(self, inputs) -> int:
        """Not counted: upstream's estimate takes the number of tokens from `pixel_values`, which are not there."""
        return 0

"""Answers as the outputs of a head (ViLT): which ones there are, their targets, batches, and what the head says."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from blip2vqa.data.answers import normalize_answer, vqa_score
from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Pixels
from blip2vqa.models.families import family_of
from blip2vqa.models.text import TextEncoder
from blip2vqa.training.losses import ClassLoss
from blip2vqa.utils.errors import InputError

UNNAMED = "LABEL_0"  # what transformers calls the first output of a head that was never trained


@dataclass(frozen=True)
class AnswerList:
    """The answers that a head tells apart, the most frequent first, each in its most common spelling."""

    answers: tuple[str, ...]
    rare: int = 0
    """Answers of the training table left out."""

    @classmethod
    def of(cls, examples: Sequence[Example], min_count: int) -> "AnswerList":
        """Answers of at least `min_count` annotators; a table with one answer a row has one. Raises `InputError` for none."""
        spellings: dict[str, Counter] = defaultdict(Counter)
        for example in examples:
            for answer in example.answers:
                if normalize_answer(answer):
                    spellings[normalize_answer(answer)][answer.strip()] += 1
        counts = {name: spelt.total() for name, spelt in spellings.items()}
        kept = sorted((name for name in counts if counts[name] >= min_count), key=lambda name: -counts[name])
        if not kept:
            most = max(counts.values(), default=0)
            raise InputError(
                f"--min_answer_count {min_count}: no answer is that frequent; the most frequent counts {most}"
            )
        return cls(tuple(spellings[name].most_common(1)[0][0] for name in kept), len(counts) - len(kept))


@dataclass(frozen=True)
class ClassEncoder(TextEncoder):
    """As `TextEncoder`, for a base that reads the question and chooses among `answers`."""

    answers: tuple[str, ...] = ()

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {normalize_answer(answer): row for row, answer in reversed(list(enumerate(self.answers)))}

    @property
    def classes(self) -> bool:
        """Whether answers are outputs of a head, not tokens."""
        return True

    def row(self, answer: str) -> int | None:
        """Which output stands for an answer, after the official normalisation."""
        return self._rows.get(normalize_answer(answer))

    def targets(self, annotated: Sequence[Sequence[str]]) -> torch.Tensor:
        """Annotators' answers to each question → [questions, answers]: the VQA accuracy that each answer would have."""
        targets = torch.zeros(len(annotated), len(self.answers))
        for question, said in enumerate(annotated):
            for answer in dict.fromkeys(said):
                row = self.row(answer)
                if row is not None:
                    targets[question, row] = max(targets[question, row].item(), vqa_score(answer, list(said)))
        return targets

    def collator(self, pixels: Pixels, tokens_per_row: None = None) -> "ClassCollator":
        """What makes training batches."""
        return ClassCollator(self, pixels)

    def loss(self, label_smoothing: float = 0.0) -> ClassLoss:
        """What training makes small."""
        return ClassLoss()

    def refused(self, args) -> list[str]:
        """What of `FinetuneArguments` goes with tokens alone."""
        problems = []
        if args.tokens_per_batch:
            problems.append("--tokens_per_batch: this base does not split batches; use a smaller --batch_size")
        if args.label_smoothing_factor:
            problems.append("--label_smoothing_factor: this base's targets are soft by themselves; leave it out")
        return problems

    def distinct(self, answers: Sequence[str]) -> tuple[str, ...]:
        """The first of those of `answers` that one output stands for."""
        return tuple({self.row(answer): answer for answer in reversed(answers)}.values())[::-1]

    def check_lengths(self, examples: Sequence[Example], answer_room: int = 0, tokens_per_row: int = 0) -> None:
        """As `TextEncoder.check_lengths`, of the questions: answers take no positions."""
        super().check_lengths([replace(example, answers=()) for example in examples], 0)

    def unknown(self, answers: Sequence[str]) -> list[str]:
        """Those of `answers` that the head has no output for."""
        return [answer for answer in answers if self.row(answer) is None]

    def batch(
        self,
        pixels: Pixels,
        digests: Sequence[str],
        questions: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` [batch, longest], `pixel_values` [batch, 3, height, width] and `pixel_mask`."""
        return self._pad(self.prompt_ids(questions, prompts)) | pixels.padded(digests)


def class_encoder(processor, config, prompt: str | None = None, answers: Sequence[str] | None = None) -> ClassEncoder:
    """For a base with a head for `answers`; None: its own. Raises `InputError` where it has none."""
    if not answers:
        answers = [config.id2label[row] for row in range(config.num_labels)]
        if answers[0] == UNNAMED:
            raise InputError("base model: it has no head for answers yet; fine-tune it, or name an adapter of it")
    return ClassEncoder.of(processor, config, prompt, answers=tuple(answers))


def text_encoder(
    processor, config, prompt: str | None = None, answers: Sequence[str] | None = None
) -> TextEncoder | ClassEncoder:
    """What turns questions and answers into tensors for a base; `answers`: those that a head is to tell apart."""
    if family_of(config).answers == "classes":
        return class_encoder(processor, config, prompt, answers)
    return TextEncoder.of(processor, config, prompt)


@dataclass(frozen=True)
class ClassCollator:
    """`(example, answer)` pairs → a batch whose `labels` are the soft targets of all annotators' answers."""

    text: ClassEncoder
    pixels: Pixels
    tokens_per_row: None = None

    def __call__(self, items: Sequence[tuple[Example, str]]) -> dict[str, torch.Tensor]:
        examples = [example for example, _ in items]
        digests, questions = [e.digest for e in examples], [e.question for e in examples]
        labels = self.text.targets([example.answers for example in examples])
        return self.text.batch(self.pixels, digests, questions) | {"labels": labels}


@torch.inference_mode()
def class_scores(loaded, text: ClassEncoder, pixels: Pixels, digests, questions, prompts=None) -> torch.Tensor:
    """Probability of each answer to each question, one apart from the other: float32 [questions, answers]."""
    batch = {name: tensor.to(loaded.device) for name, tensor in text.batch(pixels, digests, questions, prompts).items()}
    batch["pixel_values"] = batch["pixel_values"].to(loaded.dtype)
    return loaded.model(**batch).logits.float().sigmoid().cpu()

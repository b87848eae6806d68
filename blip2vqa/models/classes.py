"""Answers as the outputs of a head: which ones there are, their targets, batches, and what the head says."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from blip2vqa.data.answers import normalize_answer, vqa_score
from blip2vqa.models.text import PromptEncoder
from blip2vqa.utils.errors import InputError

UNNAMED = "LABEL_0"  # what transformers calls the first output of a head that was never trained


def head_answers(config) -> tuple[str, ...]:
    """Return the answers that a base's own head tells apart."""
    return tuple(config.id2label[row] for row in range(config.num_labels))


@dataclass(frozen=True)
class ClassSubset:
    """Some of a head's answers, the only ones allowed."""

    answers: tuple[str, ...]
    rows: tuple[int, ...]
    """The outputs that stand for them."""

    longest: ClassVar[int] = 0
    """Answers take no tokens."""

    def of(self, row: int) -> "ClassSubset":
        """Return the subset of a row of a batch: all have this one."""
        return self


@dataclass(frozen=True)
class ClassEncoder(PromptEncoder):
    """Encodes text for a base that reads the question and chooses among `answers`."""

    answers_with = "classes"

    def __post_init__(self):
        if self.answers[0] == UNNAMED:
            raise InputError("base model: it has no head for answers yet; fine-tune it, or name an adapter of it")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {normalize_answer(answer): row for row, answer in reversed(list(enumerate(self.answers)))}

    def row(self, answer: str) -> int | None:
        """Find the output that stands for an answer, after the official normalisation."""
        return self._rows.get(normalize_answer(answer))

    def constraint(self, answers: Sequence[str] | None = None) -> ClassSubset | None:
        """Restrict the base to `answers`; two that one output stands for count once. None: all are allowed.

        Raises `InputError` for answers that the head has no output for.
        """
        if not answers:
            return None
        unknown = [answer for answer in answers if self.row(answer) is None]
        if unknown:
            raise InputError(
                f"--answers: the model has no output for {', '.join(map(repr, unknown[:5]))}; leave it out"
            )
        first = {self.row(answer): answer for answer in reversed(answers)}
        return ClassSubset(tuple(first.values())[::-1], tuple(first)[::-1])

    def targets(self, annotated: Sequence[Sequence[str]]) -> torch.Tensor:
        """Compute the VQA accuracy of every answer by the annotators' answers to each question: [questions, answers]."""
        targets = torch.zeros(len(annotated), len(self.answers))
        for question, said in enumerate(annotated):
            for answer in dict.fromkeys(said):
                row = self.row(answer)
                if row is not None:
                    targets[question, row] = max(targets[question, row].item(), vqa_score(answer, list(said)))
        return targets

    def batch(
        self, pixels, digests: Sequence[str], questions: Sequence[str], prompts: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Make `input_ids` and `attention_mask` [batch, longest], `pixel_values` [batch, 3, height, width] and `pixel_mask`.

        `pixels`: `features.Pixels`, which opens the images by their digests.
        """
        return self.pad_rows(self.prompt_ids(questions, prompts)) | pixels.padded(digests)


@torch.inference_mode()
def class_scores(loaded, text: ClassEncoder, pixels, digests, questions, prompts=None) -> torch.Tensor:
    """Compute the probability of each answer to each question, one apart from the other: float32 [questions, answers]."""
    batch = {name: tensor.to(loaded.device) for name, tensor in text.batch(pixels, digests, questions, prompts).items()}
    batch["pixel_values"] = batch["pixel_values"].to(loaded.dtype)
    return loaded.model(**batch).logits.float().sigmoid().cpu()

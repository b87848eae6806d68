"""`(example, answer)` pairs → batches for training, each kind with the loss that its labels are for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Features, Pixels
from blip2vqa.models.classes import ClassEncoder
from blip2vqa.models.text import IGNORE, TextEncoder


@dataclass(frozen=True)
class AnswerLoss:
    """Cross entropy of answer and end tokens, averaged over those of the whole optimizer step.

    It is not computed by the model: T5 averages within each micro-batch, which makes gradients grow with the number of
    accumulation steps. A loss that is computed here is given the count of tokens in the whole step by Trainer.
    """

    label_smoothing: float = 0.0

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None):
        """Compute the loss, a scalar, from `labels` [batch, length] and `outputs.logits` [supervised tokens, vocabulary]."""
        targets = labels[labels != IGNORE]  # [tokens]
        total = cross_entropy(outputs.logits.float(), targets, reduction="sum", label_smoothing=self.label_smoothing)
        return total / (targets.numel() if num_items_in_batch is None else num_items_in_batch)


@dataclass(frozen=True)
class ClassLoss:
    """Binary cross entropy, summed over the answers and averaged over the questions of the whole optimizer step.

    As `ViltForQuestionAnswering`, after https://github.com/jnhwkim/ban-vqa/blob/master/train.py#L19.
    """

    label_smoothing: float = 0.0
    """Stays 0, since the targets are soft by themselves."""

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None):
        """Compute the loss, a scalar, from `labels` and `outputs.logits` [batch, answers]."""
        total = binary_cross_entropy_with_logits(outputs.logits.float(), labels.float(), reduction="sum")
        # Trainer counts labels, each question having one for every answer.
        return total / ((labels.numel() if num_items_in_batch is None else num_items_in_batch) / labels.shape[1])


@dataclass(frozen=True)
class TrainingCollator:
    """`(example, answer)` pairs → a batch of token tensors, with one image's features a row under their stage's name.

    `keep` marks the positions that predict a supervised token: [rows, longest], of a seq2seq model the decoder's.
    """

    text: TextEncoder
    features: Features
    tokens_per_row: int | None = None
    """Longest row, in tokens, that questions of one image share; None: one row a question."""

    LOSS: ClassVar = AnswerLoss
    REFUSED: ClassVar = {}
    """Options of a run that do not go with it → what to do instead."""

    def __call__(self, items: Sequence[tuple[Example, str]]) -> dict[str, torch.Tensor]:
        if self.tokens_per_row is None:
            digests = [example.digest for example, _ in items]
            batch = self.text.training_batch(
                [example.question for example, _ in items], [answer for _, answer in items]
            )
        else:
            digests, groups = self._rows(items)
            batch = self.text.shared_batch(groups)
        supervised = batch["labels"] != IGNORE
        # Column i of a causal model predicts token i + 1; a decoder's input is shifted already.
        batch["keep"] = supervised if self.text.seq2seq else supervised.roll(-1, dims=1)
        return {self.features.name: self.features.of(digests), **batch}

    def _rows(self, items: Sequence[tuple[Example, str]]) -> tuple[list[str], list[list[tuple[list[int], list[int]]]]]:
        """Pack the token ids of prompts and answers into rows of one image each, of at most `tokens_per_row` tokens."""
        image = self.text.num_query_tokens
        prompts = self.text.prompt_ids([example.question for example, _ in items])
        targets = self.text.answer_ids([answer for _, answer in items])
        digests, groups, lengths, open_row = [], [], [], {}
        for (example, _), prompt, target in zip(items, prompts, targets, strict=True):
            length = len(prompt) - image + len(target)
            row = open_row.get(example.digest)
            if row is None or lengths[row] + length > self.tokens_per_row:
                row = open_row[example.digest] = len(groups)
                digests.append(example.digest)
                groups.append([])
                lengths.append(image)
            groups[row].append((prompt, target))
            lengths[row] += length
        return digests, groups


@dataclass(frozen=True)
class ClassCollator:
    """`(example, answer)` pairs → a batch whose `labels` are the soft targets of all annotators' answers."""

    text: ClassEncoder
    pixels: Pixels
    tokens_per_row: None = None

    LOSS: ClassVar = ClassLoss
    REFUSED: ClassVar = {
        "tokens_per_batch": "this base does not split batches; use a smaller --batch_size",
        "label_smoothing_factor": "this base's targets are soft by themselves; leave it out",
    }

    def __call__(self, items: Sequence[tuple[Example, str]]) -> dict[str, torch.Tensor]:
        examples = [example for example, _ in items]
        digests, questions = [e.digest for e in examples], [e.question for e in examples]
        labels = self.text.targets([example.answers for example in examples])
        return self.text.batch(self.pixels, digests, questions) | {"labels": labels}


COLLATORS = {"tokens": TrainingCollator, "classes": ClassCollator}
"""By `answers_with` of what encodes a base's text."""

"""Losses of training: cross entropy of an answer's tokens, and of a head with one output for each answer."""

from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from blip2vqa.models.text import IGNORE


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

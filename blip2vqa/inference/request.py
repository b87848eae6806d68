"""How a question is asked: the prompt's tokens, the decoding, the answers allowed, and the adapter."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from blip2vqa.adapters.ref import CURRENT, AdapterRef
from blip2vqa.config.decoding import Decoding
from blip2vqa.evaluation.calibration import Calibration
from blip2vqa.models.answer_lists import AnswerTree, AnswerTrees
from blip2vqa.models.classes import ClassSubset
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.text import PromptEncoder


@dataclass(frozen=True)
class AnswerRequest:
    """How a question is asked, and which adapter answers it."""

    text: PromptEncoder
    decoding: Decoding = field(default_factory=Decoding)
    tree: AnswerTree | AnswerTrees | ClassSubset | None = None
    """The answers allowed; None allows any."""
    adapter: AdapterRef = CURRENT
    of_row: bool = False
    """Whether the answers allowed are those of one row alone."""
    calibration: Calibration | None = None
    """Maps confidences to probabilities; None where the adapter has none, or is not asked as it was calibrated."""

    def rate(self, answer: "Answer") -> "Answer":
        """Return an answer with the probability that it is right, where there is a calibration."""
        if self.calibration is None:
            return answer
        return replace(answer, probability_right=self.calibration.probability(answer.confidence))


@dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    text: str
    confidence: float
    """Probability of the answer's tokens, end token included: their product, from 0 to 1; of a head, that of its output."""
    ranked: tuple[tuple[str, float], ...] = ()
    """With a list of answers, the likeliest of them and their probabilities."""
    probability_right: float | None = None
    """Probability that the answer is right, from the confidence as it was calibrated; None where it was not."""


def use_adapters(loaded: LoadedModel, adapters: Sequence[AdapterRef]) -> AbstractContextManager:
    """Inside, row i of every batch goes through adapter `adapters[i]`; a base with none beside it answers as it is.

    Raises `InputError` for an adapter that is not loaded.
    """
    return nullcontext() if loaded.adapters is None else loaded.adapters.use_adapters(adapters)

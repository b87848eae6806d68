"""Who answers a question, and how."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from blip2vqa.models.answer_lists import AnswerTree
from blip2vqa.models.classes import ClassSubset
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.text import PromptEncoder
from blip2vqa.utils.errors import InputError

AS_IT_IS = ""
"""AnswerRequest of the model as it stands: the base alone, under the one adapter that trains, or with one merged into it."""
BASE = "__base__"
"""AnswerRequest of the base alone, whatever adapters are beside it."""


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; kept in an adapter's manifest."""

    num_beams: int = 1
    max_new_tokens: int = 10
    min_new_tokens: int = 0
    do_sample: bool = False
    """Draw each token, with `temperature` and among the likeliest ones that make up `top_p`; else take the likeliest."""
    temperature: float = 1.0
    top_p: float = 1.0
    sampling_seed: int = 0
    """The same for every batch: the same batches are drawn alike."""

    def describe(self) -> str:
        """In a few words."""
        how = f"{self.num_beams} beams" if self.num_beams > 1 else "greedy"
        if self.do_sample:
            how = f"sampled (temperature {self.temperature:g}, top p {self.top_p:g}, seed {self.sampling_seed})"
        least = f"{self.min_new_tokens} to " if self.min_new_tokens else "up to "
        return f"{how}, {least}{self.max_new_tokens} tokens"


@dataclass(frozen=True)
class AnswerRequest:
    """Who answers a question, and how."""

    text: PromptEncoder
    decoding: Decoding = field(default_factory=Decoding)
    tree: AnswerTree | ClassSubset | None = None
    """The answers allowed; None: whatever the model says."""
    adapter: str = AS_IT_IS
    """Name of a loaded adapter, or `BASE`, or `AS_IT_IS`."""


@dataclass(frozen=True)
class Answer:
    """The answer to one question."""

    text: str
    confidence: float
    """Probability of the answer's tokens, end token included: their product, from 0 to 1; of a head, that of its output."""
    ranked: tuple[tuple[str, float], ...] = ()
    """With a list of answers, the likeliest of them and their probabilities."""


@contextmanager
def use_adapters(loaded: LoadedModel, adapters: Sequence[str]) -> Iterator[None]:
    """Inside, row i of every batch goes through adapter `adapters[i]`, `BASE`, or the model `AS_IT_IS`; see `Adapters`.

    Raises `InputError` for an adapter that is not there.
    """
    if loaded.adapters is not None:
        with loaded.adapters.use_adapters([_inner(loaded, name) for name in adapters]):
            yield
    elif set(adapters) <= {AS_IT_IS}:
        yield
    elif set(adapters) == {BASE}:  # beside the one adapter that trains
        with loaded.model.disable_adapter():
            yield
    else:
        raise InputError(
            *(f"adapter {name}: is not loaded; there is none" for name in sorted({*adapters} - {AS_IT_IS, BASE}))
        )


def _inner(loaded: LoadedModel, name: str) -> str | None:
    """What `Adapters` calls the adapter that speaks; None: the base."""
    return loaded.adapters.default if name == AS_IT_IS else None if name == BASE else name

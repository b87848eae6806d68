"""How a question is asked: the prompt's tokens, the decoding, the answers allowed, and the adapter."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.models.answer_lists import AnswerTree
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.text import TextEncoder
from blip2vqa.utils.errors import InputError


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
    """How a question is asked, and which adapter answers it."""

    text: TextEncoder
    decoding: Decoding = field(default_factory=Decoding)
    tree: AnswerTree | None = None
    """The answers allowed; None allows any."""
    adapter: AdapterRef = CURRENT


@contextmanager
def use_adapters(loaded: LoadedModel, adapters: Sequence[AdapterRef]) -> Iterator[None]:
    """Inside, row i of every batch goes through adapter `adapters[i]`.

    Raises `InputError` for an adapter that is not loaded.
    """
    if loaded.adapters is not None:
        with loaded.adapters.use_adapters(adapters):
            yield
    elif set(adapters) <= {CURRENT}:
        yield
    elif set(adapters) == {BASE}:  # without the adapter that trains
        with loaded.model.disable_adapter():
            yield
    else:
        raise InputError(
            *(f"adapter {ref.name}: is not loaded; there is none" for ref in sorted({*adapters} - {CURRENT, BASE}))
        )

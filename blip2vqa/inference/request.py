"""Who answers a question, and how."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from blip2vqa.config.decoding import Decoding
from blip2vqa.models.answer_lists import AnswerTree
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.text import TextEncoder
from blip2vqa.utils.errors import InputError

AS_IT_IS = ""
"""AnswerRequest of the model as it stands: the base alone, under the one adapter that trains, or with one merged into it."""
BASE = "__base__"
"""AnswerRequest of the base alone, whatever adapters are beside it."""


@dataclass(frozen=True)
class AnswerRequest:
    """Who answers a question, and how."""

    text: TextEncoder
    decoding: Decoding = field(default_factory=Decoding)
    tree: AnswerTree | None = None
    """The answers allowed; None: whatever the model says."""
    adapter: str = AS_IT_IS
    """Name of a loaded adapter, or `BASE`, or `AS_IT_IS`."""


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

"""Who answers a question, and how; and several adapters of one base side by side, in one batch if need be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from peft.tuners.lora import LoraLayer
from torch import nn

from blip2vqa.answer_lists import AnswerTree
from blip2vqa.collate import TextEncoder
from blip2vqa.loading import LoadedModel

AS_IT_IS = ""
"""Voice of the model as it stands: the base alone, under the one adapter that trains, or with one merged into it."""
BASE = "__base__"
"""Voice of the base alone, whatever adapters are on it; PEFT's own name for rows without one."""


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
class Voice:
    """Who answers a question, and how."""

    text: TextEncoder
    decoding: Decoding = field(default_factory=Decoding)
    tree: AnswerTree | None = None
    """The answers allowed; None: whatever the model says."""
    adapter: str = AS_IT_IS
    """Name of a loaded adapter, or `BASE`, or `AS_IT_IS`."""


@contextmanager
def speaking(loaded: LoadedModel, adapters: Sequence[str]) -> Iterator[None]:
    """Inside, row i of every batch goes through adapter `adapters[i]` (or `BASE`, or all of them `AS_IT_IS`).

    A batch of several is computed by PEFT's own layers, the base's products for all rows at once. PEFT's way in,
    `adapter_names` of its `generate`, goes past `language_model.generate`, and fails for beams of a causal model: here each
    layer is told by a hook, and rows that stand for several beams or tokens each count for their own.
    """
    distinct = set(adapters)
    if distinct <= {AS_IT_IS}:
        yield
    elif distinct == {BASE}:
        with loaded.model.disable_adapter():
            yield
    elif len(distinct) == 1:
        loaded.model.set_adapter(*distinct, inference_mode=True)
        yield
    else:
        names = list(adapters)

        def tell(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return args, kwargs | {"adapter_names": _spread(names, len(args[0]))}

        layers = [module for module in loaded.model.modules() if isinstance(module, LoraLayer)]
        hooks = [layer.register_forward_pre_hook(tell, with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _spread(names: list[str], rows: int) -> list[str]:
    """One name for each of `rows`, which follow each other in groups of like size."""
    each = rows // len(names)
    return [name for name in names for _ in range(each)]


def unmixable(loaded: LoadedModel) -> set[str]:
    """Names of adapters that no other may share a batch with: PEFT does not mix those with DoRA."""
    return {name for name, config in getattr(loaded.model, "peft_config", {}).items() if config.use_dora}

"""Check that adapters fit a base before its weights are read, then put them on it, one or several."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from blip2vqa.adapters.base.fingerprints import DIFFERENT, UNKNOWN, compare_parts, fingerprint_base
from blip2vqa.adapters.files.adapter import PREFIX, Adapter
from blip2vqa.adapters.lora import widen_trained_modules
from blip2vqa.adapters.multi import MEMORY_GB, Adapters
from blip2vqa.adapters.ref import CURRENT, AdapterRef
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.config.roles import SCOPES
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import LoadedModel, load_config
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundAdapter:
    """An adapter with the base that it goes on, found to fit before the base's weights are read."""

    adapter: Adapter
    base_model_id: str
    base_model_revision: str | None
    scopes: tuple[str, ...]
    """Parts of the model that it adapts."""

    @property
    def path(self) -> str:
        """What the user calls the adapter."""
        return self.adapter.name

    @property
    def manifest(self) -> dict:
        return self.adapter.manifest

    @property
    def answers(self) -> tuple[str, ...] | None:
        return self.adapter.answers

    @property
    def digest(self) -> str:
        return self.adapter.digest

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.adapter.weights.values())


def find_adapter(
    path: str, revision: str | None = None, base_model_id: str | None = None, base_model_revision: str | None = None
) -> FoundAdapter:
    """Open an adapter and check its weights against the base's shapes.

    The base is the one given, else the one that the adapter remembers. Raises `InputError` for a path that holds no adapter,
    and for weights that fit no module: PEFT only warns about these, and such an adapter changes nothing.
    """
    adapter = open_adapter(path, revision)
    remembered = adapter.base_model_id
    if not base_model_id:
        if not remembered:
            raise InputError(f"adapter {path}: does not say what its base model is; name it with --base_model_id")
        base_model_id = remembered
        base_model_revision = base_model_revision or adapter.base_model_revision
    try:
        base_config = load_config(base_model_id, base_model_revision)
    except InputError as error:
        hint = f"adapter {path} asks for it; where the base lies elsewhere, name it with --base_model_id"
        raise InputError(*error.problems, hint) from error
    if not adapter.manifest:
        logger.warning("adapter %s has no blip2vqa.json: prompt and decoding are the defaults unless given", path)
    family = family_of(base_config)
    misfit = misfit_of(adapter, partial(family.outline, base_config, answers=adapter.answers))
    if misfit:
        raise InputError(
            f"adapter {path}: does not fit base model {base_model_id} (it was made for {remembered}): {misfit}"
        )
    if remembered and not same_place(remembered, base_model_id):
        _warn_of_another(adapter, base_model_id, base_model_revision)
    found = {family.scope_of(key.removeprefix(PREFIX)) for key in adapter.weights}
    scopes = tuple(scope for scope in SCOPES if scope in found)
    return FoundAdapter(adapter, base_model_id, base_model_revision, scopes)


def _warn_of_another(adapter: Adapter, base_model_id: str, revision: str | None) -> None:
    """Warn that the base has another name than the adapter's own, unless its fingerprints prove it the same."""
    doubt = "right only if both hold the same weights"
    if adapter.manifest.get("base"):
        parts = compare_parts(adapter.manifest["base"], fingerprint_base(base_model_id, revision))
        unlike = sorted(part for part, how in parts.items() if how in (DIFFERENT, UNKNOWN))
        if not unlike:
            return
        doubt = (
            f"by their fingerprints these differ: {', '.join(unlike)}; `{named('exchange')} check` says what that means"
        )
    logger.warning(
        "adapter %s was made for %s and is put on %s: %s", adapter.name, adapter.base_model_id, base_model_id, doubt
    )


def same_place(one: str, other: str) -> bool:
    """Tell whether two names are those of one base: the same Hub id, or the same folder."""
    return one == other or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def misfit_of(adapter: Adapter, build: Callable) -> str | None:
    """Say why an adapter does not fit the model that `build` makes; None where it fits.

    It fits where PEFT finds a place for each of its weights, and a weight for each place.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's, of base models that it cannot find
            model = PeftModel(build(), adapter.config)
            expected = {key: tensor.shape for key, tensor in get_peft_model_state_dict(model).items()}
    except ValueError:  # PEFT's own words list hundreds of modules
        return f"none of its {len(adapter.modules)} layers is there"
    found = {key: tensor.shape for key, tensor in adapter.weights.items()}
    unlike = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    problems = {
        "of its weights without a place there": found.keys() - expected.keys(),
        "of the places there without a weight": expected.keys() - found.keys(),
        "of another shape": unlike,
    }
    first = next((min(keys) for keys in problems.values() if keys), None)
    if first is None:
        return None
    counts = ", ".join(f"{len(keys)} {what}" for what, keys in problems.items() if keys)
    shapes = f", {list(expected[first])} there and {list(found[first])} in the adapter" if first in unlike else ""
    why = _why_unlike(expected, found, unlike)
    return f"{counts} (first {first.removeprefix(PREFIX)}{shapes}){why}"


def _why_unlike(expected: Mapping, found: Mapping, unlike: Sequence[str]) -> str:
    """Say what weights of another height tell: a head for other answers, or a table of other tokens; "" for neither."""
    wider = {key: key.rsplit(".", 2) for key in unlike if ".lora_" not in key and expected[key][1:] == found[key][1:]}
    for key, (front, last, _) in wider.items():
        there, here = expected[key][0], found[key][0]
        if last in ("embed_tokens", "shared", "lm_head", "word_embeddings"):
            return f"; it was trained with {here} tokens, and the base has {there}: train it without new tokens"
        if f"{front}.{last}".removeprefix(PREFIX).startswith("classifier"):
            return (
                f"; its head tells {here} answers apart, and the base's {there}: put the config.json of the model that it was "
                "trained on, which names them as id2label, into its folder"
            )
    return ""


def merge_adapter(loaded: LoadedModel, adapter: FoundAdapter) -> None:
    """Merge an adapter, as `CURRENT`, into its loaded base (in place); what has no place in the base's weights
    stays beside them: where they are quantized or shared with another layer, or
    have no bias to add one to."""
    adapted = [loaded.base.get_submodule(module) for module in adapter.adapter.modules]
    users = Counter(id(weight) for _, weight in loaded.base.named_parameters(remove_duplicate=False))
    shared = any(users[id(layer.weight)] > 1 for layer in adapted)
    bare = adapter.adapter.config.lora_bias and any(layer.bias is None for layer in adapted)
    if loaded.quantization != "none" or shared or bare:
        add_adapters(loaded, {CURRENT: adapter}, alone=True)
        return
    adapter.adapter.config.inference_mode = True
    loaded.family.set_answers(loaded.base, adapter.answers)  # the adapter's copy of the head is made for them
    loaded.model = PeftModel(loaded.model, adapter.adapter.config)
    widen_trained_modules(loaded.model, loaded.family)
    set_peft_model_state_dict(loaded.model, adapter.adapter.weights)
    loaded.model = loaded.model.merge_and_unload()
    loaded.model.requires_grad_(False).eval()


def add_adapters(
    loaded: LoadedModel, adapters: Mapping[AdapterRef, FoundAdapter], memory_gb: float = MEMORY_GB, alone: bool = False
) -> None:
    """Put adapters side by side on their loaded base (in place), for inference; `Adapters.use_adapters` chooses among them.

    `memory_gb`: how much memory their weights may take, in 10⁹ bytes. `alone`: there is one, and no other will come. Raises
    `InputError`, with every problem found, for adapters that can only be loaded alone, or on other weights.
    """
    if loaded.adapters is None:
        loaded.adapters = Adapters(loaded, memory_gb)
    problems: list[str] = []
    for ref, adapter in adapters.items():
        collect_errors(problems, loaded.adapters.add, ref, adapter.adapter, alone)
    raise_all(problems)

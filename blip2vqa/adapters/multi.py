"""Several adapters of one base in use at once: every row of a batch goes through its own, or through none.

One hook on each adapted linear layer adds s·B·A·x to the rows of each adapter, into the layer's output and in the base's own
precision. The base's weights stay as they are, 4-bit and 8-bit ones, too. Adapters wait on disk until they are first needed;
the least recently used leave memory at a limit.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import groupby
from threading import RLock

import torch
from peft import LoraConfig
from peft.tuners import lora
from peft.utils.integrations import dequantize_bnb_weight, get_bnb_param_type
from torch import nn
from torch.utils.hooks import RemovableHandle

from blip2vqa.adapters.algebra import A, B, rank_and_scaling, split_weights
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.config.common import CHANGE_THE_BASE
from blip2vqa.models.loading import LoadedModel
from blip2vqa.utils.errors import InputError, raise_all

MEMORY_GB = 4.0
"""What adapters may take by default."""
_MAGNITUDE = "lora_magnitude_vector"
_NOT_REPEATED = ("pissa_niter", "corda", "loftq", "lora_ga")
"""Initialisations that change the base's weights by random numbers, or by data that the adapter does not hold."""


@dataclass(frozen=True)
class Update:
    """What an adapter makes of one linear layer: y ← gain ∘ y + shift + B A x, in place."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank], with the scaling."""
    gain: torch.Tensor | None = None
    """[out], DoRA's m / ‖W + s·B·A‖ (arXiv 2402.09353, eq. 5), which is in `b`, too; None: 1."""
    shift: torch.Tensor | None = None
    """[out]: the bias has no part in the gain."""

    def apply(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """To the layer's input [rows, …, in] and output [rows, …, out]."""
        x, y = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        if self.gain is not None:
            y.mul_(self.gain)
        if self.shift is not None:
            y.add_(self.shift)
        if y.dtype == self.b.dtype:
            y.addmm_(x @ self.a.t(), self.b.t())
        else:  # a quantized layer, which takes and gives any precision
            y.add_(x.to(self.a.dtype) @ self.a.t() @ self.b.t())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in vars(self).values() if tensor is not None)


@dataclass(frozen=True)
class Held:
    """An adapter in memory, on the base's device."""

    updates: dict[str, Update]
    """By the name of the layer."""
    whole: dict[str, nn.Module]
    """Modules that stand in place of the base's: a head for the adapter's own answers."""

    @cached_property
    def nbytes(self) -> int:
        heads = (weight.nbytes for module in self.whole.values() for weight in module.parameters())
        return sum(update.nbytes for update in self.updates.values()) + sum(heads)


class Adapters:
    """Adapters beside one loaded base; outside `use_adapters` they do nothing.

    At most `memory_gb` (10⁹ bytes) of them are held in memory between batches, and always those of the last batch.
    """

    def __init__(self, loaded: LoadedModel, memory_gb: float = MEMORY_GB):
        self.loaded, self.limit = loaded, int(memory_gb * 1e9)
        # The hooks of the layers read which adapter each row has from this object, which all threads share.
        self._one_at_a_time = RLock()
        self._known: dict[AdapterRef, Adapter] = {}
        self._layers: dict[AdapterRef, frozenset[str]] = {}
        self._held: dict[AdapterRef, Held] = {}  # the least recently used first
        self._hooks: dict[str, RemovableHandle] = {}  # by layer
        self._runs: list[tuple[int, int, Held]] = []  # rows from, to
        self._rows = 0

    @property
    def refs(self) -> tuple[AdapterRef, ...]:
        """All adapters that can be used."""
        return tuple(self._known)

    @property
    def held(self) -> tuple[AdapterRef, ...]:
        """The adapters in memory, the least recently used first."""
        return tuple(self._held)

    @property
    def nbytes(self) -> int:
        """What they take of memory."""
        return sum(held.nbytes for held in self._held.values())

    def add(self, ref: AdapterRef, adapter: Adapter) -> None:
        """Make an adapter known as `ref`, by its name or as `CURRENT`; its weights are read when it is first needed.

        Raises `InputError`, with every problem found, for one that holds more than updates of linear layers and a head, or
        that asks for other weights of the base.
        """
        if ref in self._known:
            raise InputError(
                f"adapter {adapter.name}: the name {ref.name} is taken; choose another, or drop that one first"
            )
        modules = dict(self.loaded.base.named_modules())
        updates, others = _weights(adapter)
        problems = _unserved(self.loaded, adapter, updates, others, modules)
        if problems:
            raise InputError(*problems)
        self._known[ref], self._layers[ref] = adapter, frozenset(updates)
        for layer in updates.keys() - self._hooks.keys():
            self._hooks[layer] = modules[layer].register_forward_hook(partial(self._update, layer))

    def drop(self, ref: AdapterRef) -> None:
        """Forget an adapter. Raises `InputError` for an unknown one."""
        self._check([ref])
        del self._known[ref], self._layers[ref]
        self._held.pop(ref, None)
        for layer in self._hooks.keys() - frozenset().union(*self._layers.values()):
            self._hooks.pop(layer).remove()

    @contextmanager
    def use_adapters(self, refs: Sequence[AdapterRef]) -> Iterator[None]:
        """Inside, row i of every batch goes through adapter `refs[i]`, or through the base alone.

        Where a row stands for several beams or tokens, all of them go through its adapter. It costs least where equal
        references follow each other. An adapter with a head of its own shares no batch. Raises `InputError` for an unknown
        adapter, or a damaged file.
        """
        with self._one_at_a_time:
            yield from self._switch([BASE if ref == CURRENT and ref not in self._known else ref for ref in refs])

    def _switch(self, refs: Sequence[AdapterRef]) -> Iterator[None]:
        needed = dict.fromkeys(ref for ref in refs if ref != BASE)
        self._check(needed)
        self._hold(needed)
        runs, start = [], 0
        for ref, group in groupby(refs):
            stop = start + len(list(group))
            if ref != BASE:
                runs.append((start, stop, self._held[ref]))
            start = stop
        heads = {place: module for _, _, held in runs for place, module in held.whole.items()}
        if heads and len(set(refs)) > 1:
            raise ValueError("an adapter with a head of its own shares no batch")
        before = {place: self.loaded.base.get_submodule(place) for place in heads}
        self._runs, self._rows = runs, len(refs)
        try:
            self._put(heads)
            yield
        finally:
            self._put(before)
            self._runs = []

    def _check(self, refs: Iterable[AdapterRef]) -> None:
        there = ", ".join(ref.name for ref in self._known) or "none"
        raise_all([f"adapter {ref.name}: is not loaded; there is {there}" for ref in refs if ref not in self._known])

    def _put(self, modules: Mapping[str, nn.Module]) -> None:
        for place, module in modules.items():
            self.loaded.base.set_submodule(place, module)

    def _hold(self, needed: Mapping[AdapterRef, None]) -> None:
        """Bring these into memory, and let the least recently used others leave it where they exceed the limit."""
        for ref in needed:
            self._held[ref] = self._held.pop(ref, None) or _read(self.loaded, self._known[ref])
        for ref in [ref for ref in self._held if ref not in needed]:
            if self.nbytes > self.limit:
                del self._held[ref]

    def _update(self, layer: str, module: nn.Module, args: tuple, y: torch.Tensor) -> None:
        """The hook on one layer."""
        if not self._runs:
            return
        each, odd = divmod(len(args[0]), self._rows)
        if odd:
            raise ValueError(f"{layer} is given {len(args[0])} rows of a batch of {self._rows}")
        for start, stop, held in self._runs:
            update = held.updates.get(layer)
            if update is not None:
                update.apply(args[0][start * each : stop * each], y[start * each : stop * each])


def _weights(adapter: Adapter) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """As `split_weights`. What was not in memory before does not stay there: many adapters would not fit together."""
    was_there = "weights" in vars(adapter)
    found = split_weights(adapter)
    if not was_there:
        adapter.forget_weights()
    return found


def _whole(loaded: LoadedModel, name: str) -> str | None:
    """Which of the modules that an adapter may hold whole a weight belongs to."""
    return next((place for place in loaded.family.trained_whole if name.startswith(f"{place}.")), None)


def _unserved(loaded: LoadedModel, adapter: Adapter, updates, others, modules: Mapping[str, nn.Module]) -> list[str]:
    """What of an adapter is no update of a linear layer and no head: a line each."""
    config, init, found = adapter.config, str(adapter.config.init_lora_weights), []
    variants = [option.name for option in fields(LoraConfig) if option.metadata.get("is_lora_variant")]
    used = [name for name in variants if name != "use_dora" and getattr(config, name)]
    if used:
        found.append(f"{', '.join(used)} of PEFT is not served beside other adapters; load it alone")
    if init.startswith(_NOT_REPEATED):
        found.append(
            f"{init} has changed its base's weights, which cannot be repeated beside other adapters; load it alone"
        )
    if init in CHANGE_THE_BASE and loaded.quantization != "none":
        found.append(
            f"{init} takes parts of the base's weights, which {loaded.quantization} ones do not allow; use --quantization none"
        )
    odd = [name for name in others if not _whole(loaded, name)]
    for layer, tensors in updates.items():
        if not (isinstance(modules.get(layer), nn.Linear) and {A, B} <= tensors.keys() <= {A, B, _MAGNITUDE}):
            odd += [f"{layer}.{end}" for end in tensors]
    if odd:
        found.append(
            f"{len(odd)} of its weights, {odd[0]} the first, are more than updates of linear layers, which alone are served "
            "beside other adapters; load it alone"
        )
    return [f"adapter {adapter.name}: {problem}" for problem in found]


# Outside inference mode, whose tensors PEFT's initialisation cannot change in place.
@torch.inference_mode(False)
@torch.no_grad()
def _read(loaded: LoadedModel, adapter: Adapter) -> Held:
    """An adapter's weights from its file onto the device, in the precision of the layers that they belong to."""
    updates, others = _weights(adapter)
    whole: dict[str, nn.Module] = {}
    for name, tensor in others.items():
        place = _whole(loaded, name)
        if place not in whole:
            whole[place] = copy.deepcopy(loaded.base.get_submodule(place))
        owner, _, last = name.removeprefix(f"{place}.").rpartition(".")
        # In float32, as it was trained; of another shape than the base's for other answers.
        value = nn.Parameter(tensor.to(loaded.device, torch.float32, copy=True), requires_grad=False)
        setattr(whole[place].get_submodule(owner), last, value)
    made = {layer: _update_of(loaded, adapter.config, layer, tensors) for layer, tensors in updates.items()}
    return Held(made, whole)


def _update_of(loaded: LoadedModel, config: LoraConfig, layer: str, tensors: Mapping[str, torch.Tensor]) -> Update:
    module = loaded.base.get_submodule(layer)
    dtype = module.weight.dtype if module.weight.is_floating_point() else loaded.dtype
    rank, scaling = rank_and_scaling(config, layer)
    # Copies, also where nothing changes: the tensors of a file are parts of it, and would keep all of it.
    a, b = (tensors[end].to(loaded.device, torch.float32, copy=True) for end in (A, B))
    b *= scaling
    if config.init_lora_weights in CHANGE_THE_BASE:
        taken_a, taken_b = _taken_out(module, config, rank, scaling)
        a, b = torch.cat([a, taken_a]), torch.cat([b, -taken_b], dim=1)
    gain = shift = None
    if _MAGNITUDE in tensors:
        gain = tensors[_MAGNITUDE].to(loaded.device, torch.float32) / torch.addmm(_dense(module), b, a).norm(dim=1)
        b *= gain[:, None]
        if module.bias is not None:
            shift = (module.bias.float() * (1 - gain)).to(dtype)
        gain = gain.to(dtype)
    return Update(a.to(dtype), b.to(dtype), gain, shift)


def _taken_out(module: nn.Linear, config: LoraConfig, rank: int, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A₀ and s·B₀, whose product PEFT takes out of a layer's weight before it puts a PiSSA or OLoRA adapter there."""
    spare = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    spare.weight = nn.Parameter(module.weight.clone(), requires_grad=False)
    plain = copy.copy(config)
    plain.use_dora = plain.use_rslora = False
    with torch.random.fork_rng():  # it draws what it overwrites
        made = lora.Linear(spare, "taken", plain, r=rank, lora_alpha=scaling * rank)
    return made.lora_A["taken"].weight.float(), made.lora_B["taken"].weight.float() * scaling


def _dense(module: nn.Linear) -> torch.Tensor:
    """A layer's weight [out, in] in float32; of a quantized layer, what it stands for."""
    state = getattr(module.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        # bitsandbytes has repacked it for this CPU, in an order of its own: the layer itself says what it multiplies by.
        ones = torch.eye(module.in_features, dtype=state.dtype, device=module.weight.device)
        return (module(ones).float() - (0.0 if module.bias is None else module.bias.float())).t()
    if get_bnb_param_type(module.weight):
        # Not PEFT's `dequantize_module_weight`: on a CPU that puts a copy in the layer, and an 8-bit one has lost its scales.
        return dequantize_bnb_weight(module.weight, getattr(module, "state", None)).float()
    return module.weight.float()

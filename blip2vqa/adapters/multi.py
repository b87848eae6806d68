"""Use several adapters of one base at once: every row of a batch goes through its own adapter, or through none.

One hook on each adapted linear layer adds scaling · B·A·x to the rows of each adapter, into the layer's output and in the
base's own precision. The base's weights stay as they are, also where they are quantized. Adapters wait on disk until they are
first needed; the least recently used leave memory at a limit.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from threading import RLock

import torch
from peft import LoraConfig
from peft.tuners import lora
from peft.utils.integrations import dequantize_bnb_weight, get_bnb_param_type
from torch import nn
from torch.utils.hooks import RemovableHandle

from blip2vqa.adapters.algebra import A, B, rank_and_scaling, split_weights, variants_used
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.config.common import CHANGE_THE_BASE
from blip2vqa.models.family import Family
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.precision import quantized_layers
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.randomness import own_random_state

MEMORY_GB = 4.0
"""Memory that adapters may take by default."""
_MAGNITUDE, _BIAS = "lora_magnitude_vector", "lora_B.bias"
_NOT_REPEATED = ("pissa_niter", "corda", "loftq", "lora_ga")
"""Initialisations that change the base's weights by random numbers, or by data that the adapter does not hold."""


@dataclass(frozen=True)
class Update:
    """How an adapter changes the output of one linear layer, in place: y ← gain ∘ y + shift + B A x."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank], the scaling included."""
    gain: torch.Tensor | None = None
    """[out], DoRA's m / ‖W + s·B·A‖ (arXiv 2402.09353, eq. 5), which is included in `b`, too; None: 1."""
    shift: torch.Tensor | None = None
    """[out]: the bias of B, or what takes the gain out of the layer's bias again, which DoRA leaves as it is."""

    def apply(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Change a layer's output y [rows, …, out], given its input x [rows, …, in]."""
        x, y = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        if self.gain is not None:
            y.mul_(self.gain)
        if self.shift is not None:
            y.add_(self.shift)
        if y.dtype == self.b.dtype:
            y.addmm_(x @ self.a.t(), self.b.t())
        else:  # a quantized layer, which takes and gives any precision
            y.add_(x.to(self.a.dtype) @ self.a.t() @ self.b.t())


@dataclass(frozen=True)
class Held:
    """An adapter in memory, on the base's device."""

    updates: dict[str, Update]
    """Name of the layer → what is added to its output."""
    whole: dict[str, nn.Parameter]
    """Name in the base → what stands in its place: a head for the adapter's own answers, a projection, biases."""

    @cached_property
    def nbytes(self) -> int:
        tensors = [tensor for update in self.updates.values() for tensor in vars(update).values()]
        tensors += self.whole.values()
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class Adapters:
    """Adapters beside one loaded base; outside `use_adapters` they do nothing.

    Between batches at most `memory_gb` (10⁹ bytes) of them are held in memory, and always those of the last batch.
    """

    def __init__(self, loaded: LoadedModel, memory_gb: float = MEMORY_GB):
        self.loaded, self.limit = loaded, int(memory_gb * 1e9)
        # One batch at a time: the hooks of the layers, which all threads share, are told what its rows are.
        self._lock = RLock()
        self._known: dict[AdapterRef, Adapter] = {}
        self._layers: dict[AdapterRef, frozenset[str]] = {}
        self.held: dict[AdapterRef, Held] = {}
        """Adapters in memory, the least recently used first."""
        self._hooks: dict[str, RemovableHandle] = {}  # by layer
        self._runs: list[tuple[int, int, Held]] = []  # rows from, to
        self._rows = 0

    @property
    def refs(self) -> tuple[AdapterRef, ...]:
        """All adapters that can be used, in memory or not."""
        return tuple(self._known)

    @property
    def nbytes(self) -> int:
        """Memory that the adapters take, in bytes."""
        return sum(held.nbytes for held in self.held.values())

    def add(self, ref: AdapterRef, adapter: Adapter, alone: bool = False) -> None:
        """Make an adapter known as `ref`, by its name or as `CURRENT`; its weights are read when it is first needed.

        Raises `InputError`, with every problem found, for one that holds more than updates of linear layers and a head, or
        that asks for other weights of the base. `alone`: no other will be added, and it may hold any weights in place of the
        base's, and biases.
        """
        if ref in self._known:
            raise InputError(
                f"adapter {adapter.name}: the name {ref.name} is taken; choose another, or drop that one first"
            )
        loaded = self.loaded
        raise_all(unserved(adapter, loaded.base, loaded.family, loaded.quantization, alone))
        updates, modules = _weights(adapter)[0], dict(loaded.base.named_modules())
        self._known[ref], self._layers[ref] = adapter, frozenset(updates)
        for layer in updates.keys() - self._hooks.keys():
            self._hooks[layer] = modules[layer].register_forward_hook(partial(self._update, layer))

    def drop(self, ref: AdapterRef) -> None:
        """Forget an adapter. Raises `InputError` for an unknown one."""
        self._check([ref])
        del self._known[ref], self._layers[ref]
        self.held.pop(ref, None)
        for layer in self._hooks.keys() - frozenset().union(*self._layers.values()):
            self._hooks.pop(layer).remove()

    @contextmanager
    def use_adapters(self, refs: Sequence[AdapterRef]) -> Iterator[None]:
        """Send row i of every batch through adapter `refs[i]`, or through the base alone.

        A batch may have several rows for each reference, as beam search has. It costs least where equal references follow
        each other. An adapter with weights in place of the base's shares no batch. Raises `InputError` for an
        unknown adapter, or a damaged file.
        """
        refs = [BASE if ref == CURRENT and ref not in self._known else ref for ref in refs]
        with self._lock:
            needed = dict.fromkeys(ref for ref in refs if ref != BASE)
            self._check(needed)
            self._hold(needed)
            runs, start = [], 0
            for ref, group in groupby(refs):
                stop = start + len(list(group))
                if ref != BASE:
                    runs.append((start, stop, self.held[ref]))
                start = stop
            whole = {name: value for _, _, held in runs for name, value in held.whole.items()}
            if whole and len(set(refs)) > 1:
                raise ValueError("an adapter with weights in place of the base's shares no batch")
            before = {name: self.loaded.base.get_parameter(name) for name in whole}
            self._runs, self._rows = runs, len(refs)
            try:
                self._put(whole)
                yield
            finally:
                self._put(before)
                self._runs = []

    def _check(self, refs: Iterable[AdapterRef]) -> None:
        there = ", ".join(ref.name for ref in self._known) or "none"
        raise_all([f"adapter {ref.name}: is not loaded; there is {there}" for ref in refs if ref not in self._known])

    def _put(self, parameters: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            owner, _, last = name.rpartition(".")
            setattr(self.loaded.base.get_submodule(owner), last, parameter)

    def _hold(self, needed: Mapping[AdapterRef, None]) -> None:
        """Bring these adapters into memory, and let the least recently used others leave it where they exceed the limit."""
        for ref in needed:
            self.held[ref] = self.held.pop(ref, None) or _read(self.loaded, self._known[ref])
        for ref in [ref for ref in self.held if ref not in needed]:
            if self.nbytes > self.limit:
                del self.held[ref]

    def _update(self, layer: str, module: nn.Module, args: tuple, y: torch.Tensor) -> None:
        """Change a layer's output: the hook on that layer."""
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
    """Split an adapter's weights as `split_weights` does, but leave them in memory only where they were there before.

    Many adapters would not fit into memory together.
    """
    was_there = "weights" in vars(adapter)
    found = split_weights(adapter)
    if not was_there:
        adapter.forget_weights()
    return found


def unserved(adapter: Adapter, model: nn.Module, family: Family, quantization: str, alone: bool) -> list[str]:
    """List what an adapter asks for that cannot be done beside a base, or beside its other adapters, a line each.

    `model`: the base, with its weights or without.
    """
    updates, others = _weights(adapter)
    init, found = str(adapter.config.init_lora_weights), []
    beside = f"beside {quantization} weights" if alone else "beside other adapters"
    remedy = "use --quantization none" if alone else "load it alone"
    if used := variants_used(adapter.config):
        found.append(f"{', '.join(used)} of PEFT is not served {beside}; {remedy}")
    if init.startswith(_NOT_REPEATED):
        found.append(f"{init} has changed its base's weights, which cannot be repeated {beside}; {remedy}")
    if init in CHANGE_THE_BASE and quantization != "none":
        closed = f"which {quantization} ones do not allow; use --quantization none"
        found.append(f"{init} takes parts of the base's weights, {closed}")
    parameters, modules = dict(model.named_parameters(remove_duplicate=False)), dict(model.named_modules())
    rounded = {id(layer.weight) for layer in quantized_layers(model, family)} if quantization != "none" else set()
    own = (
        family.trained_whole if not alone else tuple(name for name, one in parameters.items() if id(one) not in rounded)
    )
    odd, ends = (
        [name for name in others if not name.startswith(own)],
        {A, B, _MAGNITUDE} | ({_BIAS} if alone else set()),
    )
    for layer, tensors in updates.items():
        if not (isinstance(modules.get(layer), nn.Linear) and {A, B} <= tensors.keys() <= ends):
            odd += [f"{layer}.{end}" for end in tensors]
    if odd:
        what = "in place of quantized ones" if alone else "more than updates of linear layers"
        found.append(f"{len(odd)} of its weights, {odd[0]} the first, are {what}, and not served {beside}; {remedy}")
    return [f"adapter {adapter.name}: {problem}" for problem in found]


# Outside inference mode, whose tensors PEFT's initialisation cannot change in place.
@torch.inference_mode(False)
@torch.no_grad()
def _read(loaded: LoadedModel, adapter: Adapter) -> Held:
    """Read an adapter's weights onto the device, in the precision of the layers that they belong to."""
    updates, others = _weights(adapter)
    whole = {}
    for name, tensor in others.items():
        # A module of its own stays as it was trained, in float32, where its input is cast; the others go with the base.
        own = name.startswith(loaded.family.cast_to) and f"{name.rpartition('.')[0]}.weight" in others
        dtype = torch.float32 if own else loaded.base.get_parameter(name).dtype
        whole[name] = nn.Parameter(tensor.to(loaded.device, dtype, copy=True), requires_grad=False)
    return Held({layer: _update_of(loaded, adapter.config, layer, held) for layer, held in updates.items()}, whole)


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
        norms = torch.addmm(dense_weight(module), b, a).norm(dim=1)
        gain = tensors[_MAGNITUDE].to(loaded.device, torch.float32) / norms
        b *= gain[:, None]
        if module.bias is not None:
            shift = (module.bias.float() * (1 - gain)).to(dtype)
        gain = gain.to(dtype)
    if _BIAS in tensors:
        shift = (tensors[_BIAS].to(loaded.device, torch.float32) * scaling).to(dtype)
    return Update(a.to(dtype), b.to(dtype), gain, shift)


def _taken_out(module: nn.Linear, config: LoraConfig, rank: int, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute A₀ and scaling · B₀, whose product PEFT takes out of a layer's weight for a PiSSA or OLoRA adapter."""
    spare = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    spare.weight = nn.Parameter(module.weight.clone(), requires_grad=False)
    plain = copy.copy(config)
    plain.use_dora = plain.use_rslora = False
    with own_random_state(module.weight.device):  # it draws what it overwrites
        made = lora.Linear(spare, "taken", plain, r=rank, lora_alpha=scaling * rank)
    return made.lora_A["taken"].weight.float(), made.lora_B["taken"].weight.float() * scaling


def dense_weight(module: nn.Linear) -> torch.Tensor:
    """Return a layer's weight [out, in] in float32, dequantized where it is quantized."""
    state = getattr(module.weight, "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        # bitsandbytes has repacked it for this CPU, in an order of its own: the layer itself says what it multiplies by.
        ones = torch.eye(module.in_features, dtype=state.dtype, device=module.weight.device)
        return (module(ones).float() - (0.0 if module.bias is None else module.bias.float())).t()
    if get_bnb_param_type(module.weight):
        # Not PEFT's `dequantize_module_weight`: on a CPU that puts a copy in the layer, and an 8-bit one has lost its scales.
        return dequantize_bnb_weight(module.weight, getattr(module, "state", None)).float()
    return module.weight.float()

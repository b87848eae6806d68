"""Count bytes and operations of steps that are not carried out, and measure the rate at which a device would do them."""

import time
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence

import bitsandbytes
import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from blip2vqa.models.loading import LoadedModel
from blip2vqa.training.collators import COLLATORS

_aten = torch.ops.aten
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
_UNFILLED = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided}


class MemoryTracker(TorchDispatchMode):
    """Counts operations and the bytes of live tensors by kind, and keeps what they were at the peak.

    Inside a `FakeTensorMode`, masks and whole numbers that depend on the data stay real, so that it is known which positions
    have an answer; all other tensors have a shape and no contents.
    """

    def __init__(self, vocabulary: int = 0):
        """Count new tensors as `self.kind`, and activations whose last dimension is `vocabulary` as logits."""
        super().__init__()
        self.vocabulary, self.kind = vocabulary, "activations"
        self.live, self.peak = Counter(), Counter()
        self.operations = 0  # floating-point; `FlopCounterMode` would keep the tensors of checkpointed layers alive
        self._storages: dict[int, tuple[str, weakref.ref]] = {}

    def hold(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Count these tensors as `kind`, whatever they were counted as before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            before = self._storages.pop(key, None)
            if before:
                self.live[before[0]] -= size
            self._storages[key] = kind, weakref.ref(storage, lambda _, key=key, size=size: self._free(key, size))
            self.live[kind] += size
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _free(self, key: int, size: int) -> None:
        self.live[self._storages.pop(key)[0]] -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = _run(func, args, kwargs)
        if func.overloadpacket in flop_registry:
            self.operations += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in self._storages:
                logits = self.kind == "activations" and tensor.ndim and tensor.shape[-1] == self.vocabulary
                self.hold([tensor], "logits" if logits else self.kind)
        return out


def _run(func, args: tuple, kwargs: dict):
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    packet = func.overloadpacket
    unfilled = packet in _UNFILLED
    if given and not unfilled and not any(isinstance(tensor, FakeTensor) or tensor.is_meta for tensor in given):
        with unset_fake_temporarily():
            return func(*args, **kwargs)
    if packet in _INDEXING:
        args = (args[0], _positions(args[1]), *args[2:])
    out = func(*args, **kwargs)
    whole = not given and isinstance(out, FakeTensor) and not out.is_floating_point()
    if whole and not (unfilled and out.ndim):  # what a mask is made of; memory to be filled may be large
        with unset_fake_temporarily():
            return func(*args, **kwargs)
    return out


def _positions(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Turn masks into positions: with them, the shape of the result is known without its contents."""
    found = []
    with unset_fake_temporarily():
        for index in indices:
            found += index.nonzero().unbind(1) if index is not None and index.dtype == torch.bool else [index]
    return found


def materialise(loaded: LoadedModel, memory: MemoryTracker) -> list[nn.Parameter]:
    """Give every weight memory (in place), shared ones once; returns the weights that train."""
    memory.kind = "weights"
    loaded.model.to_empty(device=loaded.device)
    if loaded.base.language_model is not None:
        loaded.base.tie_weights()
    trained = [weight for weight in loaded.model.parameters() if weight.requires_grad]
    memory.hold(trained, "adapter")
    memory.kind = "activations"
    return trained


def autocast(args, device: torch.device) -> torch.autocast:
    """Cast as Trainer will, whether its own arguments or accelerate's environment ask for it."""
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(args.mixed_precision)
    return torch.autocast(device.type, half, enabled=half is not None)


def count_step(loaded: LoadedModel, batch: dict[str, torch.Tensor], args, *, gradients: bool = False) -> MemoryTracker:
    """Count memory and operations of an optimizer step, as `VQATrainer` takes it after its first.

    `loaded`: with its adapter, on the meta device. `args`: what `trainer_arguments` returns. `gradients`: whether there are
    gradients of an earlier part or batch already.
    """
    memory = MemoryTracker(loaded.base.config.get_text_config().vocab_size)
    loss_of = COLLATORS[loaded.family.encoder_class.answers_with].LOSS(args.label_smoothing_factor)
    with FakeTensorMode(allow_non_fake_inputs=True), memory:
        trained = materialise(loaded, memory)
        if args.activation_checkpointing:
            options = dict(args.activation_checkpointing_kwargs or {})
            every, offload = options.pop("every_n_layers", 1), options.pop("offload", False)
            loaded.model.activation_checkpointing_enable(options or None, every_n_layers=every, offload=offload)
        memory.kind = "adapter"
        optimizer = torch.optim.AdamW(trained, fused=True)
        for weight in trained:
            weight.grad = torch.zeros_like(weight)
            weight.register_post_accumulate_grad_hook(lambda weight: memory.hold([weight.grad], "adapter"))
        optimizer.step()
        if not gradients:
            optimizer.zero_grad()
        memory.kind = "other"
        inputs = {}
        for name, tensor in batch.items():
            inputs[name] = (
                torch.empty_like(tensor, device=loaded.device) if tensor.is_meta else tensor.to(loaded.device)
            )
        memory.hold(inputs.values(), "other")
        labels, memory.kind = inputs.pop("labels"), "activations"
        memory.peak = memory.live.copy()  # of the step alone
        loaded.model.train()
        with autocast(args, loaded.device):
            loss = loss_of(loaded.model(**inputs), labels)
        loss.backward()
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm)
        optimizer.step()
    return memory


def layer_rate(
    kind: str, outputs: int, inputs: int, tokens: int, dtype: torch.dtype, device: torch.device, seconds: float = 0.1
) -> float:
    """Measure the operations a second, forward and backward, of one frozen linear layer [outputs, inputs].

    It computes as it is called, within `autocast` or without.
    """
    if kind == "none":
        layer = nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    elif kind == "8bit":
        layer = bitsandbytes.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
    else:
        layer = bitsandbytes.nn.Linear4bit(inputs, outputs, bias=False, compute_dtype=dtype, quant_type="nf4")
        layer.support_avx512bf16_for_cpu = False
    layer = layer.requires_grad_(False).to(device)
    x = torch.randn(tokens, inputs, dtype=dtype, device=device, requires_grad=True)
    runs, start = -1, time.perf_counter()  # the first one does not count
    while runs < 2 or time.perf_counter() - start < seconds:
        layer(x).sum().backward()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        runs += 1
        start = start if runs else time.perf_counter()
    return runs * 4 * tokens * inputs * outputs / (time.perf_counter() - start)

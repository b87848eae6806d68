"""LoRA's linear layer as one step: what PEFT computes, in the base's own precision and with a fraction of the passes.

PEFT lifts the input of every adapted layer to float32, drops, multiplies, scales and adds it in operations of their own, and
keeps the copies for the backward pass. At the size of opt-2.7b on a CPU that took as long as the matrix products themselves.
Here the update is accumulated into the base layer's output, y = W x + b + s B A d(x), and backward needs x and one byte an
element of its dropout mask. The weights stay PEFT's, in float32, as do their gradients; the base layer may be quantized.
"""

from types import MethodType

import numpy as np
import torch
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt
from torch import nn

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of the same width as a floating-point type


def keep_mask(shape: torch.Size, p: float, device: torch.device) -> torch.Tensor:
    """Draw an int8 mask of this shape: 0 with probability `p`, else -1, all bits set; see `drop`."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.int8, device=device).bernoulli_(1 - p).neg_()
    # torch draws on one thread and one number an element on a CPU, which took longer than the adapter's products. Here each
    # draw serves four elements, as 16 bits decide to a 65,536th, from a generator that torch's own seeds.
    count = shape.numel()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    bits = torch.from_numpy(np.random.SFC64(seed).random_raw((count + 3) // 4).view(np.int16))[:count]
    return torch.ge(bits, round(p * 2**16) - 2**15, out=torch.empty(count, dtype=torch.int8)).neg_().view(shape)


def drop(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Set `x` to zero where `keep` is 0, by masking its bits: several times faster on a CPU than a product with booleans."""
    integers = _INTEGERS[x.element_size()]
    return (x.view(integers) & keep.to(integers)).view(x.dtype)


class _Update(torch.autograd.Function):
    """y [tokens, out], which is overwritten, + s B A d(x) with x [tokens, in], A [r, in], B [out, r].

    It is computed in x's precision; y may be in a wider one.
    """

    @staticmethod
    def forward(ctx, y, x, lora_a, lora_b, scale: float, p: float):
        a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
        keep = keep_mask(x.shape, p, x.device) if p else None
        scale = scale / (1 - p)
        down = (drop(x, keep) if p else x) @ a.t()  # [tokens, r]
        ctx.save_for_backward(x, a, b, down, keep)
        ctx.scale, ctx.lora_dtype = scale, lora_a.dtype
        ctx.mark_dirty(y)
        return y.addmm_(down, b.t(), alpha=scale) if y.dtype == x.dtype else y.add_(down @ b.t(), alpha=scale)

    @staticmethod
    def backward(ctx, grad):
        x, a, b, down, keep = ctx.saved_tensors
        own = grad.to(x.dtype)
        grad_down = (own @ b).mul_(ctx.scale)  # [tokens, r]
        grad_b = (own.t() @ down).mul_(ctx.scale).to(ctx.lora_dtype)
        grad_a = (grad_down.t() @ (x if keep is None else drop(x, keep))).to(ctx.lora_dtype)
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = grad_down @ a if keep is None else drop(grad_down @ a, keep)
        return grad, grad_x, grad_a, grad_b, None, None


def _forward(self: LoraLayer, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """Compute a PEFT layer in one step where its own forward would do just this; else call that one."""
    name = self.active_adapters[0] if len(self.active_adapters) == 1 else None
    odd = args or kwargs or self.disable_adapters or self.merged or name not in self.lora_A
    cast = torch.is_autocast_enabled(x.device.type)
    mixed = type(self) is Linear and self.base_layer.weight.dtype != x.dtype and not cast
    if odd or mixed:
        return type(self).forward(self, x, *args, **kwargs)
    y, dropout = self.base_layer(x), self.lora_dropout[name]
    if cast:  # as it casts what PEFT's two products are given; the base layer has seen to its own
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if type(self) is not Linear:  # what bitsandbytes returns may be a view, which autograd does not let us write into
        y = y.clone()
    p = dropout.p if isinstance(dropout, nn.Dropout) and self.training else 0.0
    weights = self.lora_A[name].weight, self.lora_B[name].weight
    flat = _Update.apply(y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1]), *weights, self.scaling[name], p)
    return flat.view(y.shape)


def fuse(model: nn.Module) -> int:
    """Make the LoRA layers of a PEFT model compute in one step, but those with DoRA or a bias; returns how many they are."""
    layers = [module for module in model.modules() if type(module) in (Linear, Linear4bit, Linear8bitLt)]
    plain = [layer for layer in layers if not layer.lora_variant and not any(layer.lora_bias.values())]
    for layer in plain:
        layer.forward = MethodType(_forward, layer)
    return len(plain)

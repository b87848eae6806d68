"""LoRA's linear layer as one step: what PEFT computes, in the base's own precision and with a fraction of the passes.

PEFT lifts the input of every adapted layer to float32, drops, multiplies, scales and adds it in operations of their own, and
keeps the copies for the backward pass. At the size of opt-2.7b on a CPU that took as long as the matrix products themselves.
Here the update is accumulated into the base layer's output, y = W x + b + s B A d(x), and backward needs x and one byte an
element of its dropout mask. The weights stay PEFT's, in float32, as do their gradients.
"""

from types import MethodType

import numpy as np
import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.nn.functional import linear

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of the same width as a floating-point type


def keep_mask(shape: torch.Size, p: float, device: torch.device) -> torch.Tensor:
    """int8 `shape`: 0 with probability `p`, else -1, all bits set; see `drop`."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.int8, device=device).bernoulli_(1 - p).neg_()
    # torch draws on one thread and one number an element on a CPU, which took longer than the adapter's products. Here each
    # draw serves four elements, as 16 bits decide to a 65,536th, from a generator that torch's own seeds.
    count = shape.numel()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    bits = torch.from_numpy(np.random.SFC64(seed).random_raw((count + 3) // 4).view(np.int16))[:count]
    return torch.ge(bits, round(p * 2**16) - 2**15, out=torch.empty(count, dtype=torch.int8)).neg_().view(shape)


def drop(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """`x` with zeros where `keep` is 0: its bits masked, several times faster on a CPU than a product with booleans."""
    integers = _INTEGERS[x.element_size()]
    return (x.view(integers) & keep.to(integers)).view(x.dtype)


class _LoraLinear(torch.autograd.Function):
    """x [..., in], W [out, in], b [out], A [r, in], B [out, r] → [..., out]."""

    @staticmethod
    def forward(ctx, x, weight, bias, lora_a, lora_b, scale: float, p: float):
        rows = x.reshape(-1, x.shape[-1])
        a, b = lora_a.to(x.dtype), lora_b.to(x.dtype)
        keep = keep_mask(rows.shape, p, x.device) if p else None
        scale = scale / (1 - p)
        down = (drop(rows, keep) if p else rows) @ a.t()  # [tokens, r]
        y = linear(rows, weight, bias).addmm_(down, b.t(), alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, down, keep)
        ctx.scale, ctx.shape, ctx.lora_dtype = scale, x.shape, lora_a.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        rows, weight, a, b, down, keep = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_down = (grad @ b).mul_(ctx.scale)  # [tokens, r]
        grad_b = (grad.t() @ down).mul_(ctx.scale).to(ctx.lora_dtype)
        grad_a = (grad_down.t() @ (rows if keep is None else drop(rows, keep))).to(ctx.lora_dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            if keep is None:
                grad_x.addmm_(grad_down, a)
            else:
                grad_x.add_(drop(grad_down @ a, keep))
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None, None


def _forward(self: Linear, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """In place of `peft.tuners.lora.Linear.forward` where it would do just this; else that one."""
    if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
        return Linear.forward(self, x, *args, **kwargs)
    (name,) = self.active_adapters
    base, dropout = self.base_layer, self.lora_dropout[name]
    if name not in self.lora_A or x.dtype != base.weight.dtype or torch.is_autocast_enabled(x.device.type):
        return Linear.forward(self, x)
    p = dropout.p if isinstance(dropout, nn.Dropout) and self.training else 0.0
    weights = self.lora_A[name].weight, self.lora_B[name].weight
    return _LoraLinear.apply(x, base.weight, base.bias, *weights, self.scaling[name], p)


def fuse(model: nn.Module) -> int:
    """Let the plain LoRA layers of a PEFT model, those without DoRA over unquantized weights, compute so; how many they are."""
    fused = 0
    for module in model.modules():
        plain = type(module) is Linear and type(module.base_layer) is nn.Linear and not module.lora_variant
        if plain and not any(module.lora_bias.values()):
            module.forward = MethodType(_forward, module)
            fused += 1
    return fused

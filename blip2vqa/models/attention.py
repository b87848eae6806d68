"""What suits a model to its device: attention by plain matrix products on a CPU, no kernel that is known to fail on a GPU.

Torch's fused attention is slower on a CPU backward, and on 16-bit pictures: rows of a few dozen tokens, or a picture's few
hundred, leave it nothing to save. Everywhere else `scaled_dot_product_attention` stays.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import GELUActivation
from transformers.masking_utils import eager_mask

MATMUL = "matmul"


def matmul_attention(module, query, key, value, attention_mask, scaling=None, position_bias=None, **kwargs):
    """Compute attention as transformers' other implementations do → ([rows, length, heads, size], None).

    `query` is [rows, heads, length, size], `key` and `value` are [rows, heads or fewer, keys, size]. `attention_mask` and
    `position_bias` are added to the scores, broadcast to [rows, heads, length, keys], or None.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # LLaMA's later kinds have fewer heads of keys than of queries
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if scaling != 1:  # OPT has scaled its queries by now, and T5 does not
        query = query * scaling
    scores = torch.matmul(query, key.transpose(-1, -2))
    for added in (position_bias, attention_mask):
        if added is not None:
            scores = scores.add_(added)
    weights = torch.softmax(scores, dim=-1)  # of 16 bits it sums in 32 by itself
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def additive_mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a mask of what is seen, bool of any shape, into what is added to the scores: 0, or the lowest number."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def suit_training(language_model, device: torch.device) -> None:
    """Choose the attention kernels that training needs: on a CPU `matmul_attention` (in place), on a GPU all but cuDNN's."""
    avoid_cudnn_attention()
    if device.type == "cpu":
        _use_matmul(language_model)


def suit_encoding(vision_model, device: torch.device, dtype: torch.dtype) -> None:
    """Make a ViT on a CPU in 16 bits use `matmul_attention`, and GELU in its input's memory (in place); leave others alone."""
    if device.type != "cpu" or dtype.itemsize != 2:
        return
    _use_matmul(vision_model)
    for module in list(vision_model.modules()):
        for name, child in module.named_children():
            if isinstance(child, GELUActivation):
                setattr(module, name, InPlaceGELU())


class InPlaceGELU(nn.Module):
    """GELU that writes over its input where no gradient needs it: fresh memory costs a CPU more than the function itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x) if x.requires_grad else torch.ops.aten.gelu_(x)


def avoid_cudnn_attention() -> None:
    """Turn cuDNN's attention kernel off for this process; torch falls back to its own, memory-efficient one.

    torch prefers cuDNN's on Hopper and newer cards, and there its backward pass gives NaN for some queries whenever a mask is
    passed, as it always is here: https://github.com/pytorch/pytorch/issues/196678. Answering has no backward pass.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _use_matmul(module) -> None:
    if not module._supports_sdpa:
        return
    AttentionInterface.register(MATMUL, matmul_attention)
    AttentionMaskInterface.register(MATMUL, eager_mask)
    module.set_attn_implementation(MATMUL)

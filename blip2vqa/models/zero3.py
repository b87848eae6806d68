"""A base that DeepSpeed's ZeRO-3 divides among all processes while it is loaded; a weight is whole only while it computes.

DeepSpeed is no dependency of this package: it is imported where a launch asks for it.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config


@contextmanager
def dividing(dtype: torch.dtype) -> Iterator[None]:
    """Have `from_pretrained` divide what it loads, in this precision; the main process alone reads the weights."""
    config = HfDeepSpeedConfig(  # transformers knows of it as long as it is kept
        {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": 3},
            "bf16": {"enabled": dtype == torch.bfloat16},
        }
    )
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del config


def send_undivided(model: nn.Module) -> None:
    """Send what the main process has read of weights that DeepSpeed overlooks: those put into a module once it is made."""
    for weight in model.parameters():
        if not _is_divided(weight):
            torch.distributed.broadcast(weight.detach(), src=0)


def gathered(weights: Iterable[nn.Parameter]) -> AbstractContextManager:
    """Have these weights whole in every process; all have to ask for them. Those that are not divided are left alone."""
    divided = [weight for weight in weights if _is_divided(weight)]
    if not divided:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(divided)


@contextmanager
def gathered_to_compute(model: nn.Module) -> Iterator[None]:
    """Have the weights of each module whole while it computes, as DeepSpeed's engine does once training begins."""
    hooks = []
    for module in model.modules():
        if own := [weight for weight in module.parameters(recurse=False) if _is_divided(weight)]:
            hooks.append(module.register_forward_pre_hook(lambda *_, own=own: own[0].all_gather(own)))
            hooks.append(module.register_forward_hook(lambda *_, own=own: own[0].partition(own)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_divided(weight: nn.Parameter) -> bool:
    return hasattr(weight, "ds_id")

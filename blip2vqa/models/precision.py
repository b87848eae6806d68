"""Which precision, and how many bits for each weight, a base is loaded in: decided once for all processes of a launch."""

import logging

import torch
from torch import nn

from blip2vqa.models.families import family_of
from blip2vqa.models.family import Family
from blip2vqa.utils.distributed import gather_from_all
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.memory import find_free_memory

logger = logging.getLogger(__name__)

_FROM_NEWER_DEVICES = (torch.bfloat16, torch.float16, torch.float32)
"""Precisions, those that fewer devices compute in first."""
BYTES_PER_WEIGHT = {"8bit": 1.0, "4bit": 0.56}  # 4 bits, and a doubly quantized scale for every 64 weights


def check_dtype(name: str, family: Family) -> None:
    """Raise `InputError` for a `--dtype` that a family is known to overflow in."""
    if name == "float16" and not family.float16:
        raise InputError(f"--dtype float16: {family.name} overflows in it; use bfloat16, or float32")


def choose_dtype(name: str, family: Family, device: torch.device) -> tuple[torch.dtype, str]:
    """Choose the precision by `--dtype`, and say why; `auto` is one that the devices of all processes compute in.

    Every process of a launch has to call it. Raises `InputError` for float16 where it is known to overflow.
    """
    check_dtype(name, family)
    if name != "auto":
        return getattr(torch, name), f"{name}, as asked"
    found = gather_from_all(_find_dtype(family, device))
    return max(found, key=lambda choice: _FROM_NEWER_DEVICES.index(choice[0]))


def _find_dtype(family: Family, device: torch.device) -> tuple[torch.dtype, str]:
    """Find the precision that suits a device, and say why."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bfloat16, which this GPU computes in"
        if family.float16:
            return torch.float16, "float16, since a GPU in use has no bfloat16"
        return torch.float32, f"float32, since a GPU in use has no bfloat16 and {family.name} overflows in float16"
    if device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        return torch.float32, "float32, since macOS has bfloat16 on its GPU from version 14 on"
    if device.type == "cpu" and not cpu_computes_in_bfloat16():
        return torch.float32, "float32, since this CPU does not compute in bfloat16"
    return torch.bfloat16, f"bfloat16, which this {device.type.upper()} computes in"


def cpu_computes_in_bfloat16() -> bool:
    """Tell whether this processor computes in bfloat16; others emulate it, many times slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_quantization(
    name: str, config, dtype: torch.dtype, device: torch.device, parts: tuple[str, ...] | None = None
) -> tuple[str, str]:
    """Choose `none`, `8bit` or `4bit` by `--quantization`, and say why; `auto` quantizes only what of `parts` would not fit.

    Every process of a launch has to call it: all choose alike, by the least room that one of them has.
    """
    stored = stored_quantization(config)
    if stored and name not in ("auto", stored):
        raise InputError(
            f"--quantization {name}: the base is stored in {stored}; leave it out, or name the unquantized base"
        )
    if stored:
        return stored, f"{stored}: the base is stored so"
    if name != "auto":
        return name, f"{name}, as asked"
    family = family_of(config)
    model = family.outline(config, parts)
    total = sum(p.numel() for p in model.parameters())
    quantized = sum(layer.weight.numel() for layer in quantized_layers(model, family))
    free, sharing = find_free_memory(device)
    room = 0.8 * free  # the rest is for activations, the adapter and its optimizer
    width = torch.empty((), dtype=dtype).element_size()
    need = {"none": total * width}
    need |= {bits: (total - quantized) * width + quantized * size for bits, size in BYTES_PER_WEIGHT.items()}
    choice = next((kind for kind in ("none", "8bit", "4bit") if need[kind] <= room), "4bit")
    there = f"{free / 2**30:.1f} GiB" + f" for each of {sharing} processes" * (sharing > 1)
    if choice == "none":
        return choice, f"none: the weights take {need['none'] / 2**30:.1f} GiB of {there} free"
    note = f"{choice}: the weights would take {need['none'] / 2**30:.1f} GiB, and {there} are free"
    logger.warning("quantization %s", note)
    return choice, note


def stored_quantization(config) -> str | None:
    """Return how bitsandbytes stored a base: `4bit`, `8bit`, or None where it is whole."""
    how = getattr(config, "quantization_config", None) or {}
    how = how if isinstance(how, dict) else how.to_dict()
    return next((bits for bits in ("4bit", "8bit") if how.get(f"load_in_{bits}")), None)


def quantized_layers(model, family: Family) -> list[nn.Linear]:
    """List the layers that bitsandbytes would quantize: all linear ones but those that the family keeps whole."""
    fp32 = {*(model._keep_in_fp32_modules or ())}

    def whole(name: str) -> bool:
        # As transformers reads the list, by `should_convert_module`.
        named = any(name.startswith(f"{kept}.") or f".{name}".endswith(f".{kept}") for kept in family.kept_whole)
        return named or bool(fp32 & {*name.split(".")})

    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [module for name, module in linear if not whole(name)]

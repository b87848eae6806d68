"""What a process of a launch chooses where the devices of the processes are not alike."""

import os
import platform
from types import SimpleNamespace

import psutil
import torch

from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_config
from blip2vqa.models.precision import choose_dtype, choose_quantization
from blip2vqa.utils import memory
from blip2vqa.utils.distributed import start


def choices_on_unlike_devices(base: str, weights: int, same_machine: bool) -> tuple[torch.dtype, str, str]:
    """(precision, quantization, why) of one process: the first computes in bfloat16, the second has room for `weights`."""
    rank, cpu = int(os.environ["RANK"]), torch.device("cpu")
    start()
    # 0.8 of what is free may hold weights, of 4 bytes each.
    free = (2**40, int(weights * 4 / 0.8) + 1024)[rank]
    psutil.virtual_memory = lambda: SimpleNamespace(available=free)
    torch.cpu._is_avx512_bf16_supported = torch.cpu._is_amx_tile_supported = lambda: rank == 0
    if not same_machine:
        memory.BOOT_ID = memory.BOOT_ID.with_name("absent")
        platform.node = lambda: f"machine {rank}"
    config = load_config(base)
    dtype, _ = choose_dtype("auto", family_of(config), cpu)
    return (dtype, *choose_quantization("auto", config, dtype, cpu))

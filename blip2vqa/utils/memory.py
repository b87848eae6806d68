"""Measures the memory that is free, and the most that this process has held; frees what nothing uses any more."""

import gc
import platform
import re
from pathlib import Path

import psutil
import torch

from blip2vqa.utils.distributed import gather_from_all

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def free_memory() -> None:
    """Free the memory of models that nothing uses any more, also in reference cycles and in the accelerator's cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def find_free_memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes that a process may count on, and how many processes share the memory that they are of.

    The processes of a launch are to decide alike: it is the least that any of them has, and those on one card, or in one
    machine's memory, divide it. Every process has to call it, before any of them takes more.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, free in gather_from_all((_find_place(device), _measure_free(device))):
        places.setdefault(place, []).append(free)
    return min((min(found) // len(found), len(found)) for found in places.values())


def _measure_free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _find_place(device: torch.device) -> tuple[str, str]:
    """Name the memory that a device uses: machine, and card; Apple's GPUs use the machine's own."""
    # Machines that were copied from one another have one name.
    machine = BOOT_ID.read_text() if BOOT_ID.exists() else platform.node()
    return machine, str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def reset_peak_memory() -> None:
    """Make `peak_memory` count from now on; does nothing where the machine cannot."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        _CLEAR.write_text("5")  # Linux: the highest resident size begins anew
    except OSError:
        pass


def peak_memory() -> int | None:
    """Return the most memory that this process has held, in bytes: on the GPU if there is one; None where it is unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

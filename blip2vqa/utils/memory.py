"""Measures the most memory that this process has held, and frees what nothing uses any more."""

import gc
import re
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def free_memory() -> None:
    """Free the memory of models that nothing uses any more, also in reference cycles and in the accelerator's cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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

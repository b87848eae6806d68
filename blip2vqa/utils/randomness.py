"""Keeps random numbers that are drawn on the way from changing those that come later."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_state(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Put the random state of the CPU and of `device` back at the end of a `with` block, which begins with `seed`, if given.

    Other devices are left alone: torch's own default would begin to use all GPUs of the machine, and warn that this is slow.
    """
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.get_device_module(device).manual_seed(seed)
        yield

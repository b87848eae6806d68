"""Counts what would wait for an accelerator, or copy to it, in code that runs on a CPU."""

import sys
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {"item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2"}


class DeviceTraffic(TorchDispatchMode):
    """Within it, `waits` counts reads of tensors' contents and `copies` tensors made of Python's numbers, by file name.

    Both are counted where torch carries them out: `tolist` is no operation, and is patched.
    """

    def __init__(self, monkeypatch):
        super().__init__()
        self.waits, self.copies = Counter(), Counter()
        tolist = torch.Tensor.tolist

        def counted(tensor):
            self.waits[_caller()] += 1
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(place is not None and place.dtype == torch.bool for place in args[1])
        if name in _READS or by_mask:
            self.waits[_caller()] += 1
        elif name == "lift_fresh":
            self.copies[_caller()] += 1
        return func(*args, **(kwargs or {}))


def _caller() -> str:
    """Name the file of the innermost caller that is not torch, nor this one."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ or "/torch/" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame.f_code.co_filename.rpartition("/")[2]

"""What the benchmarks share to measure: times, peak memory, the floor, the profiler's table, and the machine.

Memory is read from /proc, so on a CPU this takes Linux.
"""

import argparse
import ctypes
import datetime
import gc
import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import peft
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from blip2vqa.utils.memory import peak_memory, reset_peak_memory
from shapes import SHAPES


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given; a CPU has by itself."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes, in seconds, the work that it left to the device included."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Most bytes held at once during one call, what was held before included: of the card, or of this process."""
    free_unused()
    reset_peak_memory()
    function()
    synchronize(device)
    return peak_memory()


def free_unused() -> None:
    """Give memory that nothing refers to back to the system, also what the allocators keep for later."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    if platform.system() == "Linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # glibc's alone


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int = 8192, repeats: int = 10) -> float:
    """Floating-point operations a second of one large square matrix product: what the device can do at best."""
    one, other = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(one)
    times = [seconds(lambda: torch.mm(one, other, out=out), device) for _ in range(repeats + 1)]
    return 2 * size**3 / min(times[1:])


class MatrixProducts(TorchDispatchMode):
    """Records the matrix products that run inside, forward and backward; `run` repeats them and nothing else.

    Weights are the model's own, so that each is read from memory as in the step; other operands are random numbers of
    the same shape, type and strides, and results go to memory taken before. Attention counts as its matrix products:
    two forward, four backward.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.operands, self.results, self.calls = {}, {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._record(name, *args[:2])
        elif name in ("addmm", "addmm_", "baddbmm"):
            self._record("bmm" if name == "baddbmm" else "mm", *args[1:3])
        elif "scaled_dot_product" in name:
            backward = name.endswith("backward")
            self._record_attention(*args[1:3] if backward else args[:2], backward)
        return func(*args, **(kwargs or {}))

    def _record(self, name: str, one: torch.Tensor, other: torch.Tensor) -> None:
        shape = (*one.shape[:-1], other.shape[-1])
        if (shape, one.dtype) not in self.results:
            self.results[shape, one.dtype] = torch.empty(shape, dtype=one.dtype, device=one.device)
        operands = self._operand(one), self._operand(other)
        self.calls.append((getattr(torch, name), *operands, self.results[shape, one.dtype]))

    def _operand(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() in self.weights:
            return tensor.detach()
        key = tensor.shape, tensor.stride(), tensor.dtype
        if key not in self.operands:
            span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            values = torch.randn(span, dtype=tensor.dtype, device=tensor.device)
            self.operands[key] = values.as_strided(tensor.shape, tensor.stride())
        return self.operands[key]

    def _record_attention(self, query: torch.Tensor, key: torch.Tensor, backward: bool) -> None:
        """`query` [batch, heads, length, size], `key` [batch, heads, seen, size]."""
        number, length, seen, size = query.shape[0] * query.shape[1], query.shape[2], key.shape[2], query.shape[3]
        queries, keys, scores = (query.new_empty(number, *s) for s in ((length, size), (seen, size), (length, seen)))
        if backward:
            self._record("bmm", scores.mT, queries)  # gradient of the values
            self._record("bmm", queries, keys.mT)  # of the probabilities
            self._record("bmm", scores, keys)  # of the queries
            self._record("bmm", scores.mT, queries)  # of the keys
        else:
            self._record("bmm", queries, keys.mT)
            self._record("bmm", scores, keys)

    @torch.no_grad()
    def run(self) -> None:
        for product, one, other, out in self.calls:
            product(one, other, out=out)


def options(description: str) -> argparse.ArgumentParser:
    """What `training.py` and `inference.py` both take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="blip2-opt-2.7b", choices=SHAPES)
    parser.add_argument("--questions_per_image", type=int, default=4)
    parser.add_argument("--images", type=int, default=4, help="distinct images")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way; the fastest counts")
    parser.add_argument("--prompt_tokens", type=int, default=20, help="tokens of a question with its prompt")
    parser.add_argument("--answer_tokens", type=int, default=3, help="tokens of an answer")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--profile", action="store_true", help="also print what takes the time of our way")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    return parser


def print_times(result: dict, rows: Iterable[tuple[str, float, int | None]]) -> None:
    """A table of (way, seconds a question, peak memory in bytes)."""
    table = Table(title=f"{result['shape']}, {result['images']} images × {result['questions_per_image']} questions")
    for column in ("", "seconds a question", "questions a second", "peak memory"):
        table.add_column(column, justify="right" if column else "left")
    for label, taken, held in rows:
        table.add_row(label, f"{taken:.4g}", f"{1 / taken:.4g}", f"{held / 2**30:.2f} GiB" if held else "-")
    Console(highlight=False).print(table)


def profiled(function: Callable[[], object], device: torch.device) -> profile:
    """Torch's profile of one call, the work that it left to the device included."""
    own = {"cuda": [ProfilerActivity.CUDA], "xpu": [ProfilerActivity.XPU]}.get(device.type, [])
    with profile(activities=[ProfilerActivity.CPU, *own]) as found:
        seconds(function, device)
    return found


def profile_table(found: profile, device: torch.device) -> str:
    """The 25 operations that take most, by their own time."""
    order = f"self_{'cpu' if device.type == 'cpu' else 'device'}_time_total"
    return found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60)


def print_profile(function: Callable[[], object], device: torch.device) -> None:
    """The 25 operations that take most of one call, by their own time."""
    print(profile_table(profiled(function, device), device), flush=True)


def machine(device: torch.device) -> dict[str, object]:
    """The processor, its cores, and the accelerator where one is used."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    found = {"cpu": name[1] if name else platform.processor(), "cores": os.cpu_count(), "device": str(device)}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def circumstances(device: torch.device) -> dict[str, object]:
    """What a figure must be read with: the machine, threads, versions, and the day."""
    versions = {"python": platform.python_version()}
    versions |= {package.__name__: package.__version__ for package in (torch, transformers, peft)}
    return {
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }

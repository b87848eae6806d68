"""Where the time of a training step and of an answered batch goes: kernels, the host's operations, and the device's gaps."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import profile

from benchmarks import inference, training
from blip2vqa.models.loading import find_device
from blip2vqa.utils.files import write_text_atomic
from gpu_parts.context import Context, Skipped
from gpu_parts.fast import LEAST as LEAST
from gpu_parts.fast import QUESTIONS_PER_IMAGE, attempt, check_room, options, precision, resize
from measuring import profile_table, profiled, seconds

LISTED = 25
"""Kernels, operations and gaps that are named."""
TRACE_BYTES = 20 * 10**6
"""A trace that is larger is not kept."""
IMAGES = {"cpu": 2}
"""Images in a batch where the fast part has found no best size, by type of device."""
IMAGES_ELSEWHERE = 16
WAITS = (
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy",
    "hipStreamSynchronize", "hipDeviceSynchronize", "hipEventSynchronize",
)  # fmt: skip
"""The runtime's calls that make the host wait for the device."""
WAITS_ON_CPU = ("aten::_local_scalar_dense", "aten::nonzero")
"""What would call them, if the CPU were a device."""


def images_of(shape: str, what: str, output: Path, device: torch.device) -> int:
    """Images in the batch that the fast part found to be best, if it has run."""
    path = output / "parts" / f"fast-{shape}.json"
    found = json.loads(path.read_text())["steps"].get(what, {}) if path.exists() else {}
    best = ((found.get("result") or {}).get("ours") or {}).get("best")
    if best:
        return best["questions"] // QUESTIONS_PER_IMAGE
    return IMAGES.get(device.type, IMAGES_ELSEWHERE)


def look(shape: str, what: str, context: Context) -> dict:
    """Profile one training step, or one answered batch."""
    device, dtype = find_device(), precision(shape, find_device())
    check_room(shape, device)
    images = images_of(shape, what, context.output, device)
    with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
        run = None
        while run is None and images:
            run = attempt(lambda images=images: _prepare(shape, what, images, dtype, device, folder))
            images = images if run else images // 2  # the profiler needs memory, too, and the fast part leaves little
        if run is None:
            raise Skipped("out of memory at one image already")
        taken = min(seconds(run, device) for _ in range(3))
        # Waits of the profiler itself and of taking the time are none of the step's.
        own = counted(profiled(lambda: None, device)) if device.type != "cpu" else Counter()
        found = attempt(lambda: profiled(run, device))
        if found is None:
            raise Skipped(f"out of memory under the profiler with {images} images")
        table = profile_table(found, device)
        write_text_atomic(context.output / f"where-{what}.txt", table + "\n")
        result = {"shape": shape, "what": what, "questions": images * QUESTIONS_PER_IMAGE, "seconds": taken}
        result |= summarize(found, taken, device, own)
        result["table"] = f"where-{what}.txt"
        return result | {"trace": keep_trace(found, context.output / f"where-{what}.trace.json.gz")}


def _prepare(shape: str, what: str, images: int, dtype: torch.dtype, device: torch.device, folder: str) -> Callable:
    """What works off one batch, after it has done so once."""
    if what == "training":
        work = training.Work(shape, options(shape), dtype, device)
        work.train()
        work.drop_towers()
        work.as_ours()
        work.take(images, towers=False)
        run = work.our_step
    else:
        work = inference.Work(shape, options(shape), dtype, device, folder)
        resize(work, images)
        work.as_ours()
        work.drop_towers()
        run = work.stored
    run()
    return run


def counted(found: profile) -> Counter:
    """How often each operation and each of the runtime's calls was made."""
    return Counter({event.key: event.count for event in found.key_averages()})


def waits(calls: Counter, own: Counter, device: torch.device) -> dict[str, int]:
    """How often the host waited for the device, each wait counted once; `own`: calls that the measuring makes."""
    calls = calls - own
    return {name: calls[name] for name in (WAITS_ON_CPU if device.type == "cpu" else WAITS) if calls[name]}


def summarize(found: profile, taken: float, device: torch.device, own: Counter) -> dict:
    """Kernels and operations by their shares, and how long the device had nothing to do.

    `taken`: seconds of the same without a profiler, which slows the host down. `own`: as for `waits`. On a CPU its operations
    stand for kernels.
    """
    on_host = device.type == "cpu"
    events = [event for event in found.events() if not getattr(event, "is_user_annotation", False)]
    host = [event for event in events if event.device_type == DeviceType.CPU]
    work = host if on_host else [event for event in events if event.device_type != DeviceType.CPU]
    merged = merge((event.time_range.start, event.time_range.end) for event in work)
    busy = sum(stop - start for start, stop in merged) / 1e6
    averages = found.key_averages()
    kernels = _listed(averages, "self_cpu_time_total" if on_host else "self_device_time_total", host=on_host)
    between = ((after - stop, stop, after) for (_, stop), (after, _) in pairwise(merged))
    gaps = sorted(between, reverse=True)[:LISTED]
    return {
        "device_busy_seconds": busy,
        "idle_share": max(0.0, 1 - busy / taken),
        "profiled_span_seconds": (merged[-1][1] - merged[0][0]) / 1e6 if merged else 0.0,
        "kernels": kernels,
        "host": _listed(averages, "self_cpu_time_total", host=True),
        "launches": len(work),
        "gaps": max(0, len(merged) - 1),
        "longest_gaps": [{"seconds": one / 1e6, "host": innermost(host, start, stop)} for one, start, stop in gaps],
        "waits": waits(counted(found), own, device),
    }  # fmt: skip


def merge(intervals) -> list[tuple[float, float]]:
    """The union of intervals, in order and apart from each other."""
    merged: list[tuple[float, float]] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def innermost(host: list, start: float, stop: float) -> str | None:
    """The shortest of the host's operations that was running in the middle of a gap."""
    middle = (start + stop) / 2
    running = [event for event in host if event.time_range.start <= middle <= event.time_range.end]
    shortest = min(running, key=lambda event: event.time_range.elapsed_us(), default=None)
    return shortest and shortest.name


def _listed(averages, attribute: str, host: bool) -> list[dict]:
    """The entries that take most of their own time, with their share of all of it."""
    plain = [event for event in averages if not getattr(event, "is_user_annotation", False)]
    entries = [event for event in plain if (event.device_type == DeviceType.CPU) == host]
    taken = {event.key: getattr(event, attribute) / 1e6 for event in entries}
    whole, calls = sum(taken.values()) or 1.0, {event.key: event.count for event in entries}
    names = sorted(taken, key=taken.get, reverse=True)[:LISTED]
    return [
        {"name": name, "calls": calls[name], "seconds": taken[name], "share": taken[name] / whole} for name in names
    ]


def keep_trace(found: profile, path: Path) -> str | None:
    """Write the trace for chrome://tracing; None where it is too large."""
    found.export_chrome_trace(str(path))
    if path.stat().st_size > TRACE_BYTES:
        path.unlink()
        return None
    return path.name


def steps(shape: str) -> dict[str, Callable[[Context], dict]]:
    """The steps for one shape."""
    return {what: (lambda context, what=what: look(shape, what, context)) for what in ("training", "answering")}

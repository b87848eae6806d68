"""Takes the steps of one part in a process of its own, and writes each result as soon as it is there."""

import ctypes
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from blip2vqa.utils.files import write_json_atomic
from gpu_parts.context import Context, NoTime, Skipped

POISONED = 3
"""Exit code of a process whose device answers nothing any more after an error."""


def read(path: Path) -> dict:
    """A part's file; one with nothing done where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"planned": None, "steps": {}}


def work(
    module: str, shape: str | None, only: list[str] | None, path: Path, output: Path, ends: float, most: float
) -> None:
    """Take the steps that `path` does not hold yet, until `ends`, a time of `time.time`; each takes at most `most` seconds.

    `module`: has `steps(shape)`, or `STEPS`, and perhaps `LEAST`, seconds that a step needs on an accelerator; `only`: those
    of these names. It ends where a step has no time, and leaves that one and the later ones.
    """
    os.setsid()  # whoever ends this process ends what it has started, too
    die_with_parent()
    with path.with_suffix(".log").open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
        found = importlib.import_module(f"gpu_parts.{module}")
        steps = found.steps(shape) if shape else found.STEPS
        steps = {name: step for name, step in steps.items() if only is None or name in only}
        scratch = path.with_suffix(".scratch")
        shutil.rmtree(scratch, ignore_errors=True)  # what was being made when it was killed
        scratch.mkdir(exist_ok=True)
        state = read(path) | {"planned": list(steps)}
        write_json_atomic(path, state)
        least = least_seconds(found)
        for name in [name for name in steps if name not in state["steps"]]:
            began = time.time()
            if ends - began < least:
                break
            state["running"] = {"step": name, "since": began}
            write_json_atomic(path, state)
            context = Context(scratch, output, min(most, ends - began), hurried=ends - began < most)
            outcome, poisoned = take(steps[name], context)
            if outcome is not None:
                state["steps"][name] = outcome | {"seconds": time.time() - began}
            del state["running"]
            write_json_atomic(path, state)
            log.flush()
            if outcome is None:
                break
            if poisoned:
                os._exit(POISONED)


def least_seconds(module) -> float:
    """Seconds below which no step of a module is begun; a CPU that stands in for an accelerator has small models alone."""
    import torch

    return getattr(module, "LEAST", 0.0) if torch.accelerator.is_available() else 0.0


def die_with_parent() -> None:
    """Let this process be killed when its parent is: it would go on to hold the card, and to write what the next one writes."""
    set_death_signal = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def take(step, context: Context) -> tuple[dict | None, bool]:
    """What came of a step: `result`, `skipped` or `failed`; and whether the device is of no use to this process any more.

    None: nothing, for want of time. The memory that the step has held is free afterwards.
    """
    import torch

    poisoned = False
    try:
        outcome = {"result": step(context)}
    except Skipped as why:
        outcome = {"skipped": str(why)}
    except NoTime:
        outcome = None
    except Exception as error:  # whatever it is, the other steps are to be taken
        traceback.print_exc()
        outcome = {"failed": f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"}
        poisoned = isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
    # Behind the handlers, whose traceback holds the step's tensors; fused layers hold each other in circles.
    gc.collect()
    if torch.accelerator.is_available() and not poisoned:
        torch.accelerator.empty_cache()
    return outcome, poisoned

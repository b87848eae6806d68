"""Runs steps in one or all processes of a launch, so that all of them go on or fail together."""

import os
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from blip2vqa.utils.errors import InputError, MachineError

Result = TypeVar("Result")


def run_on_main_rank(function: Callable[[], Result]) -> Result:
    """Call `function` in the main process; all get its result, or raise its `InputError` together.

    Without it, one process would stop and the others wait for it until their connection times out.
    """
    state = PartialState()
    outcome: list = [None]
    if state.is_main_process:
        try:
            outcome = [function()]
        except InputError as error:
            outcome = [error]
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if isinstance(outcome[0], InputError):
        raise outcome[0]
    return outcome[0]


def run_on_all_ranks(function: Callable[[], Result]) -> Result:
    """Call `function` in every process; each gets its own result, or all raise the problems of any of them.

    What only some machines of several say is followed by their numbers.
    """
    result, errors = None, []
    try:
        result = function()
    except InputError as error:
        errors = [error]
    here = int(os.environ.get("GROUP_RANK", "0"))
    said, machines = [(here, error) for error in errors], {here}
    if PartialState().num_processes > 1:
        said, machines = gather_object(said), {*gather_object([here])}
    if said:
        kind = next((type(error) for _, error in said if isinstance(error, MachineError)), InputError)
        raise kind(*_with_machines(said, machines))
    return result


def gather_from_all(value: Result) -> list[Result]:
    """Return the values that all processes give, in the order of their ranks; every process has to call it."""
    return gather_object([value]) if PartialState().num_processes > 1 else [value]


def _with_machines(said: list[tuple[int, InputError]], machines: set[int]) -> list[str]:
    """List the problems of several processes, each once; `said` are pairs of a machine's number and an error."""
    by_problem: dict[str, set[int]] = {}
    for machine, error in said:
        for problem in error.problems:
            by_problem.setdefault(problem, set()).add(machine)
    return [
        problem if on == machines else f"{problem} (on machine {', '.join(map(str, sorted(on)))} of {len(machines)})"
        for problem, on in by_problem.items()
    ]


def check_shared(folder: Path, option: str) -> None:
    """Raise `InputError` in all processes unless every machine sees what the main one writes into `folder`."""
    state, token = PartialState(), [f".shared-{uuid.uuid4().hex}"]
    if state.num_processes == processes_here():
        return  # one machine
    broadcast_object_list(token)
    path = folder / token[0]

    def look() -> None:
        if not path.exists():
            raise InputError(f"{option} {folder}: not shared with machine 0; give a folder that all machines see")

    if state.is_main_process:
        path.touch()
    state.wait_for_everyone()
    try:
        run_on_all_ranks(look)
    finally:
        if state.is_main_process:
            path.unlink(missing_ok=True)


def processes_here() -> int:
    """Count the processes of this launch on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", PartialState().num_processes))


def start() -> PartialState:
    """Join the processes of this launch, if there are several; on a machine without accelerator they meet over gloo."""
    # The others wait while the main process fetches and checks pictures: longer, perhaps, than a connection's usual minutes.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=6))

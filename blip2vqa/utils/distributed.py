"""Runs steps in one or all processes of a launch, so that all of them go on or fail together."""

from collections.abc import Callable
from datetime import timedelta
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
    """Call `function` in every process; each gets its own result, or all raise the problems of any of them."""
    result, errors = None, []
    try:
        result = function()
    except InputError as error:
        errors = [error]
    if PartialState().num_processes > 1:
        errors = gather_object(errors)
    if errors:
        kind = next((type(error) for error in errors if isinstance(error, MachineError)), InputError)
        raise kind(*dict.fromkeys(problem for error in errors for problem in error.problems))
    return result


def gather_from_all(value: Result) -> list[Result]:
    """Return the values that all processes give, in the order of their ranks; every process has to call it."""
    return gather_object([value]) if PartialState().num_processes > 1 else [value]


def start() -> PartialState:
    """Join the processes of this launch, if there are several; on a machine without accelerator they meet over gloo."""
    # The others wait while the main process fetches and checks pictures: longer, perhaps, than a connection's usual minutes.
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(hours=6))

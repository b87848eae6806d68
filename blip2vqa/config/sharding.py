"""Whether a launch asks for FSDP, as accelerate's launcher says it in the environment of its processes, or for ZeRO-3."""

import os
from dataclasses import dataclass
from functools import cache

from blip2vqa.utils.errors import InputError

CONFIG = "configs/accelerate/fsdp.yaml"
FSDP, ZERO3 = "FSDP", "ZeRO-3"
_ASKS, _ZERO_STAGE = "ACCELERATE_USE_FSDP", "ACCELERATE_DEEPSPEED_ZERO_STAGE"
# What accelerate's configuration may ask for, and this package does in another way or not at all.
_REFUSED = {
    "FSDP_OFFLOAD_PARAMS": "the blocks stay on the cards; set fsdp_offload_params: false",
    "FSDP_ACTIVATION_CHECKPOINTING": "give --activation_checkpointing true instead; set fsdp_activation_checkpointing: false",
}


@dataclass(frozen=True)
class Sharding:
    """What the launch asks for."""

    kind: str | None
    """`FSDP`, `ZERO3`, or None: every process has a whole base."""
    problems: tuple[str, ...] = ()
    """What of it is refused."""


@cache
def sharding_of_launch() -> Sharding:
    """Read what the launch asks for, and take it out of the environment, so that Trainer does not shard the adapter, too."""
    asked = os.environ.pop(_ASKS, "false").lower() == "true"
    if not asked:
        return Sharding(None)
    problems = [
        f"FSDP: {remedy}, as {CONFIG}"
        for name, remedy in _REFUSED.items()
        if os.environ.get(name, "").lower() == "true"
    ]
    if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        problems.append(f"FSDP: version {version} is not supported; set fsdp_version: 2, as {CONFIG}")
    if os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "true":
        problems.append(f"FSDP: without resharding every process keeps the whole base; set it to true, as {CONFIG}")
    world, here, machines = (
        int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    )
    if machines > 1 and here * machines != world:
        problems.append(
            f"FSDP: {here} of {world} processes on this one of {machines} machines; give every machine as many"
        )
    if here < 2:
        problems.append(
            "FSDP: the processes of a machine share the base, and this one has one; give --num_processes 2 or more, or "
            "launch without FSDP"
        )
    return Sharding(FSDP, tuple(problems))


def sharding_of_deepspeed(config) -> Sharding:
    """Read what DeepSpeed's configuration, an `HfDeepSpeedConfig`, asks for."""
    if not config.is_zero3():
        return Sharding(None)
    problems = []
    if config.is_offload():
        problems.append("ZeRO-3: weights and states stay on the cards; set offload_param and offload_optimizer to none")
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        problems.append("ZeRO-3: one process has nobody to share the base with; give --num_processes 2 or more")
    return Sharding(ZERO3, tuple(problems))


def refuse_sharding(what: str) -> None:
    """Raise `InputError` where the launch asks for sharding and every process is to have a whole base; `what` does so."""
    zero3 = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and os.environ.get(_ZERO_STAGE) == "3"
    if kind := sharding_of_launch().kind or (ZERO3 if zero3 else None):
        raise InputError(
            f"{kind}: {what} by a whole base in each process; launch it without, and --quantization 4bit if needed"
        )

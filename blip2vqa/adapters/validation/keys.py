"""The keys of an adapter's weights, as PEFT writes them, whatever the model was wrapped in when they were saved."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from blip2vqa.utils.errors import InputError

if TYPE_CHECKING:
    from peft import LoraConfig

T = TypeVar("T")
PREFIX = "base_model.model."
"""What every key in PEFT's files begins with, before the module's name."""
SAVE_AGAIN = "save the adapter again by save_pretrained of the PEFT model itself, without what is wrapped around it"
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""Names by which torch.compile, DDP and DeepSpeed, FSDP, its checkpoints and Lightning hold a model; no base has a module of
such a name."""
_NAMING = ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern")
_FRONT = re.compile(r"(?:.*\.)?base_model\.model\.")


_A = ".lora_A.weight"


def plain_name(name: str) -> str:
    """Return a module's name without the names of wrappers; one that is a wrapper's alone stays."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def plain_key(key: str) -> str:
    """Return a key as PEFT writes it: without the names of wrappers, and with PEFT's beginning once."""
    return PREFIX + _FRONT.sub("", plain_name(key), count=1)


def with_plain_names(config: dict) -> dict:
    """Return a (checked) configuration with its modules named as the base names them."""
    named = {key: config[key] for key in _NAMING if config.get(key)}
    lists = {key: [*map(plain_name, names)] for key, names in named.items() if isinstance(names, list)}
    return (
        config
        | lists
        | {
            key: {plain_name(name): value for name, value in names.items()}
            for key, names in named.items()
            if isinstance(names, dict)
        }
    )


def with_plain_keys(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return tensors under their plain keys, in their order. Raises `InputError` where two keys are then one."""
    stored: dict[str, str] = {}
    doubles = [(first, key) for key in tensors if (first := stored.setdefault(plain_key(key), key)) != key]
    if doubles:
        first, key = doubles[0]
        raise InputError(
            f"{len(doubles)} of its {len(tensors)} keys are of one weight with another ({key}, as {first}, the first); "
            f"{SAVE_AGAIN}"
        )
    return {plain: tensors[key] for plain, key in stored.items()}


def modules_of(keys: Iterable[str]) -> list[str]:
    """Name the adapted modules, as the base names them, from plain keys."""
    return [key.removeprefix(PREFIX).removesuffix(_A) for key in keys if key.endswith(_A)]


def check_fronts(modules: Iterable[str]) -> list[str]:
    """List, in one line, the modules in front of whose known part stands something that no supported base has."""
    from blip2vqa.models.families import families  # which takes seconds to import

    parts = {name for family in families().values() for part in family.parts for name in part.modules}
    unknown = {}
    for module in modules:
        first, *rest = module.split(".")
        if first not in parts and (known := next((part for part in rest if part in parts), None)):
            unknown[module] = f"{module.partition(f'.{known}')[0]} in front of {known}"
    if not unknown:
        return []
    module, front = next(iter(unknown.items()))
    return [f"{len(unknown)} of its layers cannot be told ({module} the first: what is {front}?); {SAVE_AGAIN}"]


def check_targets(modules: Sequence[str], config: "LoraConfig") -> list[str]:
    """List, in one line, the modules that the configuration does not name, and that PEFT would not adapt."""
    from peft.tuners.tuners_utils import check_target_module_exists

    others = [module for module in modules if not check_target_module_exists(config, module)]
    if not others:
        return []
    return [
        f"{len(others)} of its {len(modules)} layers, {others[0]} the first, are none that its configuration names by "
        "target_modules; put weights and configuration of one run together"
    ]

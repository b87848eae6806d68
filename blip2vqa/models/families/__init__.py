"""The supported families of models: each module of this folder registers its own, and nothing else lists them.

To add one, write a module here with a subclass of `Family` under `@register`, and a test of it.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from blip2vqa.models.family import Family
from blip2vqa.utils.errors import InputError

FAMILIES: dict[str, Family] = {}
"""Name → family, of those registered so far; `families()` returns them all."""


def register(family: type[Family]) -> type[Family]:
    """Make a family known under its name; a decorator for its class."""
    FAMILIES[family.name] = family()
    return family


def families() -> dict[str, Family]:
    """Return all families by name."""
    _import_modules()
    return FAMILIES


@cache
def _import_modules() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def language_models() -> dict[str, type]:
    """Return the classes of the language models that families have and that can stand alone, by their `model_type`."""
    classes = [family.language_class for family in families().values() if family.language_class]
    return {found.config_class.model_type: found for found in classes}


def family_of(config) -> Family:
    """Return the family of a model's configuration. Raises `InputError` naming the known ones."""
    known = families().values()
    alike = [family for family in known if family.model_type == config.model_type]
    for family in alike:
        if family.kind == family.kind_of(config):
            return family
    kinds = [config.model_type, *(family.kind_of(config) for family in alike[:1])]
    shown = ", ".join(f"{f.name} ({'/'.join(filter(None, (f.model_type, f.kind)))})" for f in known)
    raise InputError(
        f"base model: its architecture is {'/'.join(filter(None, kinds))}, which is not supported; known are {shown}"
    )


def family_named(name: str | None, modules: Sequence[str]) -> Family | None:
    """Return the family of that name; without one, the family that knows most of these modules, or None."""
    known = families()
    if name in known:
        return known[name]
    counts = {family: sum(bool(family.roles_of(module)) for module in modules) for family in known.values()}
    best = max(counts, key=counts.get)
    return best if counts[best] else None

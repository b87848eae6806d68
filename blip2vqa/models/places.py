"""Where a module stands in its base, told by its name alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blip2vqa.config.roles import ROLE_ALIASES, ROLES, SCOPES
from blip2vqa.models.family import LANGUAGE_MODEL, TOKEN_EMBEDDINGS, Family

_NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.)")


@dataclass(frozen=True)
class Place:
    """Where a module stands."""

    scope: str | None
    """Of `SCOPES`; None in a bare language model."""
    stack: str
    """The layers that it is one of, such as `language_model.model.decoder.layers`, or the module itself."""
    layer: int | None
    """From 0."""
    role: str
    """Of `ROLES`; `cross q` where it attends to what is not its own stack's, `qkv` where it is three in one, and the end of the
    module's name where that is no known role."""


def place_of(module: str, family: Family | None) -> Place:
    """Tell where a module stands; `family` is None for a bare language model."""
    part, number = family and family.part_with(module), _NUMBER.search(module)
    scope = part and part.scope
    if scope and not part.roles:
        return Place(scope, module, None, scope)
    role = "".join(_roles_of(module, family))
    if re.search("cross|EncDec", module):
        role = f"cross {role}"
    if number is None:
        return Place(scope, module, None, role)
    return Place(scope, module[: number.start()], int(number[1]), role)


def _roles_of(module: str, family: Family | None) -> list[str]:
    """Tell the roles of a module, by its name's end where the family does not know it."""
    last = module.rpartition(".")[2]
    return (family and family.roles_of(module)) or [ROLE_ALIASES.get(last, last)]


def role_label(scope: str, role: str) -> str:
    """Name a role in a scope, as in "q" of the language model and "qformer q"."""
    return role if scope == LANGUAGE_MODEL else f"{scope} {role}"


def scopes_and_roles(modules: Sequence[str], family: Family | None) -> tuple[list[str], list[str]]:
    """Tell what an adapter on these modules is on: scopes, and roles as `lora.modules_to_adapt` labels them."""
    scopes, labels = set(), set()
    for module in modules:
        part = family and family.part_with(module)
        scope = (part and part.scope) or LANGUAGE_MODEL
        scopes.add(scope)
        if part and part.scope and not part.roles:
            labels.add(scope)
            continue
        labels |= {role_label(scope, role) for role in _roles_of(module, family)}
    order = [f"{front}{role}" for front in ("", *(f"{scope} " for scope in SCOPES)) for role in (*ROLES, *SCOPES)]
    known = [label for label in order if label in labels]
    return [scope for scope in SCOPES if scope in scopes], known + sorted(labels - set(known))


def part_of(name: str, family: Family | None) -> str:
    """Tell which part of a base, as its fingerprints name them, a parameter or module belongs to.

    The token embeddings of a language model that can stand alone are a part of their own.
    """
    part = family and family.part_with(name)
    if part and part.name != LANGUAGE_MODEL:
        return part.name
    stands_alone = family is None or family.language_prefix is not None
    return (
        TOKEN_EMBEDDINGS
        if stands_alone and name.removesuffix(".weight").endswith((family or Family).token_names)
        else LANGUAGE_MODEL
    )

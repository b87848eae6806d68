"""What an adapter may be put on: parts of a model (scopes), and the jobs of a transformer block's linear layers (roles)."""

from collections.abc import Mapping, Sequence

from blip2vqa.utils.errors import InputError

SCOPES = ("language_model", "projection", "qformer", "vision")
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
# What other projects call these layers; a list of LLaMA's names works for every language model this way.
ROLE_ALIASES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o",
    "gate_proj": "gate", "wi_0": "gate", "up_proj": "up", "fc1": "up", "wi_1": "up",
    "down_proj": "down", "fc2": "down", "wo": "down",
}  # fmt: skip


def parse_roles(text: str) -> tuple[str, ...]:
    """Read `"q,k,v"` or `"q_proj,v_proj"` → roles in the order of `ROLES`. Raises `InputError` for an unknown one."""
    return _parse("--lora_roles", text, ROLES, "not a role", ROLE_ALIASES)


def parse_scopes(text: str) -> tuple[str, ...]:
    """Read `"qformer,language_model"` → scopes in the order of `SCOPES`. Raises `InputError` for an unknown one."""
    return _parse("--lora_scope", text, SCOPES, "no part of the model", {})


def _parse(flag: str, text: str, known: Sequence[str], otherwise: str, aliases: Mapping[str, str]) -> tuple[str, ...]:
    given = [name.strip() for name in text.split(",") if name.strip()]
    named = {aliases.get(name, name) for name in given}
    unknown = [name for name in given if aliases.get(name, name) not in known]
    if unknown or not named:
        shown = ", ".join(unknown) or "an empty list"
        raise InputError(f"{flag}: {shown} is {otherwise}; choose from {', '.join(known)}")
    return tuple(name for name in known if name in named)

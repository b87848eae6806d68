"""What the declared schemas of an adapter's JSON files share: types of values, and problems told one line each.

Values are never converted: true is no number, 4.0 no whole number, and NaN only a score.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, LiteralString

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from blip2vqa.utils.strict_json import shown

MAX_RANK = 4096
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,512}")
"""Names of modules and tensors."""
_WANTED = {
    "model_type": "an object", "dict_type": "an object", "list_type": "a list", "string_type": "a text",
    "bool_type": "true or false", "int_type": "a whole number", "float_type": "a number", "finite_number": "a number",
    "extra_forbidden": "left out, since nothing reads it",
}  # fmt: skip
"""Pydantic's kinds of error → what the value has to be, in JSON's words."""
_SHORTER = {
    r"^(Input|Value|List|Dictionary) should ": "", " after validation": "", "greater than or equal to": "at least",
    "less than or equal to": "at most", "greater than": "above", "less than": "below",
}  # fmt: skip
"""Words of pydantic's messages → plainer ones."""


class Schema(BaseModel):
    """An object in JSON, whose declared keys are checked; keys that nobody knows may stay."""

    model_config = ConfigDict(strict=True)


def problems_of(schema: type[BaseModel], value: object) -> list[str]:
    """Check a JSON value by a schema and return its problems, one line each."""
    try:
        schema.model_validate(value)
    except ValidationError as error:
        return [_line(problem) for problem in error.errors(include_url=False)]
    return []


def has_to_be(wanted: str, fits: Callable[[Any], object]) -> AfterValidator:
    """Make a check of one value: its problem says that it has to be `wanted`."""
    return _check("has_to_be", f"be {wanted}", fits)


def refused(reason: str, *, unless: Callable[[Any], object]) -> AfterValidator:
    """Make a check of one value: its problem is the key, then `reason`."""
    return _check("refused", reason, unless)


def _check(kind: LiteralString, reason: str, fits: Callable[[Any], object]) -> AfterValidator:
    def check(value: Any) -> Any:
        if not fits(value):
            raise PydanticCustomError(kind, "{reason}", {"reason": reason})
        return value

    return AfterValidator(check)


def _line(problem: ErrorDetails) -> str:
    kind, location, message = problem["type"], problem["loc"], problem["msg"]
    if location and location[-1] == "[key]":
        location = location[:-2]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in location)[1:]
    if kind == "missing":
        around, _, key = where.rpartition(".")
        return f"{around} has no {key}" if around else f"{key} is missing"
    if kind == "refused":
        return f"{where} {message}"
    for pattern, plainer in _SHORTER.items():
        message = re.sub(pattern, plainer, message)
    wanted = f"be {_WANTED[kind]}" if kind in _WANTED else message
    return f"{where} is {shown(problem['input'])}; it has to {wanted}".lstrip()


def _key(name: str) -> str:
    """Write a stranger's key as it may stand in a message."""
    return name if re.fullmatch(r"\w{1,40}", name, re.ASCII) else shown(name)


def _is_line(value: str) -> bool:
    return value.isprintable() and len(value) <= 4096


def _is_place(value: str) -> bool:
    short = len(value.encode()) < 4096 and all(len(part.encode()) <= 255 for part in value.split("/"))
    return short and _is_line(value)


_PLACE = "a name or path, on one line and not too long for a file system"
Line = Annotated[str, has_to_be("one line of text", _is_line)]
"""A text that can stand in a table."""
Place = Annotated[str, has_to_be(_PLACE, _is_place)]
PlaceIfText = Annotated[Any, has_to_be(_PLACE, lambda value: not isinstance(value, str) or _is_place(value))]
Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Rank = Annotated[int, Field(ge=1, le=MAX_RANK)]
Sha256 = Annotated[str, has_to_be("a SHA-256, 64 hexadecimal digits", re.compile("[0-9a-f]{64}").fullmatch)]
ModuleName = Annotated[
    str,
    has_to_be("a module's name (letters, digits, '.', '_', '-'; no regular expression)", PLAIN.fullmatch),
]

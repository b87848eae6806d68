"""Configuration files: JSON or YAML, by the ending of the name, with the same values, checks and messages."""

import re
from pathlib import Path
from typing import ClassVar

import yaml

from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import read_limited
from blip2vqa.utils.strict_json import check_tree, read_json, shown

ENDINGS = (".json", ".yaml", ".yml")
MAX_BYTES = 1 << 18
"""Of a configuration file; a list of a thousand systems is smaller."""


def is_config_file(name: str) -> bool:
    """Whether a name is that of a configuration file."""
    return name.lower().endswith(ENDINGS)


def read_file(path: str | Path, what: str) -> object:
    """Read the value that a JSON or YAML file holds. Raises `InputError` naming it as `what`, for an unreadable file.

    A key that stands twice in one object is refused.
    """
    kind = "YAML" if str(path).lower().endswith((".yaml", ".yml")) else "JSON"
    try:
        if kind == "JSON":
            return read_json(path, finite=False, max_bytes=MAX_BYTES)
        value = yaml.load(read_limited(path, MAX_BYTES).decode("utf-8-sig"), _Loader)
        check_tree(value)
        return value
    except FileNotFoundError as error:
        raise InputError(f"{what} {path}: no such file") from error
    except (ValueError, OSError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{what} {path}: not readable as {kind}: {_reason(error)}") from error


def read_config(path: str | Path, what: str = "configuration") -> dict:
    """Read a JSON or YAML file of options and their values. Raises `InputError` as `read_file`, or where it holds no such."""
    if not Path(path).is_file():
        raise InputError(f"{what} {path}: no such file")
    values = read_file(path, what)
    if not isinstance(values, dict):
        raise InputError(f"{what} {path}: must hold one JSON object (YAML mapping) of option: value")
    return values


def _reason(error: Exception) -> str:
    """Say in one line what is wrong in a file, and at which line and column where YAML's parser tells."""
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        text = f"{said} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(text.replace('in "<unicode string>", position', "at position").split())


class _Loader(yaml.SafeLoader):
    """Reads unquoted words as JSON would: numbers, true, false and null; any other word is text.

    YAML 1.1 takes `no` for false, `1e-4` for text and `2026-01-01` for a date, none of which an option means.
    """

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (self.construct_object(key, deep=True) for key, _ in node.value):
            if not isinstance(key, str):
                raise ValueError(f"the key {shown(key)} is no text")
            if key in seen:
                raise ValueError(f"the key {shown(key)} stands there twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern in (
    ("null", r"null|~|"),
    ("bool", r"true|false"),
    ("int", r"-?(0|[1-9][0-9]*)"),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), None)

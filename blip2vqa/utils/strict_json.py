"""Parses JSON from strangers: UTF-8, no key twice, no bottomless nesting, no value that others would read differently."""

import json
import math

MAX_DEPTH = 16


def parse_json(data: bytes, finite: bool = True) -> object:
    """Parse `data` as JSON and return its value. Raises `ValueError`, with the reason in one line, for what is not plain JSON.

    `finite`: whether NaN and infinity are refused, which Python's own writer writes although JSON has none.
    """
    try:
        text = data.decode("utf-8")
        kept = {"parse_float": _finite_number, "parse_constant": _no_constant} if finite else {}
        value = json.loads(text, object_pairs_hook=_without_repeats, **kept)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _check_tree(value)
    return value


def shown(value: object) -> str:
    """Write a value for a message: in one line of printable ASCII, shortened to about 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} stands there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown(text)} is too large")
    return number


def _check_tree(value: object) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        below = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and any("\ud800" <= letter <= "\udfff" for letter in item):
                raise ValueError("a text in it is no Unicode (half of a surrogate pair)")
        level = below

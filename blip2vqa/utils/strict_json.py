"""Parses JSON from strangers: UTF-8, no key twice, no bottomless nesting, no value that others would read differently."""

import json
import math
from collections import Counter
from pathlib import Path

from blip2vqa.utils.files import read_limited
from blip2vqa.utils.terminal import half_pair

MAX_DEPTH = 16
MAX_KEYS = 100_000
"""In one document of a stranger, all objects together; the header of an adapter's weights has some thousands."""
MAX_BYTES = 256 << 20
"""Of a file that the user's own runs have written; a split of a million images has half of it."""


def read_json(path: str | Path, finite: bool = True, max_bytes: int = MAX_BYTES) -> object:
    """Read a JSON file of at most `max_bytes`, with or without a byte order mark, with any number of keys.

    Raises `OSError`, and `ValueError` as `parse_json` does.
    """
    return parse_json(read_limited(path, max_bytes).removeprefix(b"\xef\xbb\xbf"), finite, max_keys=max_bytes)


def parse_json(data: bytes, finite: bool = True, max_keys: int = MAX_KEYS) -> object:
    """Parse `data` as JSON and return its value. Raises `ValueError`, with the reason in one line, for what is not plain JSON.

    `finite`: whether NaN and infinity are refused, which Python's own writer writes although JSON has none.
    """
    keys = 0

    def without_repeats(pairs: list[tuple[str, object]]) -> dict:
        nonlocal keys
        found = dict(pairs)
        keys += len(pairs)
        if keys > max_keys:
            raise ValueError(f"more than {max_keys:,} keys")
        if len(found) < len(pairs):
            key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise ValueError(f"the key {shown(key)} stands there twice")
        return found

    try:
        text = data.decode("utf-8")
        kept = {"parse_float": _finite_number, "parse_constant": _no_constant} if finite else {}
        value = json.loads(text, object_pairs_hook=without_repeats, **kept)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_tree(value)
    return value


def shown(value: object) -> str:
    """Write a value for a message: in one line of printable ASCII, shortened to about 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {shown(text)} is too large")
    return number


def check_tree(value: object) -> None:
    """Raise `ValueError` for a value that is nested too deeply, also into itself, or holds a text that is no Unicode."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        below, seen = [], set()  # YAML's aliases may name one list a million times
        for item in level:
            if isinstance(item, dict | list):
                if id(item) in seen:
                    continue
                seen.add(id(item))
                below += [*item.keys(), *item.values()] if isinstance(item, dict) else item
            elif isinstance(item, str) and half_pair(item):
                raise ValueError("a text in it is no Unicode (half of a surrogate pair)")
        level = below

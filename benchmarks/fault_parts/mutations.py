"""Ways in which a file is damaged, or was never what it seems: each takes bytes and a source of chance, and returns bytes."""

import gzip
import json
import random
import re
from collections.abc import Callable

JUNK = (
    None, True, 0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", " ", "\x00", "\x1b[2J", "x" * 400, "x" * 70_000,
    "\ud83d", "../..", "/etc/passwd", "=1+1", [], {}, [[]], [None], {"": None}, ["a", "b"], {"answer": {}}, "NaN", "1e999",
)  # fmt: skip
CELLS = (
    "",
    '"',
    '""',
    "\n",
    "\x00",
    "\ud83d",
    "1e999",
    "nan",
    "x" * 70_000,
    "../../x.png",
    "\x1b[2J",
    "[1, 2]",
    "a|b",
    ",",
    "\t",
)
DEEP = 3000


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def lose(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 100)) + data[end:]


def splice(data: bytes, rng: random.Random) -> bytes:
    (start, end), place = _span(data, rng), rng.randrange(len(data))
    return data[:place] + data[start:end] + data[place + end - start :]


def zero_page(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    size = min(rng.choice((1, 16, 512, 4096)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\x00", b"\n", rng.randbytes(40), data, b"\xef\xbb\xbf"))


def replace_all(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (b"", b"\x00" * len(data), rng.randbytes(100), b"null", b"[]", b"{}", b"\xff\xfe", b"<html></html>")
    )


def huge_numbers(data: bytes, rng: random.Random) -> bytes:
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not numbers:
        return flip(data, rng)
    number = rng.choice(numbers)
    other = rng.choice((b"9" * 30, b"1e999", b"-1", b"NaN", b"Infinity", b"1" * 5000, b"0.5", b"", b'"7"'))
    return data[: number.start()] + other + data[number.end() :]


def half_pair(data: bytes, rng: random.Random) -> bytes:
    """Put half of a surrogate pair into a text: escaped, and encoded as no encoder would."""
    texts = list(re.finditer(rb"[A-Za-z]{2,}", data))
    place = rng.choice(texts).start() + 1 if texts else 0
    return data[:place] + rng.choice((b"\\ud83d", "\ud83d".encode(errors="surrogatepass"))) + data[place:]


def cells(data: bytes, rng: random.Random) -> bytes:
    """Put something else into a cell of a table, or lose, add or repeat one."""
    parts = re.split(rb"([,\t\n])", data)
    place = 2 * rng.randrange((len(parts) + 1) // 2)
    cell = rng.choice(CELLS).encode(errors="surrogatepass")
    parts[place] = rng.choice((cell, b'"%s"' % cell, parts[place] + cell, b"", parts[place] + b"," + parts[place]))
    return b"".join(parts)


BYTES: tuple[Callable, ...] = (flip, cut, lose, repeat, splice, zero_page, append, replace_all)
TEXTS = (*BYTES, huge_numbers, half_pair, cells)


def json_value(value: object, rng: random.Random) -> str:
    """Change one place of a value: its kind, a number, a key; write a key twice, or nest without an end. Returns JSON."""
    places = [((), value)]
    for path, item in places:
        inside = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        places += [((*path, key), below) for key, below in inside]
    path, item = rng.choice(places)
    dicts = [place for place in places if isinstance(place[1], dict) and place[1]]
    kind = rng.choice(("junk", "junk", "wrap", "lose", "rename", "twice", "deep", "many"))
    if kind == "junk" or not path:
        return json.dumps(_put(value, path, rng.choice(JUNK)))
    if kind == "wrap":
        return json.dumps(_put(value, path, rng.choice(([item], {"a": item}, str(item), [item, item]))))
    if kind == "deep":
        left, right = rng.choice((("[", "]"), ('{"a":', "}")))
        return json.dumps(_put(value, path, "@here")).replace('"@here"', f"{left * DEEP}1{right * DEEP}")
    if kind == "many":
        return json.dumps(_put(value, path, {f"k{number}": number for number in range(20_000)}))
    if not dicts:
        return json.dumps(_put(value, path, rng.choice(JUNK)))
    path, item = rng.choice(dicts)
    key = rng.choice(list(item))
    if kind == "twice":
        return json.dumps(_put(value, path, item | {"@again": rng.choice(JUNK)})).replace('"@again"', json.dumps(key))
    kept = {name: below for name, below in item.items() if name != key}
    return json.dumps(
        _put(value, path, kept | ({rng.choice((f"{key}x", key.upper(), "")): item[key]} if kind == "rename" else {}))
    )


def json_text(data: bytes, rng: random.Random) -> bytes:
    """Change one place of a JSON document, or of one line of JSONL."""
    lines = data.decode().splitlines(keepends=True)
    try:
        return json_value(json.loads(data), rng).encode()
    except ValueError:
        place = rng.randrange(len(lines))
        lines[place] = json_value(json.loads(lines[place]), rng) + "\n"
        return "".join(lines).encode()


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    """Change one place of the header, whose length fits again."""
    size = int.from_bytes(data[:8], "little")
    header = json_value(json.loads(data[8 : 8 + size]), rng).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def gzipped(change: Callable) -> Callable:
    """Damage what is packed, with a checksum that fits, or the packed file."""

    def changed(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return rng.choice(BYTES)(data, rng)
        return gzip.compress(change(gzip.decompress(data), rng), mtime=0)

    return changed


def one_of(*changes: Callable) -> Callable:
    def change(data: bytes, rng: random.Random) -> bytes:
        return rng.choice(changes)(data, rng)

    return change


JSON = one_of(json_text, json_text, json_text, *TEXTS)
TABLE = one_of(*TEXTS, cells, cells)
WEIGHTS = one_of(safetensors_header, *BYTES)
BINARY = one_of(*BYTES)
TEXT = one_of(*TEXTS)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 7, 100, 5000)))


def _put(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {key: _put(below, rest, new) if key == first else below for key, below in value.items()}
    return [_put(below, rest, new) if place == first else below for place, below in enumerate(value)]

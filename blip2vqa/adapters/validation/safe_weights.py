"""Check an adapter's safetensors file before it is loaded: places, shapes, finite values.

The format: 8 bytes with the header's length, the header in JSON (name → dtype, shape, place), then the tensors' bytes.
https://huggingface.co/docs/safetensors/index#format
"""

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.adapters.validation.keys import SAVE_AGAIN
from blip2vqa.adapters.validation.schema import PLAIN
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.strict_json import parse_json, shown
from blip2vqa.utils.threads import one_thread

MAX_WEIGHTS = 4 << 30
MAX_HEADER = 4 << 20
"""In bytes; an adapter of every layer of a base has a header of some 100 KB."""
TYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "I64": ("int64", 8),
    "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1), "BOOL": ("bool", 1),
}  # fmt: skip
"""The format's name → torch's, and bytes."""
_FLOATS = ("F64", "F32", "F16", "BF16")
_NAMED = re.compile(r"\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)\.(?!weight$|bias$)\w")
_TOKENS = re.compile(r"\.(?:embed_tokens|shared|lm_head|word_embeddings)\.(?:base_layer\.)?weight$")
_LORA = re.compile(r"(.+)\.lora_(?:(A|B)\.weight|(magnitude)_vector(?:\.weight)?|B\.(bias))")


@dataclass(frozen=True)
class Place:
    """One tensor in a file; its bytes begin at `begin`, counted from the file's beginning."""

    dtype: str
    """As the format calls it; one of `TYPES`."""
    shape: tuple[int, ...]
    begin: int
    size: int


def read_header(file: Path) -> dict[str, Place]:
    """Read the place of every tensor by its name. Raises `InputError` where the header does not describe the file exactly."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        first = stream.read(8)
        if size > MAX_WEIGHTS:
            raise InputError(f"has {size:,} bytes; at most {MAX_WEIGHTS:,} are read")
        if size < 8:
            raise InputError(f"has {size} bytes, too few for a header")
        length = struct.unpack("<Q", first)[0]
        if length > min(MAX_HEADER, size - 8):
            if first[:4] == b"PK\x03\x04" or re.match(rb"\x80[\x02-\x05]", first):
                raise InputError("is a pickle by its first bytes, whatever its name says")
            raise InputError(
                f"says that its header has {length:,} bytes, of {size:,} in the file (at most {MAX_HEADER:,} are read)"
            )
        data = stream.read(length)
    try:
        header = parse_json(data)
    except ValueError as error:
        raise InputError(f"its header is not readable as JSON: {error}") from error
    if not isinstance(header, dict):
        raise InputError(f"its header is {shown(header)}, not an object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise InputError(f"its __metadata__ is {shown(notes)}; it has to be an object of texts")
    start = 8 + length
    places, problems = {}, []
    for name, entry in header.items():
        place = _place(entry, start, size)
        if not PLAIN.fullmatch(name):
            problems.append(f"{shown(name)} is no tensor's name (letters, digits, '.', '_', '-')")
        elif isinstance(place, str):
            problems.append(f"{name}: {place}")
        else:
            places[name] = place
    raise_all(problems)
    end = start
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].size)):
        if place.begin != end:
            kind = "overlap" if place.begin < end else "leave a gap"
            raise InputError(
                f"{name}: its bytes begin at {place.begin - start}, after {end - start}: the tensors {kind}"
            )
        end = place.begin + place.size
    if end != size:
        raise InputError(f"has {size - end:,} bytes that belong to no tensor")
    return places


def _place(entry: object, start: int, size: int) -> Place | str:
    """Return the place of one tensor, or what is wrong with its entry in the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return f"is {shown(entry)}; it has to have dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in TYPES:
        return f"its dtype is {shown(dtype)}; known are {', '.join(TYPES)}"
    if not _are_counts(shape) or len(shape) > 8:
        return f"its shape is {shown(shape)}; it has to be a list of whole numbers"
    if not _are_counts(offsets) or len(offsets) != 2:
        return f"its data_offsets are {shown(offsets)}; they have to be two whole numbers"
    begin, end = offsets
    if not begin <= end <= size - start:
        return f"its data_offsets {shown(offsets)} are no part of the {size - start:,} bytes in the file"
    needed = math.prod(shape) * TYPES[dtype][1]
    if needed != end - begin:
        return f"{dtype} {shown(shape)} is not {end - begin:,} bytes"
    return Place(dtype, tuple(shape), start + begin, end - begin)


def _are_counts(values: object) -> bool:
    # Sizes beyond 63 bits overflow in the libraries that read them.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def check_shapes(places: dict[str, Place], config: dict) -> list[str]:
    """List what does not fit the (checked) configuration: A is [r, in], B [out, r], in pairs; magnitudes and biases [out].

    Beside them may be what PEFT was told to save whole, and the base's biases where they are trained. `places`: by plain keys.
    """
    empty = [key for key, place in places.items() if not place.size and (len(place.shape) == 1 or "lora_" not in key)]
    if empty:
        return [
            f"{len(empty)} of its {len(places)} tensors have no elements ({empty[0]} the first): each process of DeepSpeed or "
            "FSDP held a part; gather the parts (stage3_gather_16bit_weights_on_model_save), then save it again"
        ]
    named = [key for key in places if _NAMED.search(key)]
    if named:
        return [
            f"{len(named)} of its {len(places)} keys hold the adapter's name ({named[0]} the first), a kind of LoRA weight "
            f"that is not read; {SAVE_AGAIN}"
        ]
    problems, strays, shapes = [], [], {"A": {}, "B": {}, "magnitude": {}, "bias": {}}
    for key, place in places.items():
        found = _LORA.fullmatch(key)
        kind = found[found.lastindex] if found else None
        if kind and (kind != "bias" or config.get("lora_bias")):
            shapes[kind][found[1]] = list(place.shape)
        elif "lora_" in key:
            problems.append(
                f"{key}: is a kind of LoRA weight that is not supported, or that the configuration does not have"
            )
        elif _is_of_the_base(key, config):
            strays.append(key)
        if "lora_" in key and place.dtype not in _FLOATS:
            problems.append(f"{key}: holds whole numbers; LoRA needs fractions")
    down, up, magnitudes, biases = shapes.values()
    if not down and not up:
        problems.append("holds no LoRA weights")
    elif strays:
        problems.append(_strays(strays, places))
    problems += [f"{name}: has A without B" for name in down.keys() - up.keys()]
    problems += [f"{name}: has B without A" for name in up.keys() - down.keys()]
    order = {name: number for number, name in enumerate(config.get("rank_pattern") or ())}
    for name in down.keys() & up.keys():
        rank, a, b = _rank(name, order, config), down[name], up[name]
        if len(a) != 2 or a[0] != rank or a[1] == 0:
            problems.append(f"{name}: A is {a}; with the configuration's rank it has to be [{rank}, in]")
        elif len(b) != 2 or b[1] != rank or b[0] == 0:
            problems.append(f"{name}: B is {b}; with the configuration's rank it has to be [out, {rank}]")
        elif magnitudes.get(name, b[:1]) != b[:1]:
            problems.append(f"{name}: DoRA's magnitudes are {magnitudes[name]}; they have to be {b[:1]}")
        elif biases.get(name, b[:1]) != b[:1]:
            problems.append(f"{name}: the bias of B is {biases[name]}; it has to be {b[:1]}")
    dora = (down.keys() & up.keys()) if config.get("use_dora") else set()
    problems += [f"{name}: has no magnitudes, although use_dora is true" for name in dora - magnitudes.keys()]
    problems += [f"{name}: has magnitudes of DoRA, although use_dora is not true" for name in magnitudes.keys() - dora]
    return sorted(problems)


def _is_of_the_base(key: str, config: dict) -> bool:
    """Tell whether a weight beside LoRA is one that PEFT was not told to save: a part of the base that came along."""
    if key.endswith(".bias") and config.get("bias", "none") != "none":
        return False
    if _TOKENS.search(key) and any(name in config["target_modules"] for name in ("embed_tokens", "lm_head")):
        return False  # which PEFT then saves, too
    inner = (
        ".modules_to_save." in key or ".original_module." in key
    )  # as the wrapped model calls them, not PEFT's files
    return inner or not any(f"{part}." in key for part in config.get("modules_to_save") or ())


def _strays(keys: list[str], places: dict[str, Place]) -> str:
    """Say what weights of the base an adapter holds; the table of tokens, which PEFT saves when it was resized, first."""
    first = next((key for key in keys if _TOKENS.search(key)), keys[0])
    said = f"holds {len(keys)} weights of the base beside LoRA ({first} {list(places[first].shape)} the first)"
    if first == keys[0] and not _TOKENS.search(first):
        return f"{said}, which may be trained or not; {SAVE_AGAIN}"
    return f"{said}: tokens were added for its training, which no base here has; train it without new tokens, or {SAVE_AGAIN}"


def _rank(module: str, order: dict[str, int], config: dict) -> int:
    """Find a module's rank as PEFT's `get_pattern_key`: by the first entry that is its name, or the end of it after a dot."""
    parts = module.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))] if order else []
    found = min((end for end in ends if end in order), key=order.get, default=None)
    return config["r"] if found is None else config["rank_pattern"][found]


def not_finite(file: Path, places: dict[str, Place]) -> list[str]:
    """Name the tensors that hold NaN or infinity; they are read block by block."""
    import torch  # whose import takes a second, which a list of adapters has no use for

    found = []
    with one_thread(), open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as data:
        for name, place in places.items():
            if not place.size or place.dtype not in _FLOATS:
                continue
            kind, size = TYPES[place.dtype]
            values = torch.frombuffer(data, dtype=getattr(torch, kind), count=place.size // size, offset=place.begin)
            # Smallest and largest are NaN where one value is; several times as fast as asking every value.
            if not all(torch.stack(block.aminmax()).isfinite().all() for block in values.split(1 << 18)):
                found.append(name)
            del values  # which holds on to the file
    return found

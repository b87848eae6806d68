"""Adapters whose weights have to be refused, for what the file's header says or for what the tensors hold."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from helpers.malformed_adapters import WEIGHTS, Bad, edited, file_of, setting

A, B = ".lora_A.weight", ".lora_B.weight"


def split(file: Path) -> tuple[dict, bytes]:
    """(header, the tensors' bytes) of a safetensors file."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(file: Path, header: object, body: bytes) -> None:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + body)


def first(header: dict, end: str = A) -> str:
    return next(key for key in header if key.endswith(end))


def header(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """`change` alters the header in place, or hands back another one."""

    def make(folder: Path) -> None:
        old, body = split(folder / WEIGHTS)
        new = change(old)
        join(folder / WEIGHTS, old if new is None else new, body)

    return make


def entry(key: str, value: object, end: str = A) -> Callable[[Path], None]:
    return header(lambda old: old[first(old, end)].update({key: value}))


def renamed(change: Callable[[str], str], end: str = A) -> Callable[[Path], None]:
    def make(old: dict) -> dict:
        key = first(old, end)
        return {change(name) if name == key else name: value for name, value in old.items()}

    return header(make)


def tensors(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Honest files of other tensors."""

    def make(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS)

    return make


def value(number: float, dtype: torch.dtype, place: int, end: str = A) -> Callable[[Path], None]:
    def change(held: dict) -> None:
        for key in held:
            held[key] = held[key].to(dtype)
        held[first(held, end)].view(-1)[place] = number

    return tensors(change)


def reshaped(shape: Callable[[torch.Tensor], torch.Tensor], end: str = A) -> Callable[[Path], None]:
    def change(held: dict) -> None:
        key = first(held, end)
        held[key] = shape(held[key]).contiguous()

    return tensors(change)


def length(change: Callable[[int], int]) -> Callable[[Path], None]:
    def alter(data: bytes) -> bytes:
        return struct.pack("<Q", change(struct.unpack("<Q", data[:8])[0])) + data[8:]

    return edited(WEIGHTS, alter)


def _shift(old: dict, by: int) -> None:
    for name, place in old.items():
        if name != "__metadata__":
            place["data_offsets"] = [offset + by for offset in place["data_offsets"]]


def _overlap(old: dict) -> None:
    one, two = [key for key in old if key.endswith(A) and old[key]["shape"] == old[first(old)]["shape"]][:2]
    old[two]["data_offsets"] = old[one]["data_offsets"]


def _twice(folder: Path) -> None:
    old, body = split(folder / WEIGHTS)
    key = json.dumps(first(old))
    head = json.dumps(old).encode()
    join(folder / WEIGHTS, b"{" + f"{key}: {json.dumps(old[first(old)])}, ".encode() + head[1:], body)


def _sparse(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (4 << 30) + 1)


def _wide_bias(folder: Path) -> None:
    setting("lora_bias", True)(folder)
    tensors(lambda held: held.update({first(held, B).replace("weight", "bias"): torch.ones(2)}))(folder)


def _bad_weights() -> dict[str, Bad]:
    lying = {
        "empty": (file_of(WEIGHTS, b""), "too few"), "seven": (file_of(WEIGHTS, bytes(7)), "too few"),
        "zeros": (file_of(WEIGHTS, bytes(64)), "JSON"), "pointer": (file_of(WEIGHTS, b"version https://git-lfs"), "header"),
        "zip": (file_of(WEIGHTS, b"PK\x03\x04" + bytes(40)), "pickle"),
        "pickle": (file_of(WEIGHTS, b"\x80\x02" + bytes(40)), "pickle"),
        "length-huge": (length(lambda n: 1 << 63), "header has"), "length-max": (length(lambda n: 2**64 - 1), "header has"),
        "length-file": (length(lambda n: 10**7), "header has"), "length-zero": (length(lambda n: 0), "JSON"),
        "length-less": (length(lambda n: n - 9), "JSON"), "length-more": (length(lambda n: n + 8), "JSON"),
        "cut-half": (edited(WEIGHTS, lambda data: data[: len(data) // 2]), "no part of"),
        "cut-one": (edited(WEIGHTS, lambda data: data[:-1]), "no part of"),
        "more": (edited(WEIGHTS, lambda data: data + b"x"), "belong to no tensor"),
        "oversize": (_sparse, "at most"), "twice": (_twice, "twice"),
        "array": (header(lambda old: []), "not an object"), "null": (header(lambda old: b"null"), "not an object"),
        "latin": (header(lambda old: b'{"\xe9": 1}'), "UTF-8"), "nan": (header(lambda old: b'{"a": NaN}'), "NaN"),
        "deep": (header(lambda old: b"[" * 100_000), "nested"), "nothing": (header(lambda old: {}), "belong to no tensor"),
        "metadata": (header(lambda old: old.update(__metadata__=[1])), "__metadata__"),
        "metadata-number": (header(lambda old: old.update(__metadata__={"format": 1})), "__metadata__"),
        "entry-null": (header(lambda old: old.update({first(old): None})), "dtype, shape"),
        "entry-empty": (header(lambda old: old.update({first(old): {}})), "dtype, shape"),
        "entry-more": (header(lambda old: old[first(old)].update(code="x")), "dtype, shape"),
        "gap": (header(lambda old: _shift({first(old, B): old[first(old, B)]}, 4) or None), "tensors"),
        "shifted": (header(lambda old: _shift(old, 4)), "no part of"), "overlap": (header(_overlap), "overlap"),
    }  # fmt: skip
    for number, dtype in enumerate(("F33", "float32", "", None, 4, ["F32"], "C64", "F4", "f32")):
        lying[f"dtype-{number}"] = entry("dtype", dtype), "dtype"
    for number, dtype in enumerate(("F64", "F16", "BF16", "I8")):
        lying[f"dtype-other-{number}"] = entry("dtype", dtype), "is not"
    shapes = (None, "4", [-4, -64], [4.0, 64], [True, 256], [4, "64"], [2**63, 2], [2**64, 0], [1] * 9, {"0": 4})
    for number, shape in enumerate(shapes):
        lying[f"shape-{number}"] = entry("shape", shape), "shape"
    for number, shape in enumerate(([4, 65], [4], [], [0], [2**40, 2**22], [4, 64, 2])):
        lying[f"shape-size-{number}"] = entry("shape", shape), "is not"
    places = (None, [0], [0, 1, 2], [-8, 1016], [0.0, 1024.0], ["0", "1024"], {"begin": 0}, [2**63, 2**63])
    for number, place in enumerate(places):
        lying[f"offsets-{number}"] = entry("data_offsets", place), "data_offsets"
    for number, place in enumerate(([1024, 0], [0, 2**62], [10**9, 10**9 + 1024])):
        lying[f"offsets-out-{number}"] = entry("data_offsets", place), "no part of"
    names = (
        "a b",
        "../../etc/passwd",
        "/abs",
        "ключ",
        "a\nb",
        "a;b",
        "",
        "a\x00b",
        "x" * 600,
        "a\\b",
        "\x1b[31m",
        "{0}",
    )
    for number, name in enumerate(names):
        lying[f"name-{number}"] = renamed(lambda key, name=name: name), "no tensor's name"

    unfit = {
        "nan": (value(float("nan"), torch.float32, 0), "NaN"), "inf": (value(float("inf"), torch.float32, 5), "NaN"),
        "minus-inf": (value(float("-inf"), torch.float32, -1, B), "NaN"),
        "nan-half": (value(float("nan"), torch.float16, 7), "NaN"), "inf-half": (value(1e6, torch.float16, 3, B), "NaN"),
        "nan-bf16": (value(float("nan"), torch.bfloat16, 1), "NaN"), "inf-bf16": (value(3.4e38 * 2, torch.bfloat16, 2), "NaN"),
        "nan-double": (value(float("nan"), torch.float64, 2, B), "NaN"),
        "whole": (reshaped(lambda x: x.to(torch.int32)), "whole numbers"),
        "bool": (reshaped(lambda x: x > 0, B), "whole numbers"),
        "rank-a": (reshaped(lambda x: x[:2]), "A is"), "rank-b": (reshaped(lambda x: x[:, :2], B), "B is"),
        "flat-a": (reshaped(lambda x: x.flatten()), "A is"), "deep-a": (reshaped(lambda x: x[:, :, None, None]), "A is"),
        "turned-a": (reshaped(lambda x: x.T), "A is"), "turned-b": (reshaped(lambda x: x.T, B), "B is"),
        "no-input": (reshaped(lambda x: x[:, :0]), "A is"), "no-output": (reshaped(lambda x: x[:0], B), "B is"),
        "no-a": (tensors(lambda held: held.pop(first(held))), "B without A"),
        "no-b": (tensors(lambda held: held.pop(first(held, B))), "A without B"),
        "none": (tensors(dict.clear), "no LoRA"),
        "only-whole": (tensors(lambda held: (held.clear(), held.update(x=torch.ones(2)))), "no LoRA"),
        "adapter-name": (renamed(lambda key: key.replace(A, ".lora_A.default.weight")), "kind of LoRA"),
        "embedding": (renamed(lambda key: key.replace(A, ".lora_embedding_A")), "kind of LoRA"),
        "bias": (tensors(lambda held: held.update({first(held, B).replace("weight", "bias"): torch.ones(2)})), "kind of LoRA"),
        "bias-shape": (_wide_bias, "bias of B"), "dora": (setting("use_dora", True), "no magnitudes"),
        "magnitude": (
            tensors(lambda held: held.update({first(held).replace(A, ".lora_magnitude_vector"): torch.ones(2)})), "magnitudes"
        ),
        "rank-said": (setting("r", 8), "A is"), "rank-pattern": (setting("rank_pattern", {"q_proj": 3}), "A is"),
    }  # fmt: skip
    found = {f"header-{name}": Bad(make, reason) for name, (make, reason) in lying.items()}
    return found | {f"tensors-{name}": Bad(make, reason) for name, (make, reason) in unfit.items()}


TENSORS = _bad_weights()
"""Name → what is wrong."""

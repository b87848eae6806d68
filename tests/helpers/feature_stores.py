"""A feature store's contents, for its tests."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import torch

from blip2vqa.features.cache import FeatureStore
from blip2vqa.features.key import FeatureKey

KEY = FeatureKey(
    "query_output", "ab" * 32, {"size": {"height": 8, "width": 8}, "do_resize": True}, torch.bfloat16, (2, 3)
)
fork = multiprocessing.get_context("fork")  # a real process, without the seconds of importing torch anew


def digests(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(start, start + count)]


def values(names: list[str], key: FeatureKey = KEY) -> torch.Tensor:
    """Features that tell their image: no two alike."""
    rows = [torch.randn(key.shape, generator=torch.Generator().manual_seed(int(name[:12], 16))) for name in names]
    return torch.stack(rows).to(key.dtype)


def fill(store: FeatureStore, names: list[str]) -> None:
    with store.writer() as writer:
        writer.add(names, values(names, store.key))


def shards(store: FeatureStore) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in shape, dtype and bits, so that NaN and -0.0 count."""
    bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other)]
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(*bits)


def in_child(work, *arguments) -> int:
    """Exit code of a forked process that does `work`: 0 when it returned, 1 when it raised, -9 when it was killed."""
    process = fork.Process(target=work, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def metadata_of(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]

"""The key of kept features: everything that they depend on but the picture itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import torch

# Of the store's files. Another number is another folder: a newer version's files are never read nor evicted here.
FORMAT = 1


@dataclass(frozen=True)
class FeatureKey:
    """Identifies what features were made by; features of equal keys can stand for each other."""

    stage: str
    """Output of the frozen stage: query_output or image_embeds"""
    weights: str
    """`fingerprint` of the frozen weights that make it"""
    settings: dict
    """Of image processor and towers, in JSON's types"""
    dtype: torch.dtype
    shape: tuple[int, ...]
    """Of one image's features: (num_query_tokens, hidden) or (patches + 1, hidden)"""

    def as_json(self) -> dict:
        """Return all fields and the format, in JSON's types."""
        return {"format": FORMAT} | asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")}

    @property
    def image_bytes(self) -> int:
        """Return the size of one image's features in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    @cached_property
    def name(self) -> str:
        """Return the name of the folder of these features: the format and a hash of all fields."""
        canonical = json.dumps(self.as_json(), sort_keys=True, allow_nan=False)
        return f"v{FORMAT}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Compute the SHA-256 of the tensors' names, dtypes, shapes and bits, whatever their order and device; in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """View the bits of a tensor, row by row, from any device."""
    # By way of uint8, as NumPy has no bfloat16; flat, as a scalar cannot be viewed so.
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data

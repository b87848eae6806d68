"""Stored features as a run reads them: mapped from the disk, each image's checked by its checksum whenever it is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import safe_open

from blip2vqa.features.key import FeatureKey, raw_bytes
from blip2vqa.utils.errors import Failure, InputError


@dataclass(frozen=True)
class Row:
    """Where the features of an image are, and what they must be."""

    shard: Path
    row: int
    checksum: str


@dataclass
class StoredFeatures:
    """Features of the images that `FeatureStore.open` was asked for, read from mapped files: the operating system keeps
    in memory what there is room for. Shared with forked workers; pickled, it is the paths, which are mapped again."""

    key: FeatureKey
    places: dict[str, Row]
    """By digest."""
    shards: dict[Path, torch.Tensor]

    @property
    def name(self) -> str:
        """Return the stage's name, under which a batch holds these features."""
        return self.key.stage

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        """Copy the features of these images, in this order: [n, *shape]. Raises `KeyError` for unknown ones, and `Failure`
        for those that were damaged since they were opened."""
        places = [self.places[digest] for digest in digests]
        values = torch.empty((len(places), *self.key.shape), dtype=self.key.dtype)
        for value, place in zip(values, places, strict=True):
            value.copy_(self.shards[place.shard][place.row])
            if row_checksum(value) != place.checksum:
                raise Failure(
                    f"{place.shard}: damaged since this run opened it (checksum of row {place.row}); check the disk; the "
                    "next run computes it again"
                )
        return values

    def __getstate__(self) -> dict:
        return self.__dict__ | {"shards": list(self.shards)}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        try:
            self.shards = {path: safe_open(path, "pt").get_tensor("features") for path in state["shards"]}
        except FileNotFoundError as error:
            raise InputError(
                f"stored features: {error}: deleted by another run in the meantime; start again"
            ) from error


def row_checksum(features: torch.Tensor) -> str:
    """Compute the XXH3 checksum, 64 bits in hexadecimal, of one image's features."""
    return xxhash.xxh3_64_hexdigest(raw_bytes(features))

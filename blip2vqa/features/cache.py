"""Keeps features of images on disk, so that a later run need not compute them: keyed by content, bounded, safe to share.

    ROOT/v1-<key>/space.json            what made the features, for people
    ROOT/v1-<key>/<random>.safetensors  a shard: `features` [n, *shape]; digests and checksums of its n images as metadata
    ROOT/v1-<key>/<random>.sums         the checksums of a shard that an earlier version wrote, as they were found first

Shards never change and their names never meet, so any number of processes and runs may read, write and evict at the same
time without a lock. The same image in two shards costs its bytes and nothing else. What is read is checked by its checksum:
a damaged row counts as missing.
"""

import contextlib
import json
import logging
import os
import re
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from blip2vqa.features.key import FORMAT, FeatureKey, raw_bytes
from blip2vqa.features.stored import Row, StoredFeatures, row_checksum
from blip2vqa.utils.errors import InputError, file_error
from blip2vqa.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic

logger = logging.getLogger(__name__)

# A killed run loses one shard at most; a writer holds one in memory, twice at its end.
SHARD_IMAGES = 256
SHARD_BYTES = 64 * 2**20
ROWS = "row_checksums"
"""In a shard's metadata: `SUM_DIGITS` digits for each row, one after the other."""
METADATA = {"format_version", "space", "digests", "checksum", ROWS}
SUM_DIGITS = 16
SUMS = ".sums"
"""Ending of the file beside a shard of an earlier version that holds what `ROWS` would."""
STALE_SECONDS = 24 * 3600  # a temporary file this old is of a run that was killed

# Nothing else below the root is counted or deleted: people keep weights of the same suffix in the folder next door.
_SPACE_NAME = re.compile(rf"v{FORMAT}-[0-9a-f]{{16}}")
_SHARD_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")


class FeatureStore:
    """Reads and writes the features of one `FeatureKey` in the folder `root`, which other keys share.

    Images go by the SHA-256 of their files' bytes, in hexadecimal. Nothing is made on disk before something is
    written, and reading works in a folder that cannot be written to. Raises `InputError` when `root` cannot be a folder.
    """

    def __init__(self, root: str | Path, key: FeatureKey):
        self.root, self.key = Path(root), key
        self.folder = self.root / key.name
        self._warned: set[str] = set()
        self._sound: set[Row] = set()

    def missing(self, digests: Iterable[str]) -> list[str]:
        """List the images that have no features here, in their order, each once.

        Reads the headers of the shards and the features asked for, which must agree with their checksums, and marks the
        shards that hold them as used.
        """
        places, _ = self._find(digests)
        return [digest for digest, place in places.items() if place is None]

    @contextlib.contextmanager
    def writer(self) -> Iterator["FeatureWriter"]:
        """Yield a `FeatureWriter`; what was added is also kept when the block ends in an exception or Ctrl-C.

        Raises `InputError` when the folder cannot be written to (at the start) or the disk is full.
        """
        about = "Features of images, computed by blip2vqa and kept for later runs. Safe to delete."
        # Written anew every time: that the folder cannot be written to should be known before a shard's worth of computing.
        with self._writing():
            write_json_atomic(self.folder / "space.json", {"about": about} | self.key.as_json())
        writer = FeatureWriter(self)
        try:
            yield writer
        except BaseException:
            try:
                writer.flush()
            except InputError as second:
                logger.warning("%s", second)  # what went wrong first is what the user should see
            raise
        writer.flush()

    def open(self, digests: Iterable[str]) -> "StoredFeatures":
        """Map the features of these images into memory. Raises `KeyError` with how many have none, which may be more
        than `missing` said a moment ago when another run evicts at the same time."""
        places, shards = self._find(digests)
        left = sum(place is None for place in places.values())
        if left:
            raise KeyError(f"{left} of {len(places)} images have no {self.key.stage} in {self.folder}")
        maps = {path: handle.get_tensor("features") for path, handle in shards.items()}
        return StoredFeatures(self.key, places, maps)

    def _find(self, digests: Iterable[str]) -> tuple[dict[str, Row | None], dict[Path, safe_open]]:
        """Find the sound row of each image, None where there is none, and the shards in use, which are marked as used."""
        places: dict[str, Row | None] = dict.fromkeys(digests)
        left, shards, damaged = set(places), {}, {}
        for path, handle, known, sums in self._shards() if left else ():
            wanted = {digest: row for row, digest in enumerate(known) if digest in left}
            found = self._sound_rows(path, handle, wanted, sums) if wanted else {}
            damaged |= dict.fromkeys(wanted.keys() - found.keys(), path)
            if found:
                places |= found
                left -= found.keys()
                shards[path] = handle
                with contextlib.suppress(OSError):  # gone by now, or not ours to touch
                    os.utime(path)
            if not left:
                break
        for path, count in Counter(path for digest, path in damaged.items() if digest in left).items():
            images = "1 image is" if count == 1 else f"{count} images are"
            self._warn(path, f"damaged (checksum): {images} computed again")
        return places, shards

    def _sound_rows(self, path: Path, handle: safe_open, wanted: dict[str, int], sums: str) -> dict[str, Row]:
        """Return those rows, of digest → number, that agree with their checksums. Each is read once by this store."""
        values = handle.get_tensor("features")
        sums = sums or self._sum_up(path, values)
        rows = {
            digest: Row(path, row, sums[row * SUM_DIGITS : (row + 1) * SUM_DIGITS]) for digest, row in wanted.items()
        }
        self._sound |= {
            row for row in rows.values() if row not in self._sound and row_checksum(values[row.row]) == row.checksum
        }
        return {digest: row for digest, row in rows.items() if row in self._sound}

    def _sum_up(self, path: Path, values: torch.Tensor) -> str:
        """Write down the checksums of a shard that has none: one of an earlier version, trusted as it is found first."""
        sums = "".join(map(row_checksum, values))
        with contextlib.suppress(OSError):  # not ours to write to
            write_text_atomic(path.with_suffix(SUMS), sums)
        return sums

    def _warn(self, path: Path, text: str) -> None:
        if path.name not in self._warned:
            self._warned.add(path.name)
            logger.warning("%s: %s", path, text)

    @property
    def nbytes(self) -> int:
        """Return the size of all shards of all keys below the root, in bytes."""
        return sum(status.st_size for _, status in self._all_files(_SHARD_NAME))

    def evict(self, limit_bytes: int, keep: Sequence["StoredFeatures"] = ()) -> int:
        """Delete the least recently used shards of all keys until `nbytes` is at most `limit_bytes`, but none that
        `keep` reads from. Returns the bytes deleted. Broken shards are never used, so their turn comes soon.

        What other processes of this machine have open stays readable for them (POSIX keeps a mapped file's contents).
        """
        for path, status in self._all_files(re.compile(r"\..+\.tmp")):
            if time.time() - status.st_mtime > STALE_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
        kept = {path.name for features in keep for path in features.shards}
        shards = sorted(self._all_files(_SHARD_NAME), key=lambda shard: (shard[1].st_mtime_ns, shard[0].name))
        size, dropped = sum(status.st_size for _, status in shards), 0
        for path, status in shards:
            if size <= limit_bytes:
                break
            if path.name in kept:
                continue
            try:
                path.unlink()
                path.with_suffix(SUMS).unlink(missing_ok=True)
                dropped += status.st_size
            except FileNotFoundError:
                pass  # another run was faster
            except OSError as error:
                logger.warning("%s: cannot be deleted: %s", path, error.strerror)
                continue
            size -= status.st_size
        return dropped

    def _all_files(self, pattern: re.Pattern) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in _listing(self.root, _SPACE_NAME):
            for path in _listing(folder, pattern):
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.stat()

    def _shards(self) -> Iterator[tuple[Path, safe_open, list[str], str]]:
        """Yield path, open file, digests and checksums of each shard of this key whose header can be trusted."""
        for path in _listing(self.folder, _SHARD_NAME):
            try:
                handle = safe_open(path, "pt")
                digests, sums = self._check(path, handle)
            except FileNotFoundError:
                continue  # evicted by another run since it was listed
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                self._warn(path, f"not used, and its images are computed again: {error}")
                continue
            yield path, handle, digests, sums

    def _check(self, path: Path, handle: safe_open) -> tuple[list[str], str]:
        """Return digests and checksums ("": not known yet) of a shard.

        Raises one of several errors when it is not what `_save` writes under this key.
        """
        metadata = handle.metadata() or {}
        if (metadata.get("format_version"), metadata.get("space")) != (str(FORMAT), self.key.name):
            raise ValueError("of another format, or moved here from elsewhere")
        if not metadata.keys() <= METADATA:
            raise ValueError(f"damaged ({', '.join(metadata.keys() - METADATA)} is none of its entries)")
        features = handle.get_slice("features")
        count, *shape = features.get_shape()
        last = features[count - 1 :]
        if last.dtype != self.key.dtype or tuple(shape) != self.key.shape:
            raise ValueError(f"features are {shape} of {last.dtype}")
        if metadata["checksum"] != checksum(metadata["digests"], last):
            raise ValueError("damaged (checksum)")
        digests = json.loads(metadata["digests"])
        if len(digests) != count:
            raise ValueError(f"{count} features of {len(digests)} images")
        beside = path.with_suffix(SUMS)
        sums = metadata.get(ROWS) or (beside.read_bytes().decode("ascii") if beside.exists() else "")
        if sums and len(sums) != count * SUM_DIGITS:
            raise ValueError(f"{count} features and checksums of {len(sums) / SUM_DIGITS:g}")
        return digests, sums

    def _save(self, digests: list[str], values: torch.Tensor) -> None:
        listed = json.dumps(digests)
        metadata = {"format_version": str(FORMAT), "space": self.key.name, "digests": listed}
        metadata["checksum"] = checksum(listed, values[-1:])
        metadata[ROWS] = "".join(map(row_checksum, values))
        data = save({"features": values}, metadata)  # in memory: save_file hides what kind of OSError it met
        with self._writing():
            write_bytes_atomic(self.folder / f"{uuid.uuid4().hex}.safetensors", data)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unusable(self.folder, "written", error) from error


class FeatureWriter:
    """Adds features to a store, a shard at a time; see `FeatureStore.writer`."""

    def __init__(self, store: FeatureStore):
        self._store, key = store, store.key
        self.capacity = max(1, min(SHARD_IMAGES, SHARD_BYTES // key.image_bytes))  # images of a shard
        self._buffer = torch.empty((self.capacity, *key.shape), dtype=key.dtype)
        self._digests: list[str] = []

    def add(self, digests: Sequence[str], values: torch.Tensor) -> None:
        """Add the features [n, *shape] of n images, from any device. Raises `ValueError` for another shape or dtype."""
        key = self._store.key
        if values.dtype != key.dtype or tuple(values.shape) != (len(digests), *key.shape):
            raise ValueError(
                f"features are {list(values.shape)} of {values.dtype}; of {len(digests)} images they must be "
                f"{[len(digests), *key.shape]} of {key.dtype}"
            )
        for digest, value in zip(digests, values.detach().cpu(), strict=True):
            # A copy: the caller may reuse its tensor, and a view would keep the whole batch in memory.
            self._buffer[len(self._digests)] = value
            self._digests.append(digest)
            if len(self._digests) == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard as a shard of its own."""
        if not self._digests:
            return
        try:
            self._store._save(self._digests, self._buffer[: len(self._digests)])
        except InputError:
            self._digests = []  # not tried a second time on the way out; after Ctrl-C it is
            raise
        self._digests = []


def checksum(listed: str, last: torch.Tensor) -> str:
    """Compute the CRC-32 of a shard's list of digests, as JSON, and the features of its last image, in hexadecimal."""
    return f"{zlib.crc32(raw_bytes(last), zlib.crc32(listed.encode())):08x}"


def _listing(folder: Path, pattern: re.Pattern) -> list[Path]:
    """List the paths in a folder whose whole names match, sorted; none when there is no such folder."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if pattern.fullmatch(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(folder, "read", error) from error


def _unusable(folder: Path, verb: str, error: OSError) -> InputError:
    remedy = "name another folder with --feature_cache, or --feature_cache none"
    return file_error(f"features in {folder}: cannot be {verb}", error, remedy)

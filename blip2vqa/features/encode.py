"""Computes the output of the frozen stage once for each distinct image, and keeps it on disk for every run.

Frozen weights always make the same features of an image, so training, evaluation and inference read them from the store, and
the towers leave memory before the language model is loaded.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import PIL.Image
import torch
import transformers
from accelerate import PartialState

from blip2vqa.config.common import KeptFeatures
from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.features.cache import FeatureStore, StoredFeatures
from blip2vqa.features.key import FeatureKey, fingerprint
from blip2vqa.models.family import PIXELS, Family
from blip2vqa.models.loading import LoadedModel
from blip2vqa.utils.distributed import processes_here, run_on_all_ranks
from blip2vqa.utils.errors import InputError, MachineError
from blip2vqa.utils.memory import free_memory
from blip2vqa.utils.progress import show_progress

DECODING_THREADS = 4


class Features(Protocol):
    """Gives the values that a batch starts from, by image; `name` is the stage, which is also their name in the batch."""

    name: str

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        """Return the features of these images, in this order: [n, ...]. Raises `KeyError` for unknown ones."""


@dataclass(frozen=True)
class Pixels:
    """Opens pictures anew for every batch: no features are kept, and every part of the model runs in every step."""

    images: Mapping[str, ImageSource | PIL.Image.Image]
    image_processor: Callable
    name: str = PIXELS

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        """Open the pictures and return their `pixel_values` [n, 3, height, width]."""
        return self.padded(digests)[PIXELS]

    def padded(self, digests: Iterable[str]) -> dict[str, torch.Tensor]:
        """Open the pictures; return `pixel_values` and, where they keep their proportions, `pixel_mask` [n, height, width]."""
        digests = list(digests)
        rows = {digest: row for row, digest in enumerate(dict.fromkeys(digests))}  # each is opened once
        pictures = [self.images[digest] for digest in rows]
        opened = [one if isinstance(one, PIL.Image.Image) else open_image(one) for one in pictures]
        found = self.image_processor(opened, return_tensors="pt")
        index = [rows[digest] for digest in digests]
        return {name: tensor[index] for name, tensor in found.items()}


def encode_images(
    encoder: LoadedModel,
    images: Mapping[str, ImageSource],
    stage: str,
    kept: KeptFeatures,
    *,
    batch_size: int,
    progress: bool = True,
) -> tuple[Features, list[tuple[str, str]]]:
    """Read the features of all images, `{digest: source}`, from the store; `encoder` computes and adds those that are missing.

    Processes of one launch share the work. Returns the features, and `(label, text)` lines that say how many were there and
    how large the store is. Raises `InputError` when the store's folder cannot be written or its disk is too small.
    """
    state, key = PartialState(), _feature_key(encoder, stage)
    store = FeatureStore(kept.folder, key)

    def encode(digests: list[str]) -> None:
        _encode(encoder, digests, images, store, batch_size, progress)

    def encode_share() -> None:
        _check_room(kept.folder, len(missing) * key.image_bytes)
        encode(missing[state.process_index :: state.num_processes])

    def open_all() -> StoredFeatures:
        try:
            return store.open(images)
        except KeyError:  # a slow disk does not show all yet, or another run has dropped some: each process for itself
            encode(store.missing(images))
        try:
            return store.open(images)
        except KeyError as error:
            raise InputError(
                f"features in {kept.folder}: {error.args[0]}: another run, with a lower --feature_cache_limit, drops them "
                "while they are computed; name another --feature_cache, or raise that limit"
            ) from error

    missing = store.missing(images)
    # Every process lists what is missing before any of them adds to it, or their shares would not be of one list.
    state.wait_for_everyone()
    run_on_all_ranks(encode_share)
    here = processes_here()
    if here < state.num_processes:
        # Machines that do not share the folder have only their own share of it so far.
        rest = store.missing(images)
        state.wait_for_everyone()
        run_on_all_ranks(lambda: encode(rest[state.local_process_index :: here]))
    features = run_on_all_ranks(open_all)
    if state.is_local_main_process:
        store.evict(int(kept.limit_gb * 1e9), keep=[features])
    held = store.nbytes
    size = f"{held / 1e6:,.1f} MB" if held < 1e9 else f"{held / 1e9:,.1f} GB"
    note = ", which this run alone needs more of" if held > kept.limit_gb * 1e9 else ""
    return features, [
        ("features", f"{stage} of {len(images):,} images, {len(missing):,} of them new"),
        ("feature cache", f"{kept.folder} holds {size} of at most {kept.limit_gb:g} GB{note}"),
    ]


def load_with_features(
    load: Callable[..., LoadedModel],
    images: Mapping[str, ImageSource],
    family: Family,
    scopes: Iterable[str],
    kept: KeptFeatures | None,
    *,
    batch_size: int,
    progress: bool = True,
) -> tuple[LoadedModel, Features, list[tuple[str, str]]]:
    """Load the parts of a base that a run needs, by `load(parts=…)`, and the features that its batches start from.

    The towers are loaded first, alone, and leave memory before the rest is loaded, so that a run needs the larger of the two
    and not both. `scopes` are adapted; with `kept` None no features are kept.

    Returns the model, the features, and `(label, text)` lines that say which features are kept and why.
    """
    stage, why = family.last_frozen_stage(scopes)
    if kept is None or stage == PIXELS:
        loaded = load(parts=None)
        why = why if stage == PIXELS else "as asked"
        line = ("features", f"none kept, every part runs in every step: {why}")
        return loaded, Pixels(images, loaded.processor.image_processor), [line]
    encoder = load(parts=family.stage(stage).made_by)
    features, lines = encode_images(encoder, images, stage, kept, batch_size=batch_size, progress=progress)
    del encoder
    free_memory()
    loaded = load(parts=family.rest(stage))
    lines[0] = (lines[0][0], f"{lines[0][1]}: {why}")
    return loaded, features, lines


@dataclass(frozen=True)
class InMemoryFeatures:
    """Holds features of pictures in memory, by digest."""

    name: str
    values: dict[str, torch.Tensor]

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        return torch.stack([self.values[digest] for digest in digests])


@torch.inference_mode()
def encode_in_memory(loaded: LoadedModel, pixels: Pixels, scopes: Iterable[str], batch_size: int) -> Features:
    """Encode a few pictures once and keep their features in memory."""
    stage, _ = loaded.family.last_frozen_stage(scopes)
    if stage == PIXELS:
        return pixels
    look, names, values = stage_maker(loaded, stage), list(pixels.images), {}
    for start in range(0, len(names), batch_size):
        batch = names[start : start + batch_size]
        values |= zip(batch, look(pixels.of(batch).to(loaded.device, loaded.dtype)).cpu(), strict=True)
    return InMemoryFeatures(stage, values)


def stage_maker(loaded: LoadedModel, stage: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that computes a stage from `pixel_values`."""
    return getattr(loaded.base, loaded.family.stage(stage).method)


def _feature_key(encoder: LoadedModel, stage: str) -> FeatureKey:
    config, family, made = encoder.base.config, encoder.family, encoder.family.stage(stage)
    frozen = {name for part in family.parts if part.name in made.made_by for name in part.modules}
    weights = {name: tensor for name, tensor in encoder.base.state_dict().items() if name.split(".")[0] in frozen}
    towers = [getattr(config, name) for name in family.tower_configs]
    settings = {
        "image_processor": encoder.processor.image_processor.to_dict(),
        "towers": [json.loads(tower.to_json_string(use_diff=False)) for tower in towers],
        # They stand for the code that opens, resizes and encodes pictures.
        "versions": {"transformers": transformers.__version__, "pillow": PIL.__version__},
    }
    for part in settings["towers"]:
        for name in ("dtype", "_name_or_path", "transformers_version"):
            part.pop(name, None)
    return FeatureKey(stage, fingerprint(weights), settings, encoder.dtype, made.shape(config))


def _check_room(folder: Path, needed: int) -> None:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed > free:
        raise MachineError(
            f"--feature_cache {folder}: the features need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free there; "
            "name a folder on another disk, or none"
        )


def _open_unchanged(digest: str, source: ImageSource):
    """Open a picture if its bytes are still those that were checked: what is kept under `digest` is kept for good."""
    try:
        data = source.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadImage("its file has changed since it was checked; start again")
        return open_image(data)
    except BadImage as bad:
        raise InputError(f"image {source.name}: {bad.reason}") from bad


def _encode(
    encoder: LoadedModel,
    digests: list[str],
    images: Mapping[str, ImageSource],
    store: FeatureStore,
    batch_size: int,
    progress: bool,
) -> None:
    """Compute features in batches and add them to the store, the next batch's pictures being opened meanwhile."""
    if not digests:
        return  # a store that holds all need not be writable
    run = stage_maker(encoder, store.key.stage)

    def opened(batch: list[str]) -> torch.Tensor:
        pictures = [_open_unchanged(digest, images[digest]) for digest in batch]
        return encoder.processor.image_processor(pictures, return_tensors="pt")[PIXELS]

    batches = [digests[start : start + batch_size] for start in range(0, len(digests), batch_size)]
    hidden = not progress or not PartialState().is_main_process
    with (
        show_progress(total=len(digests), desc="encoding images", unit="image", disable=hidden) as bar,
        ThreadPoolExecutor(DECODING_THREADS) as pool,
        store.writer() as writer,
        torch.inference_mode(),
    ):
        # A few batches ahead and no more: decoded pictures are large.
        ahead = [pool.submit(opened, batch) for batch in batches[:DECODING_THREADS]]
        for number, batch in enumerate(batches):
            pixels = ahead.pop(0).result()
            if number + DECODING_THREADS < len(batches):
                ahead.append(pool.submit(opened, batches[number + DECODING_THREADS]))
            writer.add(batch, run(pixels.to(encoder.device, encoder.dtype)).to("cpu", encoder.dtype))
            if (number + 1) % max(1, writer.capacity // batch_size) == 0:
                # A shard ends where a batch does: what a kill leaves to be done goes on in the batches it would have been in.
                writer.flush()
            bar.update(len(batch))

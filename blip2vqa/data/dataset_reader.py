"""Reads tables through `datasets`: a folder written by save_to_disk, a data folder, or a Hub id."""

import os
import re
from pathlib import Path

import datasets
import pandas as pd
from huggingface_hub.constants import HF_HUB_CACHE

from blip2vqa.data.readers import RawTable, as_text, check_size, clean_names, name_rows
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import is_endless
from blip2vqa.utils.strict_json import read_json, shown

BATCH = 1000  # rows whose places are looked at together
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_dataset(path: str) -> RawTable:
    """Read all columns as text, and keep the column `image` beside them, not decoded.

    `path` is a folder or a Hub id, with ":SPLIT" after it where there are several; a folder whose own name has a colon
    names no split. Raises InputError in one line when nothing is there or nothing can be reached.

    Note that `datasets` itself takes the words None, NA and null in an image folder's metadata.csv for nothing;
    metadata.jsonl keeps them.
    """
    location, colon, split = path.rpartition(":")
    if not colon or Path(path).exists():
        location, split = path, None
    if not Path(location).is_dir() and not HUB_ID.fullmatch(location):
        raise InputError(f"{path}: no such file or folder, nor the form of a Hub id (user/name or user/name:split)")
    try:
        return _as_table(_load(location, split), location)
    except InputError:
        raise
    except Exception as error:  # datasets raises a dozen types here, network ones too
        where = "cannot be read as a datasets folder" if Path(location).is_dir() else "cannot be loaded from the Hub"
        cause = error.__cause__ or error  # of "An error occurred while generating the dataset"
        reason = next(iter(str(cause).splitlines()), "") or type(cause).__name__
        raise InputError(f"{path}: {where}: {reason}") from error


def _as_table(dataset: datasets.Dataset, location: str) -> RawTable:
    images = None
    if isinstance(dataset.features.get("image"), datasets.Image):
        images = dataset.select_columns("image").cast_column("image", datasets.Image(decode=False))
        _check_places(images, location)
    media = [column for column, feature in dataset.features.items() if hasattr(feature, "decode")]
    dataset = dataset.remove_columns(media)
    check_size(location, dataset.column_names, len(dataset))
    names = clean_names(dataset.column_names)
    cells = {name: _values(dataset, column) for name, column in zip(names, dataset.column_names, strict=True)}
    if images is not None and "image_name" not in cells:
        paths = images.flatten()["image.path"][:]
        cells["image_name"] = [Path(path).name if path else f"image {row}" for row, path in enumerate(paths, 1)]
    rows = range(1, (len(dataset) if images is None else len(images)) + 1)
    frame = pd.DataFrame({name: map(as_text, values) for name, values in cells.items()}, index=rows, dtype=object)
    return RawTable(frame, cells.get("answers"), images)


def _check_places(images: datasets.Dataset, location: str) -> None:
    """Raise `InputError` for rows whose picture is a file outside the data set's own folder, or the Hub's cache."""
    own = [location] if Path(location).is_dir() else [HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE]
    roots, outside = [os.path.join(os.path.realpath(root), "") for root in own], []
    arrow = images.with_format("arrow")
    for start in range(0, len(images), BATCH):
        column = arrow[start : start + BATCH]["image"].combine_chunks()
        held, paths = column.field("bytes").is_valid().to_pylist(), column.field("path").to_pylist()
        for row, (inside, path) in enumerate(zip(held, paths, strict=True), start + 1):
            if not inside and path and not os.path.realpath(path).startswith(tuple(roots)):
                outside.append(row)
    if outside:
        raise InputError(f"{location}: {name_rows(outside)}: the picture is a file outside this folder; put it inside")


def _load(location: str, split: str | None) -> datasets.Dataset:
    folder = Path(location)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        _check_saved(folder)
        saved = datasets.load_from_disk(location)
        if isinstance(saved, datasets.Dataset):
            return saved
        return saved[_choose(location, split, list(saved))]
    builder = datasets.load_dataset_builder(location)
    if builder.name not in ("csv", "imagefolder"):
        splits = list(builder.info.splits or builder.as_streaming_dataset())
        return datasets.load_dataset(location, split=_choose(location, split, splits))
    # Left alone, these read 01 as 1 and take a whole column of numbers and words for whatever comes first.
    streams = builder.as_streaming_dataset()
    stream = streams[_choose(location, split, list(streams))]
    text = datasets.Value("string")
    features = stream.features or dict.fromkeys(next(iter(stream)), text)
    as_written = {name: text if isinstance(kind, datasets.Value) else kind for name, kind in features.items()}
    options = {"keep_default_na": False} if builder.name == "csv" else {}
    return datasets.load_dataset(location, split=stream.split, features=datasets.Features(as_written), **options)


def _check_saved(folder: Path) -> None:
    """Raise `InputError` for what `save_to_disk` does not write: rows in files outside the folder, or in pipes."""
    for state in [*folder.glob("state.json"), *folder.glob("*/state.json")]:
        files = [one["filename"] for one in read_json(state)["_data_files"]]
        for name in files:
            if Path(name).name != name or not (state.parent / name).resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{state}: its rows are in {shown(name)}, outside its folder; put the file inside")
            if is_endless(state.parent / name):
                raise InputError(f"{state.parent / name}: a pipe, a socket or a device, not a file")


def _choose(location: str, split: str | None, splits: list[str]) -> str:
    splits = [str(name) for name in splits]
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        asked = f"no split {split!r}; it has" if split else "say which split:"
        raise InputError(f"{location}: {asked} {', '.join(splits)} (written {location}:{splits[0]})")
    return split


def _values(dataset: datasets.Dataset, column: str) -> list:
    """Read a column's values; class labels, of which -1 is none, by their names."""
    values, feature = dataset[column][:], dataset.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        return values
    return [None if value is None or value < 0 else feature.int2str(value) for value in values]

"""Reads tables through `datasets`: a folder written by save_to_disk, a data folder, or a Hub id."""

import re
from pathlib import Path

import datasets
import pandas as pd

from blip2vqa.data.readers import RawTable, as_text, clean_names
from blip2vqa.utils.errors import InputError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def split_name(path: str) -> tuple[str, str | None]:
    """Split "user/name:validation" into ("user/name", "validation"); the split is None where none is named.

    A folder whose own name has a colon names no split.
    """
    location, colon, split = path.rpartition(":")
    return (location, split) if colon and not Path(path).exists() else (path, None)


def read_dataset(path: str) -> RawTable:
    """Read all columns as text, and keep the column `image` beside them, not decoded.

    Raises InputError in one line when nothing is there or nothing can be reached.

    Note that `datasets` itself takes the words None, NA and null in an image folder's metadata.csv for nothing;
    metadata.jsonl keeps them.
    """
    location, split = split_name(path)
    try:
        dataset = _load(location, split)
    except InputError:
        raise
    except Exception as error:  # datasets raises a dozen types here, network ones too
        where = "cannot be read as a datasets folder" if Path(location).is_dir() else "cannot be loaded from the Hub"
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{path}: {where}: {reason}") from error

    images = None
    if isinstance(dataset.features.get("image"), datasets.Image):
        images = dataset.select_columns("image").cast_column("image", datasets.Image(decode=False))
    media = [column for column, feature in dataset.features.items() if hasattr(feature, "decode")]
    dataset = dataset.remove_columns(media)
    names = clean_names(dataset.column_names)
    cells = {name: _values(dataset, column) for name, column in zip(names, dataset.column_names, strict=True)}
    if images is not None and "image_name" not in cells:
        cells["image_name"] = _file_names(images)
    rows = range(1, (len(dataset) if images is None else len(images)) + 1)
    frame = pd.DataFrame({name: map(as_text, values) for name, values in cells.items()}, index=rows, dtype=object)
    return RawTable(frame, cells.get("answers"), images)


def _load(location: str, split: str | None) -> datasets.Dataset:
    folder = Path(location)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
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
    features = stream.features or dict.fromkeys(next(iter(stream)), datasets.Value("string"))
    as_written = {
        column: datasets.Value("string") if isinstance(feature, datasets.Value) else feature
        for column, feature in features.items()
    }
    options = {"keep_default_na": False} if builder.name == "csv" else {}
    return datasets.load_dataset(location, split=stream.split, features=datasets.Features(as_written), **options)


def _choose(location: str, split: str | None, splits: list[str]) -> str:
    splits = [str(name) for name in splits]
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        asked = f"no split {split!r}; it has" if split else "say which split:"
        raise InputError(f"{location}: {asked} {', '.join(splits)} (written {location}:{splits[0]})")
    return split


def _values(dataset: datasets.Dataset, column: str) -> list:
    values = dataset[column][:]
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        values = [None if value is None or value < 0 else feature.int2str(value) for value in values]
    return values


def _file_names(images: datasets.Dataset) -> list[str]:
    """Name each picture by its file where it has kept that name, else by its row."""
    paths = images.flatten()["image.path"][:]
    return [Path(path).name if path else f"image {row}" for row, path in enumerate(paths, 1)]

"""Reads tables through `datasets`: a folder written by save_to_disk, a data folder, or a Hub id."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable
from huggingface_hub.constants import HF_HUB_CACHE
from pyarrow import parquet

from blip2vqa.data.columns import find_column
from blip2vqa.data.raw_table import RawTable, check_size, from_columns, name_rows
from blip2vqa.data.readers import unpacked_limit
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import is_endless
from blip2vqa.utils.strict_json import read_json, shown

MAX_HELD = 1_000_000_000  # bytes of a Parquet file in memory; a larger one goes through the cache of `datasets`
BATCH = 1000  # rows whose places are looked at together
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_dataset(path: str, image: str | None = None) -> RawTable:
    """Read all columns, and keep the column of pictures beside them, not decoded.

    `path` is a folder or a Hub id, with ":SPLIT" after it where there are several; a folder whose own name has a colon
    names no split. `image`: which column holds the pictures, where there are several. Raises InputError in one line when
    nothing is there or nothing can be reached.

    Note that `datasets` itself takes the words None, NA and null in an image folder's metadata.csv for nothing;
    metadata.jsonl keeps them.
    """
    location, colon, split = path.rpartition(":")
    if not colon or Path(path).exists():
        location, split = path, None
    if not Path(location).is_dir() and not HUB_ID.fullmatch(location):
        raise InputError(f"{path}: no such file or folder, nor the form of a Hub id (user/name or user/name:split)")
    where = "cannot be read as a datasets folder" if Path(location).is_dir() else "cannot be loaded from the Hub"
    return _read(path, where, lambda: _load(location, split), image, location)


def read_parquet(path: str, image: str | None = None) -> RawTable:
    """Read a Parquet file, as `read_dataset`; pictures are a column of bytes, or of {bytes, path}."""
    return _read(path, "not a readable Parquet file", lambda: _load_parquet(path), image, path)


def _read(path: str, where: str, load: Callable[[], datasets.Dataset], image: str | None, location: str) -> RawTable:
    try:
        dataset = load()
        images = _pictures(path, dataset, image)
        if images is not None:
            _check_places(images, location)
        media = [column for column, feature in dataset.features.items() if _is_media(feature)]
        check_size(path, dataset.column_names, len(dataset))
        cells = {column: _values(dataset, column) for column in dataset.column_names if column not in media}
        rows = range(1, len(dataset) + 1)
        if images is not None and "image_name" not in cells:
            paths = images.flatten()["image.path"][:]
            cells["image_name"] = [Path(path).name if path else f"image {row}" for row, path in enumerate(paths, 1)]
    except InputError:
        raise
    except Exception as error:  # datasets raises a dozen types here, network ones too
        cause = error.__cause__ or error  # of "An error occurred while generating the dataset"
        reason = next(iter(str(cause).splitlines()), "") or type(cause).__name__
        raise InputError(f"{path}: {where}: {reason}") from error
    return from_columns(path, list(cells), list(cells.values()), rows, images=images)


def _pictures(path: str, dataset: datasets.Dataset, image: str | None) -> datasets.Dataset | None:
    """Find the column of pictures, whatever its name, and return it alone as `image`, not decoded; None where there is none."""
    columns = [column for column, feature in dataset.features.items() if _is_picture(feature)]
    if not columns or (image is not None and image not in columns):
        return None
    column = image or (columns[0] if len(columns) == 1 else find_column(path, columns, "image"))
    if column is None:
        raise InputError(f"{path}: {' and '.join(columns)} hold pictures; say which by --image_column")
    pictures = dataset.select_columns(column)
    pictures = pictures if column == "image" else pictures.rename_column(column, "image")
    return pictures.cast_column("image", datasets.Image(decode=False))


def _is_picture(feature: object) -> bool:
    """Recognise a picture, or the bytes of one where the file does not say what they are."""
    parts = feature if isinstance(feature, dict) else {}
    data = parts.get("bytes", feature)
    kinds = ("binary", "large_binary", "null") if "bytes" in parts else ("binary", "large_binary")
    of_bytes = isinstance(data, datasets.Value) and data.dtype in kinds
    return isinstance(feature, datasets.Image) or (of_bytes and parts.keys() <= {"bytes", "path"})


def _is_media(feature: object) -> bool:
    return _is_picture(feature) or hasattr(feature, "decode")


def _check_places(images: datasets.Dataset, location: str) -> None:
    """Raise `InputError` for rows whose picture is a file outside the data set's own folder, or the Hub's cache."""
    there = Path(location)
    own = (
        [there if there.is_dir() else there.parent]
        if there.exists()
        else [HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE]
    )
    roots, outside = (
        [os.path.join(os.path.realpath(root), "") for root in own],
        [],
    )  # relative places count from the first
    arrow = images.with_format("arrow")
    for start in range(0, len(images), BATCH):
        column = arrow[start : start + BATCH]["image"].combine_chunks()
        held, paths = column.field("bytes").is_valid().to_pylist(), column.field("path").to_pylist()
        for row, (inside, path) in enumerate(zip(held, paths, strict=True), start + 1):
            if not inside and path and not os.path.realpath(os.path.join(own[0], path)).startswith(tuple(roots)):
                outside.append(row)
    if outside:
        raise InputError(f"{location}: {name_rows(outside)}: the picture is a file outside its folder; put it inside")


def _load_parquet(path: str) -> datasets.Dataset:
    """Read a Parquet file in memory, or a large one through the cache. Raises InputError for one that unpacks to too much."""
    with parquet.ParquetFile(path) as file:
        about, limit, held, batches = file.metadata, unpacked_limit(Path(path)), 0, []
        check_size(path, file.schema_arrow.names, about.num_rows)
        size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        if MAX_HELD < size <= limit:
            return datasets.Dataset.from_parquet(path)
        for batch in file.iter_batches(BATCH) if size <= limit else ():
            held += batch.nbytes  # what a word that is written once and meant in all rows takes, too
            batches.append(batch)
            if held > limit:
                break
        if max(size, held) > limit:
            raise InputError(f"{path}: more than {limit:,} bytes when it is unpacked; split the table")
        return datasets.Dataset(InMemoryTable(pa.Table.from_batches(batches, file.schema_arrow)))


def _load(location: str, split: str | None) -> datasets.Dataset:
    folder = Path(location)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        _check_saved(folder)
        saved = datasets.load_from_disk(location)
        dataset = saved if isinstance(saved, datasets.Dataset) else saved[_choose(location, split, list(saved))]
        dataset.data.validate(full=True)  # a damaged length would end this process, not raise
        return dataset
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

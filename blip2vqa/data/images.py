"""Finds pictures by name inside one folder, opens them safely, and checks each once before a model sees it."""

import contextlib
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from blip2vqa.utils.progress import show_progress

if TYPE_CHECKING:
    import datasets

# Pictures alone: PIL would also open EPS by calling Ghostscript, and a dozen formats nobody keeps photographs in.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 100_000_000  # width times height; more is taken for a decompression bomb
MIN_IMAGES_FOR_BAR = 200


class BadImage(Exception):
    """A picture that cannot be used; its text is the reason, in a few words."""

    reason = property(str)


@dataclass(frozen=True)
class ImageSource:
    """Says where one picture's bytes are; `name` tells sources apart.

    They are in a file, or in row `index` of a `datasets.Dataset` whose column `image` is not decoded, or they are `data`.
    """

    name: str
    path: Path | None = None
    dataset: "datasets.Dataset | None" = None
    index: int = 0
    data: bytes | None = field(default=None, repr=False)

    def read_bytes(self) -> bytes:
        """Read the bytes as they are stored. Raises BadImage when there are none to read."""
        if self.data is not None:
            return self.data
        path = self.path
        if self.dataset is not None:
            image = self.dataset[self.index]["image"]
            if image is None:
                raise BadImage("no image in this row")
            if image["bytes"] is not None:
                return image["bytes"]
            path = Path(image["path"])
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror or error}") from error


class ImageIndex:
    """Finds pictures by the names a table gives them, inside `image_dir` and nowhere else."""

    def __init__(self, image_dir: str | Path):
        self.root = Path(image_dir)
        self._real_root = self.root.resolve()

    def find(self, name: str) -> Path:
        """Find the file meant by `name`.

        It is `image_dir/name`, else `image_dir/<first two characters>/name` (the layout of Amazon Berkeley Objects),
        else the one file of that name anywhere below `image_dir`; for the last, the extension may be left out and
        leading folders may be given. Raises BadImage when it is not found, ambiguous, or outside `image_dir`.
        """
        parts = PurePosixPath(name).parts
        if not parts or "\0" in name:
            raise BadImage("not a file name")
        windows = PureWindowsPath(name)
        if name.startswith("/") or windows.drive or windows.root:
            raise BadImage("absolute path: give names relative to the image folder")
        if ".." in parts or ".." in windows.parts:
            raise BadImage('".." in the name: give names inside the image folder')
        try:
            for path in (self.root / name, self.root / name[:2] / name):
                if path.is_file():
                    return self._inside(path)
                if path.is_symlink():
                    raise BadImage("a link to nothing")
        except OSError as error:  # a name too long for the file system, a folder that may not be entered
            raise BadImage(f"cannot be looked up: {error.strerror}") from error
        exact, by_stem = self._files
        found = exact[parts[-1]] if parts[-1] in exact else by_stem.get(parts[-1], [])
        found = [path for path in found if path.parts[-len(parts) : -1] == parts[:-1]]
        if not found:
            raise BadImage("not found in the image folder")
        if len(found) > 1:
            places = ", ".join(map(str, sorted(found)[:3]))
            raise BadImage(f"{len(found)} files of this name ({places}{', ...' if len(found) > 3 else ''}): say which")
        return self._inside(self.root / found[0])

    def _inside(self, path: Path) -> Path:
        if not path.resolve().is_relative_to(self._real_root):
            raise BadImage("a link that leads outside the image folder")
        return path

    @cached_property
    def _files(self) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        """List all files below the folder, relative to it: by name, and pictures also by name without extension."""
        extensions = picture_extensions()
        exact, by_stem = defaultdict(list), defaultdict(list)
        for folder, _, names in os.walk(self.root):
            relative = Path(folder).relative_to(self.root)
            for name in names:
                exact[name].append(relative / name)
                stem, extension = os.path.splitext(name)
                if extension.lower() in extensions:
                    by_stem[stem].append(relative / name)
        return dict(exact), dict(by_stem)


def picture_extensions() -> set[str]:
    """List the extensions, such as ".jpg", of the formats that are read."""
    Image.init()
    return {extension for extension, kind in Image.EXTENSION.items() if kind in FORMATS}


def open_image(source: ImageSource | bytes) -> Image.Image:
    """Decode a picture as people see it, in RGB with 8 bits; raises BadImage when that cannot be done.

    It stands upright as its EXIF says, transparent parts become white, greys of 16 bits are divided by 256, and of an
    animation the first frame is taken.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    if not data:
        raise BadImage("an empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS:,}: a decompression bomb?")
        return as_seen(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels: a decompression bomb?") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image, or of a format not read here") from error
    except Exception as error:  # PIL's decoders raise a dozen types on broken files, MemoryError and KeyError too
        raise BadImage(f"cannot be decoded: {error or type(error).__name__}".splitlines()[0]) from error


def as_seen(image: Image.Image) -> Image.Image:
    """Convert an opened picture as `open_image` does."""
    image.load()
    with contextlib.suppress(
        Exception
    ):  # a broken EXIF block; the pixels are decoded by now, and every viewer shows them
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16 in its byte orders; I is what 16-bit PGM files open as
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise BadImage("greys of more than 16 bits")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))  # PIL's convert would clip at 255 instead
    elif image.mode == "F":
        raise BadImage("floating-point pixels have no fixed range")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def check_images(sources: Iterable[ImageSource], progress: bool = True) -> tuple[dict[str, str], dict[str, str]]:
    """Read every source and decode every distinct picture once, in threads.

    Returns the SHA-256 of the bytes of each good source, by name, and the reason against each bad one, by name.
    """
    sources = list(sources)
    decoded: dict[str, str | None] = {}  # digest → reason against it; None is a good picture

    def check(source: ImageSource) -> tuple[str, str | None]:
        try:
            data = source.read_bytes()
        except BadImage as bad:
            return "", bad.reason
        digest = hashlib.sha256(data).hexdigest()
        if digest not in decoded:  # two threads may decode the same picture at the same time: harmless
            try:
                open_image(data)
                decoded[digest] = None
            except BadImage as bad:
                decoded[digest] = bad.reason
        return digest, decoded[digest]

    digests, bad = {}, {}
    hidden = not progress or len(sources) < MIN_IMAGES_FOR_BAR
    with ThreadPool() as pool:
        results = show_progress(
            pool.imap(check, sources, chunksize=8), "checking images", len(sources), unit="image", disable=hidden
        )
        for source, (digest, reason) in zip(sources, results, strict=True):
            if reason is None:
                digests[source.name] = digest
            else:
                bad[source.name] = reason
    return digests, bad

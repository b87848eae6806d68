"""Opens pictures safely, and checks each once before a model sees it."""

import contextlib
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from blip2vqa.utils.files import read_limited
from blip2vqa.utils.progress import show_progress

if TYPE_CHECKING:
    import datasets

# Pictures alone: PIL would also open EPS by calling Ghostscript, and a dozen formats nobody keeps photographs in.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 100_000_000  # width times height; more is taken for a decompression bomb
MAX_BYTES = 500_000_000
MIN_IMAGES_FOR_BAR = 200


class BadImage(Exception):
    """A picture that cannot be used; its text is the reason, in a few words."""

    reason = property(str)


@dataclass(frozen=True)
class ImageSource:
    """Says where one picture's bytes are; `name` tells sources apart.

    They are in a file, or in row `index` of a `datasets.Dataset` whose column `image` is not decoded, or they are `data`. Where
    the dataset holds a relative path alone, its file is looked for in the `folders`.
    """

    name: str
    path: Path | None = None
    dataset: "datasets.Dataset | None" = None
    index: int = 0
    folders: tuple[Path, ...] = ()
    data: bytes | None = field(default=None, repr=False)

    def read_bytes(self) -> bytes:
        """Read the bytes as they are stored. Raises BadImage when there are none to read."""
        if self.data is not None:
            return self.data
        path = self.path
        if self.dataset is not None:
            image = self.dataset[self.index]["image"]
            if image is None or (image["bytes"] is None and not image["path"]):
                raise BadImage("no image in this row")
            if image["bytes"] is not None:
                return image["bytes"]
            path = Path(image["path"])
            if not path.is_absolute():
                path = _find_below(self.folders, path)
        try:
            return read_limited(path, MAX_BYTES)
        except ValueError as error:
            raise BadImage(str(error)) from error
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror or error}") from error


def _find_below(folders: Iterable[Path], path: Path) -> Path:
    """Find a file in the first of the folders that has it, links out of them left out."""
    for folder in folders:
        place = (folder / path).resolve()
        if place.is_file() and place.is_relative_to(folder.resolve()):
            return place
    raise BadImage(f"no file {path}, neither beside the table nor in image_dir")


@cache
def picture_extensions() -> set[str]:
    """List the extensions, such as ".jpg", of the formats that are read."""
    Image.init()
    return {extension for extension, kind in Image.EXTENSION.items() if kind in FORMATS}


def open_image(source: ImageSource | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture as people see it, in RGB with 8 bits; raises BadImage when that cannot be done.

    It stands upright as its EXIF says, transparent parts become white, greys of 16 bits are divided by 256, and of an
    animation the first frame is taken.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    if not data:
        raise BadImage("an empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise BadImage(f"{image.width}×{image.height} pixels, more than {max_pixels:,}: a decompression bomb?")
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

"""Measure a product's photograph: the colors of the product, its proportions, and a hash that finds look-alikes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from blip2vqa.data.images import ImageSource, open_image

SIDE = 128  # pixels, the longer side that is measured
WHITE = 238  # darkest of the three channels, 0 to 255, of a studio's white background
LEAST = 0.02  # share of the picture that the product must cover to be measured


@dataclass(frozen=True, slots=True)
class PictureStats:
    """What was measured in one picture."""

    digest: str
    """SHA-256 of the file's bytes, hexadecimal."""
    hash: int
    """64 bits of the perceptual hash; look-alikes differ in few."""
    colors: dict[str, float]
    """Basic color name → share of the product's pixels, or of the picture's middle where the background is not white; colors
    with at most 1% are left out."""
    height_to_width: float | None
    """Proportion of the box around the product; None where the background is not white."""


def measure_picture(path: Path) -> PictureStats:
    """Measure a picture. Raises `BadImage` for one that cannot be decoded."""
    import imagehash

    data = ImageSource(str(path), path=path).read_bytes()
    image = open_image(data)
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small)
    product = _product(pixels)
    if product is None:
        height, width = pixels.shape[:2]
        middle = pixels[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
        measured, proportion = middle.reshape(-1, 3), None
    else:
        rows, columns = np.flatnonzero(product.any(1)), np.flatnonzero(product.any(0))
        measured, proportion = pixels[product], (rows[-1] - rows[0] + 1) / (columns[-1] - columns[0] + 1)
    digest, image_hash = hashlib.sha256(data).hexdigest(), int(str(imagehash.phash(image)), 16)
    return PictureStats(digest, image_hash, _color_shares(measured), proportion)


def _product(pixels: np.ndarray) -> np.ndarray | None:
    """Mask what stands in front of a white background, [height, width]; None where the background is not white."""
    from scipy import ndimage

    white = pixels.min(axis=2) >= WHITE
    border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if border.mean() < 0.8:
        return None
    # White that touches the border is background; white inside the product is the product's.
    labels, _ = ndimage.label(white)
    outside = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    product = ~np.isin(labels, outside[outside > 0])
    return product if product.mean() >= LEAST else None


def _color_shares(pixels: np.ndarray) -> dict[str, float]:
    """Measure the share of each basic color in pixels [n, 3], told by hue, saturation and value; the bounds were set by eye."""
    hsv = np.asarray(Image.fromarray(pixels[None]).convert("HSV"))[0].astype(float) / 255
    hue, saturation, value = hsv[:, 0] * 360, hsv[:, 1], hsv[:, 2]
    names = np.select(
        [
            value < 0.2,
            (saturation < 0.12) & (value > 0.82),
            (saturation < 0.12) | ((saturation < 0.2) & (value < 0.45)),
            (hue >= 15) & (hue < 62) & (saturation < 0.42) & (value > 0.55),
            (hue >= 12) & (hue < 50) & (value < 0.68),
            ((hue < 12) | (hue >= 325)) & (saturation < 0.6) & (value > 0.62),
            (hue < 12) | (hue >= 345) | ((hue >= 325) & (value < 0.62)),
            hue < 42,
            hue < 68,
            hue < 165,
            hue < 258,
            (hue < 300) | (value < 0.5),
        ],
        ["black", "white", "gray", "beige", "brown", "pink", "red", "orange", "yellow", "green", "blue", "purple"],
        "pink",
    )
    found, counts = np.unique(names, return_counts=True)
    shares = {str(name): float(count) / len(names) for name, count in zip(found, counts, strict=True)}
    return {name: share for name, share in shares.items() if share > 0.01}

"""Pictures that users of the page send: bounded in size, and decoded as the pictures of tables are."""

from pathlib import Path

from PIL import Image

from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.utils.errors import InputError

MAX_MEGABYTES = 25
"""Largest upload."""
MAX_PIXELS = 50_000_000
"""Width times height of the largest picture: those of today's phones have 12 to 50 million."""
GREY = Image.new("RGB", (256, 256), (128, 128, 128))
"""A picture of nothing; an answer that it does not change is not about the picture."""


def open_upload(given: dict | None) -> Image.Image:
    """Open the picture of a request, `{"path": …}` of an upload. Raises `InputError` where there is none, or a bad one."""
    if not given or not given.get("path"):
        raise InputError("No picture: drop one, paste one or take an example")
    try:
        return open_image(ImageSource("upload", path=Path(given["path"])), MAX_PIXELS)
    except BadImage as error:
        raise InputError(f"This file is no picture that can be used: {error.reason}") from error

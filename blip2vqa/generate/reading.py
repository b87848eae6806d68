"""A picture's bytes, read again after it was looked at."""

import hashlib

from blip2vqa.data.images import ImageSource
from blip2vqa.generate.rows import Item
from blip2vqa.utils.errors import InputError


def read_picture(item: Item) -> ImageSource:
    """The picture's bytes, named by their digest: what is said about them is kept under it.

    Raises `InputError` where they are gone, or no longer those that were looked at.
    """
    try:
        data = item.path.read_bytes()
    except OSError as error:
        raise InputError(
            f"image {item.path}: cannot be read any more: {error.strerror}; put it back and go on"
        ) from error
    if hashlib.sha256(data).hexdigest() != item.digest:
        raise InputError(f"image {item.path}: its file has changed since it was checked; start again")
    return ImageSource(item.digest, data=data)

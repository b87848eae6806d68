"""Renders pages from templates, in one style; all that comes from tables, files and models is escaped."""

import base64
import hashlib
import io
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from blip2vqa.data.images import as_seen
from blip2vqa.utils.formatting import percent

PACKAGE = Path(__file__).resolve().parents[2]
QUALITY = 85  # of a JPEG, 0 to 95
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves of surrogate pairs


def render_page(template: str, **values) -> str:
    """Render a page that may load nothing; `template` is its place below the package.

    The style sheet and the script of the same name beside it go into the page; no other script may run in it.
    """
    place = PACKAGE / template
    parts = {"style": place.with_suffix(".css"), "script": place.with_suffix(".js")}
    texts = {name: path.read_text(encoding="utf-8") if path.exists() else "" for name, path in parts.items()}
    return render(template, **texts | values) + "\n"


def render(template: str, **values) -> str:
    """Render a part of a page; `template` is its place below the package."""
    return _environment.get_template(template).render(**values)


def shrink(image: Image.Image, size: int) -> Image.Image:
    """Copy a picture, in RGB, at most `size` pixels on its longer side."""
    small = as_seen(image.copy())  # thumbnail() shrinks in place
    small.thumbnail((size, size))
    return small


def thumbnail(image: Image.Image, alt: str, size: int) -> Markup:
    """Make an `<img>` that holds the picture as a JPEG, shrunk to `size` pixels on its longer side where it is larger."""
    small = shrink(image, size)
    return Markup('<img src="{}" width="{}" height="{}" alt="{}">').format(data_address(small), *small.size, alt)


def data_address(image: Image.Image, quality: int = QUALITY) -> str:
    """Make the `data:` address of a picture as a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shown(text: str, longest: int | None = None) -> str:
    """Write a text on one line; what is longer than `longest` characters is cut at its end."""
    text = " ".join(text.split())
    return text if longest is None or len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _printable(value: object) -> object:
    return _UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _css_text(text: str) -> str:
    """Write a text as it may stand between quotes in a style sheet: all but letters and digits by number."""
    return "".join(one if one.isascii() and one.isalnum() else f"\\{ord(one):x} " for one in _printable(text))


def _hash_for_policy(script: str) -> str:
    """Name a script as the page's security policy does."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


_environment = Environment(
    loader=FileSystemLoader(PACKAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
    finalize=_printable,
)  # fmt: skip
_environment.filters |= {"css_text": _css_text, "hash_for_policy": _hash_for_policy, "percent": percent, "shown": shown}

"""Writes one HTML file with pictures and, beside each, its captions in several styles."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from blip2vqa.data.images import as_seen
from blip2vqa.utils.files import write_text_atomic

THUMBNAIL = 512  # pixels, the longer side; sheet.css has it too
QUALITY = 85  # of the JPEG, 0 to 95

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, undefined=StrictUndefined
)
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8").rstrip("\n")


def write_sheet(
    path: str | Path,
    rows: Iterable[tuple[str, Image.Image | None, Mapping[str, str | None], str | None]],
    styles: Sequence[tuple[str, str]],
    title: str = "Captions",
) -> None:
    """Write the pictures, embedded as thumbnails, with one caption a style: a file that needs no other, and no script.

    `rows` are (name, picture, {style: caption}, why the picture failed), taken one by one, so that a generator holds one
    picture at a time; `styles` are (name, subtitle) in the order shown. Raises OSError when the folder cannot be written to.
    """
    articles = []
    for name, image, captions, reason in rows:
        shown = next((caption for style, _ in styles if (caption := captions.get(style))), None)
        picture = image and thumbnail(image, f"{name}: {shown}" if shown else name)
        articles.append({"name": name, "picture": picture, "captions": captions, "shown": shown, "reason": reason})
    failed = sum(article["reason"] is not None for article in articles)
    body = TEMPLATES.get_template("sheet.html").render(articles=articles, styles=styles, failed=failed)
    write_text_atomic(path, page(title, STYLE, body))


def page(title: str, style: str, body: str) -> str:
    """Make a page that needs no other file and may load none; `style` and `body` are CSS and HTML, the title plain text."""
    return TEMPLATES.get_template("page.html").render(title=title, style=style, body=body) + "\n"


def shrink(image: Image.Image, size: int) -> Image.Image:
    """Copy a picture, in RGB, at most `size` pixels on its longer side."""
    small = as_seen(image.copy())  # thumbnail() shrinks in place
    small.thumbnail((size, size))
    return small


def thumbnail(image: Image.Image, alt: str, size: int = THUMBNAIL) -> str:
    """Make an `<img>` that holds the picture as a JPEG, shrunk to `size` pixels on its longer side where it is larger."""
    small = shrink(image, size)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = small.size
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'

"""Writes one HTML file with pictures and, beside each, its captions in several styles."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from PIL import Image

from blip2vqa.data.images import as_seen
from blip2vqa.utils.files import write_text_atomic

THUMBNAIL = 512  # pixels, the longer side; sheet.css has it too
QUALITY = 85  # of the JPEG, 0 to 95

FRAME = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8").rstrip("\n")


def write_sheet(
    path: str | Path,
    rows: Iterable[tuple[str, Image.Image | None, Mapping[str, str | None], str | None]],
    styles: Sequence[tuple[str, str]],
    title: str = "Captions",
) -> None:
    """Write the pictures, embedded as thumbnails, with one caption a style: a file that needs no other, and no script.

    Args:
        rows: (name, picture, {style: caption}, reason), the reason for a picture that failed. They are taken one by
            one, so a generator holds one picture at a time.
        styles: (name, subtitle) in the order shown.

    Written whole or not at all. Raises OSError when the folder cannot be written to.
    """
    articles, failed = [], 0
    for name, image, captions, reason in rows:
        articles.append(_article(name, image, captions, reason, styles))
        failed += reason is not None
    summary = f"{len(articles)} pictures" + (f", {failed} of them failed" if failed else "")
    write_text_atomic(path, page(title, STYLE, "\n".join([f"<p>{summary}</p>", *articles])))


def page(title: str, style: str, body: str) -> str:
    """Make a page that needs no other file and may load none; `style` and `body` are CSS and HTML, the title plain text."""
    return FRAME.substitute(title=escape(title), style=style, body=body)


def _article(
    name: str,
    image: Image.Image | None,
    captions: Mapping[str, str | None],
    reason: str | None,
    styles: Sequence[tuple[str, str]],
) -> str:
    shown = next((caption for style, _ in styles if (caption := captions.get(style))), None)
    lines = ["<article>", "<figure>"]
    if image is not None:
        lines.append(thumbnail(image, f"{name}: {shown}" if shown else name))
    lines += [f"<figcaption>{escape(name)}</figcaption>", "</figure>"]
    if reason is not None:
        lines[0] = '<article class="failed">'
        lines.append(f"<p>{escape(reason)}</p>")
    if reason is None or shown:
        lines.append("<dl>")
        for style, subtitle in styles:
            caption = captions.get(style)
            said = f"<dd>{escape(caption)}</dd>" if caption else '<dd class="none">no caption</dd>'
            below = f"<small>{escape(subtitle)}</small>" if subtitle else ""
            lines.append(f"<div><dt>{escape(style)}{below}</dt>{said}</div>")
        lines.append("</dl>")
    return "\n".join([*lines, "</article>"])


def thumbnail(image: Image.Image, alt: str, size: int = THUMBNAIL) -> str:
    """Make an `<img>` that holds the picture as a JPEG, shrunk to `size` pixels on its longer side where it is larger."""
    small = as_seen(image.copy())  # thumbnail() shrinks in place
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = small.size
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'

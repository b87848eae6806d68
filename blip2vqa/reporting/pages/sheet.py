"""Writes one HTML file with pictures and, beside each, its captions in several styles."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from blip2vqa.reporting.pages.page import render_page, thumbnail
from blip2vqa.utils.files import write_text_atomic

THUMBNAIL = 512  # pixels, the longer side; sheet.css has it too


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
        picture = image and thumbnail(image, f"{name}: {shown}" if shown else name, THUMBNAIL)
        articles.append({"name": name, "picture": picture, "captions": captions, "shown": shown, "reason": reason})
    failed = sum(article["reason"] is not None for article in articles)
    values = {"title": title, "articles": articles, "styles": styles, "failed": failed}
    write_text_atomic(path, render_page("reporting/pages/sheet.html", **values))

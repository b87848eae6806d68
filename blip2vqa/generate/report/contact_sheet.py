"""Write pictures with their questions to one HTML page, for a person to look through and tick what is wrong."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from blip2vqa.generate.rows import Item, Question
from blip2vqa.reporting.sheet import page, thumbnail
from blip2vqa.utils.files import write_text_atomic

THUMBNAIL = 384  # pixels, the longer side: a card's width, on screens of up to two pixels a point
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of surrogate pairs


def write_contact_sheet(
    path: str | Path, pictures: Iterable[tuple[Item, Image.Image | None, Sequence[Question]]], title: str, summary: str
) -> None:
    """Write one HTML file that needs no other file and no script, whole or not at all.

    Pictures are embedded as thumbnails and numbered from 1; their questions are lettered from a, each with a box to tick.
    A picture is None where it cannot be shown; they are taken one by one, so a generator holds one at a time. `summary` is a
    sentence or two above the pictures, plain text. Raises OSError when the folder cannot be written to.
    """
    articles = [
        (item, image and thumbnail(image, f"picture {number}", THUMBNAIL), asked)
        for number, (item, image, asked) in enumerate(pictures, start=1)
    ]
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["shown"] = _shown
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    body = template.render(summary=summary, articles=articles, questions=sum(len(asked) for *_, asked in articles))
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8").rstrip("\n")
    write_text_atomic(path, page(_cleaned(title), style, body))


def _shown(text: str, longest: int | None = None) -> str:
    """Escape a listing's words for HTML, on one line; what is longer than `longest` characters is cut at its end."""
    text = _cleaned(text)
    return escape(text if longest is None or len(text) <= longest else text[: longest - 1].rstrip() + "…")


def _cleaned(text: str) -> str:
    return UNPRINTABLE.sub("\ufffd", " ".join(text.split()))

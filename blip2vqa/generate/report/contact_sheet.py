"""Write pictures with their questions to one HTML page, for a person to look through and tick what is wrong."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from blip2vqa.generate.rows import Item, Question
from blip2vqa.reporting.pages.page import render_page, thumbnail
from blip2vqa.utils.files import write_text_atomic

THUMBNAIL = 384  # pixels, the longer side: a card's width, on screens of up to two pixels a point


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
    values = {"summary": summary, "articles": articles, "questions": sum(len(asked) for *_, asked in articles)}
    write_text_atomic(path, render_page("generate/report/contact_sheet.html", title=" ".join(title.split()), **values))

"""Write pictures with their questions to one HTML page, for a person to look through and tick what is wrong."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from blip2vqa.generate.rows import Item, Question
from blip2vqa.reporting.sheet import page, thumbnail
from blip2vqa.utils.files import write_text_atomic

THUMBNAIL = 384  # pixels, the longer side: a card's width, on screens of up to two pixels a point
LONGEST = {"name": 120, "question": 240, "answer": 60, "source": 60}  # characters shown
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of surrogate pairs

# The page counts its ticks with no script: CSS counters follow the document, so the footer comes last.
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8").rstrip("\n")
ADVICE = "Tick what is wrong. Ticks are counted below and saved nowhere: note them by number and letter, as 3b."


def write_contact_sheet(
    path: str | Path, pictures: Iterable[tuple[Item, Image.Image | None, Sequence[Question]]], title: str, summary: str
) -> None:
    """Write one HTML file that needs no other file and no script.

    Pictures are embedded as thumbnails and numbered from 1; their questions are lettered from a, each with a box to tick.

    Args:
        pictures: (item; its picture, or None where it cannot be shown; its questions). They are taken one by one, so a
            generator holds one picture at a time.
        summary: a sentence or two above the pictures, plain text.

    Written whole or not at all. Raises OSError when the folder cannot be written to.
    """
    articles, questions = [], 0
    for number, (item, image, asked) in enumerate(pictures, start=1):
        articles.append(_article(number, item, image, asked))
        questions += len(asked)
    lines = [
        f"<p>{_text(summary)}</p>",
        f"<p>{len(articles):,} pictures, {questions:,} questions. {ADVICE}</p>",
        "<main>", *articles, "</main>",
        f"<footer><b></b> of {questions:,} questions ticked</footer>",
    ]  # fmt: skip
    write_text_atomic(path, page(_cleaned(title), STYLE, "\n".join(lines)))


def _article(number: int, item: Item, image: Image.Image | None, questions: Sequence[Question]) -> str:
    kind = item.product_type.replace("_", " ")
    heading = f"{number} <small>{_text(kind, 'name')}</small>" if kind else str(number)
    lines = [f"<article>\n<h2>{heading}</h2>"]
    if image is None:
        lines.append("<p>This picture cannot be shown.</p>")
    else:
        lines.append(f"<figure>{thumbnail(image, f'picture {number}', THUMBNAIL)}</figure>")
    # dir and bdi keep a name that runs from right to left from turning what stands beside it.
    if item.name:
        lines.append(f'<p dir="auto">{_text(item.name, "name")}</p>')
    lines.append(f"<p><code>{_text(item.image_name, 'name')}</code></p>")
    lines += ["<ol>", *map(_question, questions), "</ol>"] if questions else ["<p>No questions.</p>"]
    return "\n".join([*lines, "</article>"])


def _question(question: Question) -> str:
    asked, answer = _text(question.question, "question"), _text(question.answer, "answer")
    origin = " · ".join(_text(text, "source") for text in (question.question_type, question.source))
    words = f"<bdi>{asked}</bdi> <b><bdi>{answer}</bdi></b> <small><bdi>{origin}</bdi></small>"
    return f'<li><label><input type="checkbox"><span>{words}</span></label></li>'


def _text(text: str, kind: str | None = None) -> str:
    """Escape a listing's words for HTML, on one line; what is too long for its `kind` is cut at its end."""
    text, longest = _cleaned(text), LONGEST.get(kind)
    return escape(text if longest is None or len(text) <= longest else text[: longest - 1].rstrip() + "…")


def _cleaned(text: str) -> str:
    return UNPRINTABLE.sub("\ufffd", " ".join(text.split()))

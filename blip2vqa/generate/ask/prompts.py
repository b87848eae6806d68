"""Build the prompt of a chat endpoint about one picture, and read the answer."""

import io
import json
import random
import tomllib
from pathlib import Path

from blip2vqa.data.images import open_image
from blip2vqa.generate.rows import Item

LONGEST_SIDE = 512  # pixels of the picture as sent
QUALITY = 90  # of the JPEG, 0 to 95
MOST_CHARACTERS = 200  # of a name or a product type, as quoted

_FOLDER = Path(__file__).parent
PROMPT = tomllib.loads((_FOLDER / "prompt.toml").read_text(encoding="utf-8"))
RESPONSE_FORMAT = json.loads((_FOLDER / "response_format.json").read_text(encoding="utf-8"))
SCHEMA = RESPONSE_FORMAT["json_schema"]["schema"]
TYPES = tuple(SCHEMA["properties"]["questions"]["items"]["properties"]["question_type"]["enum"])


def build_messages(item: Item, num_questions: int, seed: int, picture_url: str) -> list[dict]:
    """Build the messages of the chat about `item`; `picture_url` holds the picture, or is its `digest_url`.

    The order in which the question types are suggested is drawn from the seed and the picture.
    """
    types = list(TYPES[:-1])
    random.Random(f"{seed}:{item.digest}").shuffle(types)
    listing = {
        "name": _cut(item.name),
        "product_type": _cut(item.product_type),
        "facts": dict(sorted(item.facts.items())),
    }
    text = PROMPT["user"].format(
        num_questions=num_questions, types=", ".join(types), listing=json.dumps(listing, ensure_ascii=False)
    )
    picture = {"type": "image_url", "image_url": {"url": picture_url, "detail": "low"}}
    return [
        {"role": "system", "content": PROMPT["system"]},
        {"role": "user", "content": [{"type": "text", "text": text}, picture]},
    ]


def _cut(text: str) -> str:
    """Cut text to one line of at most `MOST_CHARACTERS`; "?" replaces what UTF-8 cannot encode, halves of surrogate pairs."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def digest_url(item: Item) -> str:
    """Make an address that stands for the picture where its bytes are not wanted."""
    return f"sha256:{item.digest}"


def encode_picture(item: Item) -> tuple[bytes, tuple[int, int]]:
    """Encode the picture as a JPEG of at most `LONGEST_SIDE` pixels; returns its bytes, and its width and height.

    Raises `InputError` where the file is gone or has changed, and `BadImage` where it cannot be decoded.
    """
    image = open_image(item.read_image())
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), image.size


def read_questions(content: object) -> list[tuple[str, str, str]]:
    """Read (question, answer, question type) rows: the answer as it came, the question on one line, an unknown type as "other".

    Raises ValueError, in a few words, for what is not JSON or not of the schema.
    """
    text = content.strip() if isinstance(content, str) else ""
    if text.startswith("```"):  # some local servers put the JSON in a code fence all the same
        text = text.removeprefix("```").removeprefix("json").removesuffix("```")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError("not JSON") from error
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    rows = data.get("questions") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise ValueError('JSON without a list "questions"')
    return [_read_row(row) for row in rows]


def _read_row(row: object) -> tuple[str, str, str]:
    texts = [row.get("question"), row.get("answer")] if isinstance(row, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or not texts[0].strip():
        raise ValueError("a question without its text or its answer")
    # JSON can escape half of a surrogate pair, which cannot be written to a file.
    question, answer = (text.encode("utf-8", "replace").decode() for text in texts)
    kind = row.get("question_type")
    return " ".join(question.split()), answer, kind if kind in TYPES else "other"


def clean_answer(answer: str) -> str:
    """Put an answer in lower case on one line, without a final period; nothing else is taken from it."""
    return " ".join(answer.lower().split()).removesuffix(".").rstrip()

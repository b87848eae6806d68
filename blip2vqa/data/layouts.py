"""Layouts of published data sets: how each is recognised, and how its rows are read.

Each reader turns what the file holds into one object a row, under the columns' usual names; what is missing in a row stays
out of it, and is named when the table is checked.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from blip2vqa.data.columns import find_column

KARPATHY = "Karpathy's split"


class Layout(NamedTuple):
    """One layout: its name, whether a file has it, and its rows."""

    name: str
    fits: Callable[..., bool]
    rows: Callable[..., list[dict]]


class BadLine(Exception):
    """A line of a text file that its layout has no place for: its position in the lines, and the reason."""


def find_layout(layouts: tuple[Layout, ...], content) -> Layout | None:
    """Return the first layout that fits the content of a file."""
    return next((layout for layout in layouts if layout.fits(content)), None)


# JSON: `data` is what the file holds, a list or an object.


def _first(data: object, key: str | None = None) -> dict:
    """Return the first object of a list, or of the list that `data` holds under `key`; {} where there is none."""
    items = data.get(key) if key and isinstance(data, dict) else None if key else data
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}


def _objects(data: dict, key: str) -> list[dict]:
    """List what stands under `key`, with {} for what is no object: its row is then named as an empty one."""
    items = data.get(key)
    return [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else []


def _numbered(id: object) -> str:
    """Name a picture of COCO 2017 by its number."""
    return f"{int(id):012d}.jpg" if str(id or "").isdecimal() else str(id or "")


def _coco_captions(data: dict) -> list[dict]:
    names = {str(image.get("id")): image.get("file_name") for image in _objects(data, "images")}
    return [
        {
            "image_name": names.get(str(one.get("image_id"))),
            "caption": one.get("caption"),
            "image_id": one.get("image_id"),
        }
        for one in _objects(data, "annotations")
    ]


def _karpathy(data: dict) -> list[dict]:
    # Pictures of val2014 that are for training have the split "restval".
    return [
        {
            "image_name": "/".join(str(image[key]) for key in ("filepath", "filename") if image.get(key)),
            "caption": sentence.get("raw"),
            "split": "train" if image.get("split") == "restval" else image.get("split"),
        }
        for image in _objects(data, "images")
        for sentence in _objects(image, "sentences")
    ]


def _textvqa(data: dict) -> list[dict]:
    return [_image_first(item, item.get("image_id")) for item in _objects(data, "data")]


def _aokvqa(data: list) -> list[dict]:
    rows = []
    for item in data:
        more = {key: value for key, value in item.items() if key != "direct_answers"}
        row = _image_first(more, _numbered(item.get("image_id")))
        if "direct_answers" in item:
            row["answers"] = item["direct_answers"]
        rows.append(row)
    return rows


def _gqa(data: dict) -> list[dict]:
    return [{"question_id": id, "image_name": item.get("imageId")} | item for id, item in data.items()]


def _objects_by_id(data: dict) -> list[dict]:
    return [{"question_id": id} | item for id, item in data.items()]


def _visual_genome(data: list) -> list[dict]:
    # The objects of questions and answers are long lists that nothing here reads.
    return [
        {"image_name": str(qa.get("image_id", item.get("id", item.get("image_id", ""))))}
        | {key: qa.get(key) for key in ("question", "answer", "qa_id")}
        for item in data
        for qa in _objects(item, "qas")
    ]


def _image_first(item: dict, image: object) -> dict:
    """Put the picture's name in front of an object that has none of its own."""
    return item if "image" in item or "image_name" in item else {"image_name": image, **item}


def _known(names) -> bool:
    """Return whether one of these names is a usual name of questions, answers or captions."""
    return any(find_column("", list(names), kind) for kind in ("question", "answer", "caption"))


def _by_id(data: object) -> bool:
    return _holds(data, dict) and _known(next(iter(data.values()))) and not _known(data)


def _by_column(data: object) -> bool:
    """Recognise lists of one length, or objects with the same keys, as pandas writes them."""
    if not (_holds(data, list) or _holds(data, dict)) or not _known(data):
        return False
    one, *others = data.values()
    return all(len(one) == len(other) and (isinstance(one, list) or one.keys() == other.keys()) for other in others)


def _holds(data: object, kind: type) -> bool:
    return isinstance(data, dict) and bool(data) and all(isinstance(value, kind) for value in data.values())


def _columns(data: dict) -> list[dict]:
    columns = [list(column.values()) if isinstance(column, dict) else column for column in data.values()]
    return [dict(zip(data, row, strict=True)) for row in zip(*columns, strict=True)]


def _lists(data: object) -> list[list]:
    """List the lists of objects that an object holds."""
    lists = [value for value in data.values() if isinstance(value, list)] if isinstance(data, dict) else []
    return [value for value in lists if value and all(isinstance(item, dict) for item in value)]


JSON_LAYOUTS = (
    Layout("COCO captions", lambda data: "caption" in _first(data, "annotations") and "images" in data, _coco_captions),
    Layout(KARPATHY, lambda data: "sentences" in _first(data, "images"), _karpathy),
    Layout("TextVQA", lambda data: {"question", "image_id"} <= _first(data, "data").keys(), _textvqa),
    Layout("Visual Genome's questions", lambda data: isinstance(data, list) and "qas" in _first(data), _visual_genome),
    Layout(
        "A-OKVQA",
        lambda data: isinstance(data, list) and {"question", "choices", "image_id"} <= _first(data).keys(),
        _aokvqa,
    ),
    Layout("VizWiz", lambda data: isinstance(data, list) and "answerable" in _first(data), list),
    Layout("GQA", lambda data: _by_id(data) and "imageId" in next(iter(data.values())), _gqa),
    Layout("objects by their id", _by_id, _objects_by_id),
    Layout("lists by column", _by_column, _columns),
    Layout("a list of objects inside an object", lambda data: len(_lists(data)) == 1, lambda data: _lists(data)[0]),
)

# Text: `lines` are those of the file that are not blank.

_TOKEN = re.compile(r"([^\t]+?)#(\d+)\t(.*)")
_ROOM = re.compile(r"\bimage\s?\d+\b", re.IGNORECASE)
_ROOM_AT_END = re.compile(r"(\s+(in|on|of|from|at))?(\s+(the|this))?\s+image\s?\d+\s*\?*\s*$", re.IGNORECASE)


def _flickr(lines: list[str]) -> list[dict]:
    found = [(_TOKEN.fullmatch(line), line) for line in lines]
    return [{"image_name": m[1], "caption": m[3]} if m else {"image_name": line} for m, line in found]


def _is_daquar(lines: list[str]) -> bool:
    """Recognise a question with its picture in every second line, or nearly so: a line may be missing."""
    first = lines[:20]
    questions = sum(bool(_ROOM.search(line)) and line.endswith("?") for line in first)
    return all(map(_ROOM.search, first[::2])) or (len(first) >= 6 and abs(2 * questions - len(first)) <= 2)


def _daquar(lines: list[str]) -> list[dict]:
    """Take the picture's name out of the question: "what is on the desk in the image3 ?" """
    asks = [bool(_ROOM.search(line)) for line in lines]
    if len(lines) % 2 or any(answered and not asked for asked, answered in zip(asks[::2], asks[1::2], strict=True)):
        places = (place + asks[place] for place in range(0, len(lines) - 1, 2) if asks[place + 1])
        raise BadLine(
            next(places, len(lines) - 1),
            "question and answer do not stand in turn here: a line is missing, or one too many",
        )
    rows = []
    for question, answer in zip(lines[::2], lines[1::2], strict=True):
        named = _ROOM.search(question)
        rows.append(
            {
                "image_name": named and named[0].replace(" ", ""),
                "question": _ROOM_AT_END.sub("?", question).strip(),
                "answer": answer.strip(),
            }
        )
    return rows


TEXT_LAYOUTS = (
    Layout("Flickr's captions", lambda lines: bool(_TOKEN.fullmatch(lines[0])), _flickr),
    Layout("DAQUAR", _is_daquar, _daquar),
)

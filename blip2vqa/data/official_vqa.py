"""The official VQA files: questions, and the annotations that belong to them (https://visualqa.org/download.html)."""

from pathlib import Path

import pandas as pd

from blip2vqa.data.columns import NAMES
from blip2vqa.data.raw_table import RawTable, as_text, name_rows
from blip2vqa.utils.errors import InputError

LAYOUT = "official VQA"
VQA_COLUMNS = {
    "answer": "multiple_choice_answer",
    "annotator_question_type": "question_type",
    "answer_type": "answer_type",
}  # column here → key in the official annotations
USUAL_IMAGES = {name for group in NAMES["image"][:2] for name in group}


def is_official(data: object) -> bool:
    """Recognise the official questions; files with their pictures' names in them, like CLEVR's, are other ones."""
    questions = data.get("questions") if isinstance(data, dict) else None
    first = questions[0] if isinstance(questions, list) and questions else {}
    return isinstance(questions, list) and not (isinstance(first, dict) and USUAL_IMAGES & first.keys())


def read_vqa(path: Path, data: dict, annotations_path: Path | None, annotations: object) -> RawTable:
    """Read the official pair of files (https://visualqa.org/download.html); pictures are named as COCO names them."""
    questions = data["questions"]
    try:
        ids = [str(item["question_id"]) for item in questions]
        # "test-dev2015" is a subset of the questions about the pictures of "test2015"
        subtype = str(data.get("data_subtype", "")).replace("-dev", "")
        prefix = f"COCO_{subtype}_" if subtype else ""  # COCO of 2017 has no prefix
        frame = pd.DataFrame(
            {
                "image_name": [f"{prefix}{int(item['image_id']):012d}.jpg" for item in questions],
                "question": [as_text(item["question"]) for item in questions],
                "question_id": ids,
            },
            index=range(1, len(questions) + 1),
            dtype=object,
        )
    except (KeyError, TypeError, ValueError) as error:
        needs = "every question needs question_id, image_id (a number) and question"
        raise InputError(f"{path}: {needs} ({type(error).__name__}: {error})") from error
    if annotations_path is None:
        return RawTable(frame, layout=LAYOUT)

    try:
        by_id = {str(item["question_id"]): item for item in annotations["annotations"]}
        found = [by_id.get(id, {"answers": []}) for id in ids]
        answers = [[as_text(answer["answer"]) for answer in item["answers"]] for item in found]
        for column, key in VQA_COLUMNS.items():
            frame[column] = [as_text(item.get(key)) for item in found]
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{annotations_path}: not an official VQA annotations file ({reason})") from error
    missing = [id for id in ids if id not in by_id]
    if ids and len(missing) == len(ids):
        raise InputError(f"{annotations_path}: no annotation for any question of {path}: these belong to another file")
    if missing:
        raise InputError(
            f"{annotations_path}: no annotation for {len(missing)} of {len(ids)} questions of {path}: "
            f"{name_rows(missing, 'question_id')}"
        )
    return RawTable(frame, {"answers": answers}, layout=LAYOUT)

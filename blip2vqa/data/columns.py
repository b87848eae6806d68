"""Finds the columns of a table by the names that people give them, or by the name that the user says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blip2vqa.utils.errors import InputError

# By kind, groups of names: a name of a later group counts only where the table has none of an earlier one. The first group
# is what the documentation calls the column.
NAMES = {
    "image": (
        ("image_name",),
        (
            "image", "image_path", "img_path", "full_image_path", "path", "filename", "file_name", "file_path", "image_file",
            "image_filename", "image_file_name", "image_file_path", "img", "img_name", "img_file", "picture", "photo", "file",
            "image_local_name",
        ),
        ("image_id", "img_id"),
    ),
    "question": (("question",), ("questions", "question_text", "full_question", "query", "question_str")),
    "answer": (
        ("answer",),
        ("answers",),
        (
            "true_answer", "correct_answer", "expected_answer", "ground_truth", "ground_truth_answer", "gt", "gt_answer",
            "gold", "gold_answer", "reference", "reference_answer", "target", "target_answer", "direct_answers",
            "multiple_choice_answer", "answer_text",
        ),
        ("label", "labels"),
    ),
    "caption": (
        ("caption",),
        ("captions",),
        (
            "text", "comment", "description", "sentence", "sentences", "raw_caption", "caption_text", "caption_str", "alt_text",
            "raw",
        ),
    ),
    "choices": (("choices",), ("options", "multiple_choices", "answer_choices", "candidates")),
    "prediction": (
        ("generated_answer",),
        (
            "predicted_answer", "prediction", "predictions", "pred", "preds", "predicted", "pred_answer", "model_answer",
            "model_prediction", "answer_pred", "generated", "generated_text", "response", "output",
        ),
    ),
}  # fmt: skip
FLAGS = {"caption": "answer_column"} | {
    kind: f"{kind}_column" for kind in ("image", "question", "answer", "prediction")
}


@dataclass(frozen=True)
class ColumnNames:
    """What the user says of a table's columns; None leaves it to `find_column`."""

    image: str | None = None
    question: str | None = None
    answer: str | None = None
    """Also the column of captions."""
    prediction: str | None = None
    separator: str | None = None
    """What stands between several questions, and several answers, in one cell."""


def find_column(path: str, columns: Sequence[str], kind: str, asked: str | None = None) -> str | None:
    """Find the column of a `kind` of NAMES: the one `asked` for, else the one with a usual name; None where there is none.

    Capitals, blanks, hyphens and underscores do not matter. Raises InputError where `asked` is not there, and where two
    usual names stand side by side.
    """
    if asked is not None:
        found = [name for name in columns if name == asked] or [
            name for name in columns if _plain(name) == _plain(asked)
        ]
        if not found:
            raise InputError(f"{path}: --{FLAGS[kind]} {asked}: no such column; its columns are {', '.join(columns)}")
        return found[0]
    found = usual_columns(columns, kind)
    if len(found) > 1:
        which = f"say which by --{FLAGS[kind]}" if kind in FLAGS else "rename one"
        raise InputError(f"{path}: {' and '.join(found)} may each be the {kind}s' column; {which}")
    return found[0] if found else None


def usual_columns(columns: Sequence[str], kind: str) -> list[str]:
    """List the columns that have usual names of a `kind` of NAMES, of the first group that any has."""
    if NAMES[kind][0][0] in columns:
        return [NAMES[kind][0][0]]
    groups = ([name for name in columns if _plain(name) in map(_plain, group)] for group in NAMES[kind])
    return next(filter(None, groups), [])


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())

"""The files of a finished data set: tables, provenance, split."""

import csv
import io
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from blip2vqa.errors import raise_all
from blip2vqa.files import write_json_atomic, write_text_atomic
from blip2vqa.vqa_generation.rows import Question

COLUMNS = ("image_name", "question", "answer", "question_type", "item_id", "product_type", "source")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Files:
    """Where everything goes: `vqa.csv` and, beside it, files of its name with other endings."""

    table: Path

    def __getattr__(self, name: str) -> Path:
        return self.table.with_suffix(_ENDINGS[name]) if name in _ENDINGS else self.__getattribute__(name)

    def check(self, overwrite: bool, json_output: str | None = None) -> None:
        """Raise `InputError` for a data set that is there already, or a folder that cannot be written to."""
        problems = []
        for flag, path in (("output_path", self.table), ("json_output", json_output and Path(json_output))):
            if path and path.exists() and not overwrite:
                problems.append(f"--{flag} {path}: is already there, finished; name another, or --overwrite true")
        try:
            self.table.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.table.parent).close()
        except OSError as error:
            problems.append(f"--output_path {self.table}: its folder cannot be written to: {error.strerror or error}")
        raise_all(problems)


_ENDINGS = {
    **{split: f".{split}.csv" for split in SPLITS},
    "provenance": ".jsonl",
    "card": ".md",
    "chart": ".png",
    "preview": ".html",
    "responses": ".responses.jsonl",
    "run": ".run.json",
}


def split_of(questions: Sequence[Question], val_split: float, test_split: float, seed: int) -> dict[int, str]:
    """Group → train, val or test. The shares are of the pictures; a group of pictures of one product, or of look-alikes, is on
    one side. Drawn by the seed, whatever the order of the questions."""
    pictures = defaultdict(set)
    for question in questions:
        pictures[question.item.group].add(question.item.image_name)
    order = sorted(pictures, key=lambda group: min(pictures[group]))
    Random(seed).shuffle(order)
    total, sides = sum(map(len, pictures.values())), {}
    for side, share in (("val", val_split), ("test", test_split)):
        count = 0
        for group in order:
            # One so large that with it the side is further from its share than without goes elsewhere.
            if group not in sides and count + len(pictures[group]) / 2 < share * total:
                sides[group] = side
                count += len(pictures[group])
    return {group: sides.get(group, "train") for group in order}


def write_tables(files: Files, questions: Sequence[Question], sides: dict[int, str]) -> None:
    """`vqa.csv` last: where it stands, the others stand, too."""
    for split in SPLITS:
        _write_csv(getattr(files, split), [question for question in questions if sides[question.item.group] == split])
    _write_csv(files.table, questions)


def _write_csv(path: Path, questions: Sequence[Question]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row[column] for column in COLUMNS] for row in map(as_row, questions))
    write_text_atomic(path, buffer.getvalue())


def as_row(question: Question) -> dict[str, str]:
    """A row of the table."""
    item = question.item
    return {
        "image_name": item.image_name,
        "question": question.question,
        "answer": question.answer,
        "question_type": question.question_type,
        "item_id": item.item_id,
        "product_type": item.product_type,
        "source": question.source,
    }


def write_provenance(files: Files, questions: Sequence[Question], sides: dict[int, str]) -> None:
    """Every question that was asked, kept or not: one JSON object a line."""
    lines = []
    for question in questions:
        kept = all(verdict == "kept" for verdict in question.verdicts.values())
        row = as_row(question) | {
            "split": sides.get(question.item.group) if kept else None,
            "kept": kept,
            "verdicts": question.verdicts,
            "raw_answer": question.raw_answer,
            "prompt_hash": question.prompt_hash,
            "image_sha256": question.item.digest,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text_atomic(files.provenance, "".join(lines))


def write_json(path: str, summary: dict, questions: Sequence[Question], sides: dict[int, str]) -> None:
    """Summary and rows as one JSON file."""
    rows = [as_row(question) | {"split": sides[question.item.group]} for question in questions]
    write_json_atomic(path, {"summary": summary, "rows": rows})

"""The files of a finished data set: tables, provenance, split."""

import csv
import io
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.generate.report.contact_sheet import write_contact_sheet
from blip2vqa.generate.rows import Question
from blip2vqa.utils.errors import raise_all
from blip2vqa.utils.files import write_json_atomic, write_text_atomic

COLUMNS = ("image_name", "question", "answer", "question_type", "item_id", "product_type", "source")
SPLITS = ("train", "val", "test")


ENDINGS = {
    "train": ".train.csv", "val": ".val.csv", "test": ".test.csv", "provenance": ".jsonl", "card": ".md", "chart": ".png",
    "preview": ".html", "run": ".run.json", "responses": ".responses.jsonl", "unfinished": ".unfinished.txt",
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Where everything goes: `vqa.csv` and, beside it, files of its name with other endings."""

    table: Path
    train: Path
    val: Path
    test: Path
    provenance: Path
    card: Path
    chart: Path
    preview: Path
    run: Path
    responses: Path
    """What a back end said; added to by every run."""
    unfinished: Path
    """Why the same command would go on; there while files are written, and as long as pictures are still to be asked about."""

    @classmethod
    def of(cls, table: str | Path) -> "Files":
        """Those of a table."""
        return cls(Path(table), **{name: Path(table).with_suffix(ending) for name, ending in ENDINGS.items()})

    def check(self, overwrite: bool, json_output: str | None = None, inputs: Sequence[str | None] = ()) -> None:
        """Raise `InputError` for files that would be written over, or cannot be written; an unfinished data set may be."""
        written = [self.table, *(getattr(self, name) for name in ENDINGS if name not in ("responses", "unfinished"))]
        problems = []
        if json_output and Path(json_output).resolve() in [path.resolve() for path in (*written, self.responses)]:
            problems.append(f"--json_output {json_output}: is a file of --output_path {self.table}, too; name another")
        for path in filter(None, inputs):
            if Path(path).resolve() in [one.resolve() for one in (*written, Path(json_output or self.table))]:
                problems.append(f"--output_path {self.table}: would write over {path}, which it reads; name another")
        there = [path for path in written if path.exists()] if not self.unfinished.exists() else []
        if there and not overwrite:
            what = "is already there, finished" if self.table in there else f"{there[0].name} is already there"
            problems.append(f"--output_path {self.table}: {what}; name another, or --overwrite true")
        if json_output and Path(json_output).exists() and not (overwrite or self.unfinished.exists()):
            problems.append(f"--json_output {json_output}: is already there; name another, or --overwrite true")
        for flag, path in (("output_path", self.table), ("json_output", json_output and Path(json_output))):
            if path:
                problems += _not_writable(flag, path)
        raise_all(problems)


def _not_writable(flag: str, path: Path) -> list[str]:
    if path.is_dir():
        return [f"--{flag} {path}: is a folder; name a file"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        return [f"--{flag} {path}: its folder cannot be written to: {error.strerror or error}"]
    return []


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
    """The splits that have questions, then `vqa.csv`: where it stands, the others stand, too."""
    for split in SPLITS:
        rows = [question for question in questions if sides[question.item.group] == split]
        if rows:
            _write_csv(getattr(files, split), rows)
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


def write_preview(files: Files, questions: Sequence[Question], number: int, seed: int) -> None:
    """So many pictures, drawn by the seed, with all their questions, on one page."""
    by_picture: dict[str, list[Question]] = {}
    for question in questions:
        by_picture.setdefault(question.item.image_name, []).append(question)
    shown = Random(seed).sample(sorted(by_picture), min(number, len(by_picture)))

    def pictures() -> Iterator[tuple]:
        for name in shown:
            item = by_picture[name][0].item
            try:
                image = open_image(ImageSource(name, path=item.path))
            except BadImage:  # gone since it was looked at
                image = None
            yield item, image, by_picture[name]

    summary = f"{len(shown)} of {len(by_picture):,} pictures, drawn by seed {seed}; {len(questions):,} questions in all"
    write_contact_sheet(files.preview, pictures(), f"{files.table.name}: a look", summary)

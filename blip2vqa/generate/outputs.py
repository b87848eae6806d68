"""The files of a data set: whether they may be written, what stands in each, and its split."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pandas as pd
from PIL import Image

from blip2vqa.config.generate import QuestionArguments
from blip2vqa.config.paths import for_file
from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.generate.report.contact_sheet import write_contact_sheet
from blip2vqa.generate.report.data_card import data_card
from blip2vqa.generate.report.distributions import draw_distributions
from blip2vqa.generate.rows import Item, Question
from blip2vqa.utils.errors import InputError, file_error, raise_all
from blip2vqa.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic


class Files:
    """Paths of a data set: its table `vqa.csv` and, beside it, files of its name with other endings."""

    def __init__(self, table: str | Path):
        self.table = Path(table)
        self.train = self.table.with_suffix(".train.csv")
        self.val = self.table.with_suffix(".val.csv")
        self.test = self.table.with_suffix(".test.csv")
        self.provenance = self.table.with_suffix(".jsonl")
        self.card = self.table.with_suffix(".md")
        self.chart = self.table.with_suffix(".png")
        self.preview = self.table.with_suffix(".html")
        self.run = self.table.with_suffix(".run.json")
        self.written = list(vars(self).values())
        """The files that make up a finished data set."""
        self.responses = self.table.with_suffix(".responses.jsonl")
        """What a back end responded; every run adds to it."""
        self.unfinished = self.table.with_suffix(".unfinished.txt")
        """Why the same command would go on; there while files are written, and as long as pictures lack an answer."""

    def check(self, overwrite: bool, json_output: str | None = None, inputs: Sequence[str | None] = ()) -> None:
        """Raise `InputError` for files that would be written over, or cannot be written; an unfinished data set may be."""
        problems = []
        if json_output and Path(json_output).resolve() in [path.resolve() for path in (*self.written, self.responses)]:
            problems.append(f"--json_output {json_output}: is a file of --output_path {self.table}, too; name another")
        for path in filter(None, inputs):
            if Path(path).resolve() in [one.resolve() for one in (*self.written, Path(json_output or self.table))]:
                problems.append(f"--output_path {self.table}: would write over {path}, which it reads; name another")
        may_overwrite = overwrite or self.unfinished.exists()
        there = [path for path in self.written if path.exists()]
        if there and not may_overwrite:
            what = "is already there, finished" if self.table in there else f"{there[0].name} is already there"
            problems.append(f"--output_path {self.table}: {what}; name another, or --overwrite true")
        if json_output and Path(json_output).exists() and not may_overwrite:
            problems.append(f"--json_output {json_output}: is already there; name another, or --overwrite true")
        raise_all(problems)
        _check_writable("output_path", self.table)
        if json_output:
            _check_writable("json_output", Path(json_output))


def _check_writable(flag: str, path: Path) -> None:
    if path.is_dir():
        raise InputError(f"--{flag} {path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise file_error(f"--{flag} {path}: its folder cannot be written to", error) from error


def split_of(questions: Sequence[Question], val_split: float, test_split: float, seed: int) -> dict[int, str]:
    """Assign each group of pictures to train, val or test; returns the side by group.

    The shares are of the pictures. The seed draws the groups, whatever the order of the questions.
    """
    pictures = defaultdict(set)
    for question in questions:
        pictures[question.item.group].add(question.item.image_name)
    order = sorted(pictures, key=lambda group: min(pictures[group]))
    Random(seed).shuffle(order)
    total, sides = sum(map(len, pictures.values())), {}
    for side, share in (("val", val_split), ("test", test_split)):
        count = 0
        for group in order:
            # A group so large that with it the side is further from its share than without goes elsewhere.
            if group not in sides and count + len(pictures[group]) / 2 < share * total:
                sides[group] = side
                count += len(pictures[group])
    return {group: sides.get(group, "train") for group in order}


def write_data_set(
    files: Files, args: QuestionArguments, settings: dict, summary: dict, kept: Sequence[Question],
    dropped: Sequence[Question], sides: dict[int, str],
) -> None:  # fmt: skip
    """Write all files, the tables last: where `vqa.csv` stands and no unfinished.txt, all are there, and of one run.

    Raises OSError where one cannot be written.
    """
    unfinished = summary["cost"] and summary["cost"]["unfinished"]
    why = unfinished or "stopped while the files were written"
    write_text_atomic(files.unfinished, f"{why}; the same command goes on\n")
    # A run that repeats this one has other places to write to.
    places = ("json_output", "overwrite")
    lasting = {name: value for name, value in settings.items() if name not in places}
    write_json_atomic(files.run, for_file(lasting, files.run.parent))
    write_provenance(files, sorted([*kept, *dropped], key=lambda question: question.item.image_name), sides)
    write_bytes_atomic(files.chart, draw_distributions(summary))
    write_text_atomic(files.card, data_card(summary, files.chart.name))
    if args.preview:
        write_preview(files, kept, args.preview, args.seed)
    if args.json_output:
        write_json(args.json_output, summary, kept, sides)
    for path in (files.table, files.train, files.val, files.test, *([] if args.preview else [files.preview])):
        path.unlink(missing_ok=True)  # of an earlier data set: not every split has questions again
    write_tables(files, kept, sides)
    if not unfinished:
        files.unfinished.unlink(missing_ok=True)


def write_tables(files: Files, questions: Sequence[Question], sides: dict[int, str]) -> None:
    """Write the splits that have questions, then `vqa.csv`: where it stands, the others stand, too."""
    for split in ("train", "val", "test"):
        rows = [question for question in questions if sides[question.item.group] == split]
        if rows:
            _write_csv(getattr(files, split), rows)
    _write_csv(files.table, questions)


def _write_csv(path: Path, questions: Sequence[Question]) -> None:
    table = pd.DataFrame(map(as_row, questions), dtype=object)
    write_text_atomic(path, table.to_csv(index=False, lineterminator="\n"))


def as_row(question: Question) -> dict[str, str]:
    """Fill the columns of the table for a question."""
    item = question.item
    return {
        "image_name": item.image_name, "question": question.question, "answer": question.answer,
        "question_type": question.question_type, "item_id": item.item_id, "product_type": item.product_type,
        "source": question.source,
    }  # fmt: skip


def write_provenance(files: Files, questions: Sequence[Question], sides: dict[int, str]) -> None:
    """Write every question that was asked, kept or not: one JSON object a line."""
    lines = []
    for question in questions:
        row = as_row(question) | {
            "split": sides.get(question.item.group) if question.kept else None,
            "kept": question.kept,
            "verdicts": question.verdicts,
            "raw_answer": question.raw_answer,
            "prompt_hash": question.prompt_hash,
            "image_sha256": question.item.digest,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text_atomic(files.provenance, "".join(lines))


def write_json(path: str, summary: dict, questions: Sequence[Question], sides: dict[int, str]) -> None:
    """Write summary and rows as one JSON file."""
    rows = [as_row(question) | {"split": sides[question.item.group]} for question in questions]
    write_json_atomic(path, {"summary": summary, "rows": rows})


def write_preview(files: Files, questions: Sequence[Question], number: int, seed: int) -> None:
    """Write one page with `number` pictures, drawn by the seed, and all their questions."""
    by_picture: dict[str, list[Question]] = {}
    for question in questions:
        by_picture.setdefault(question.item.image_name, []).append(question)
    shown = Random(seed).sample(sorted(by_picture), min(number, len(by_picture)))

    def picture(item: Item) -> Image.Image | None:
        try:
            return open_image(ImageSource(item.image_name, path=item.path))
        except BadImage:  # gone since it was measured
            return None

    items = (by_picture[name][0].item for name in shown)
    pictures = ((item, picture(item), by_picture[item.image_name]) for item in items)
    summary = f"{len(shown)} of {len(by_picture):,} pictures, drawn by seed {seed}; {len(questions):,} questions in all"
    write_contact_sheet(files.preview, pictures, f"{files.table.name}: a look", summary)

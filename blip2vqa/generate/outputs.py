"""Split a finished data set, and write its files."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from blip2vqa.config.generate import QuestionArguments
from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.generate.files import Files
from blip2vqa.generate.report.contact_sheet import write_contact_sheet
from blip2vqa.generate.report.data_card import data_card
from blip2vqa.generate.report.distributions import draw_distributions
from blip2vqa.generate.rows import Question
from blip2vqa.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic

COLUMNS = ("image_name", "question", "answer", "question_type", "item_id", "product_type", "source")
SPLITS = ("train", "val", "test")


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
    write_json_atomic(files.run, {name: value for name, value in settings.items() if name not in places})
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
    for split in SPLITS:
        rows = [question for question in questions if sides[question.item.group] == split]
        if rows:
            _write_csv(getattr(files, split), rows)
    _write_csv(files.table, questions)


def _write_csv(path: Path, questions: Sequence[Question]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(as_row, questions))
    write_text_atomic(path, buffer.getvalue())


def as_row(question: Question) -> dict[str, str]:
    """Fill the columns of the table for a question."""
    item = question.item
    cells = (
        item.image_name, question.question, question.answer, question.question_type, item.item_id, item.product_type,
        question.source,
    )  # fmt: skip
    return dict(zip(COLUMNS, cells, strict=True))


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

    def pictures() -> Iterator[tuple]:
        for name in shown:
            item = by_picture[name][0].item
            try:
                image = open_image(ImageSource(name, path=item.path))
            except BadImage:  # gone since it was measured
                image = None
            yield item, image, by_picture[name]

    summary = f"{len(shown)} of {len(by_picture):,} pictures, drawn by seed {seed}; {len(questions):,} questions in all"
    write_contact_sheet(files.preview, pictures(), f"{files.table.name}: a look", summary)

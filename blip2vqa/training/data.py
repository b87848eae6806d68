"""The examples of a run: read, checked and split, and the request by which a base is asked about them."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState

from blip2vqa.config.base import column_names
from blip2vqa.data.answers import normalize_answer, parse_question_types
from blip2vqa.data.bad_rows import BadRow, leave_out
from blip2vqa.data.captions import group_by_image, load_captions
from blip2vqa.data.examples import Example, load_examples, of_types
from blip2vqa.data.splits import check_disjoint, split_by_image
from blip2vqa.evaluation.question_only import BlindScore, blind_score
from blip2vqa.evaluation.tasks import CAPTION
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.answer_lists import AnswerList, read_answers
from blip2vqa.models.families import family_of
from blip2vqa.models.family import Family
from blip2vqa.models.text import PromptEncoder
from blip2vqa.training.collators import COLLATORS
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

logger = logging.getLogger(__name__)

BAD_IMAGES = "bad_images.csv"
BAD_ROWS = "bad_rows.csv"
TABLE = "table"
"""The value of `--answers` that stands for the answers of the training table."""


class Rows(NamedTuple):
    """Checked examples on both sides of the split, whatever base will learn them."""

    train: list[Example]
    val: list[Example]
    """As they are scored: an image is captioned once, against all of its captions."""
    skipped: list[BadRow]
    """Of the training table."""
    skipped_val: Sequence[BadRow] = ()
    """Of a validation table of its own."""


@dataclass(frozen=True)
class RunData:
    """What one base learns and is scored on, and how it is asked."""

    rows: Rows
    """As they were read."""
    train: list[Example]
    """The rows of training, without those whose answer is none of `answers`."""
    request: AnswerRequest
    answers: tuple[str, ...] | None = None
    """The answers that the base chooses among; None allows any."""
    note: str = ""
    """What the list of answers leaves out, in words."""

    @property
    def val(self) -> list[Example]:
        """The examples that scores are computed on."""
        return self.rows.val

    @property
    def text(self) -> PromptEncoder:
        """The encoder that turns questions and answers into tensors."""
        return self.request.text

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of what is learnt, whatever the order of the rows: images (by content), questions and answers."""
        rows = sorted(json.dumps([example.digest, example.question, example.answers]) for example in self.train)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @cached_property
    def blind(self) -> BlindScore:
        """Share of the answers, on both sides of the split, that the questions' text alone gives away.

        Images are held out whole: the rows of one are never guessed from one another.
        """
        rows = [example for example in self.train + self.val if example.answer]
        columns = zip(*((row.question, row.answer, row.digest) for row in rows), strict=True)
        return blind_score(*columns) if rows else BlindScore(None, 0)


def load_rows(run: Run) -> Rows:
    """Read, check and split the tables. Raises `InputError` with every problem found."""
    data, problems = run.data, []
    found = collect_errors(problems, _load_table, run, data.csv_path, data.annotations_path, "")
    if data.eval_csv_path:
        given = data.eval_csv_path, data.eval_annotations_path, "eval_"
        found_val = collect_errors(problems, _load_table, run, *given)
    raise_all(problems)
    train, skipped = found
    val, skipped_val = found_val if data.eval_csv_path else ([], [])
    if not data.eval_csv_path:
        # A share out of range has been reported with the arguments.
        share = data.val_split if 0 < data.val_split < 1 else 0.5
        train, val = split_by_image(train, share, run.training.seed)
    val = group_by_image(val) if run.task is CAPTION else val
    shared = check_disjoint(train, val)
    if shared and PartialState().is_main_process:
        logger.warning("%d images stand in both tables: the validation score will flatter the adapter", shared)
    return Rows(train, val, skipped, skipped_val)


def _load_table(run: Run, csv_path: str, annotations_path: str | None, side: str) -> tuple[list[Example], list[BadRow]]:
    """Read the examples of one table, and list the rows left out; `side` begins the names of the lists of these."""
    data, main = run.data, PartialState().is_main_process
    options = {
        "on_bad_image": data.on_bad_image,
        "bad_images_path": run.folder / f"{side}{BAD_IMAGES}" if main else None,
        "on_bad_row": data.on_bad_row,
        "bad_rows_path": run.folder / f"{side}{BAD_ROWS}" if main else None,
        "columns": column_names(data),
        "progress": main,
    }
    if run.task is CAPTION:
        style = Path(data.style).stem if data.style and data.captions == "style" else None
        # Captions of a style that is not named have been reported with the arguments.
        choose = "all" if data.captions == "style" and not style else data.captions
        options |= {"choose": choose, "style": style, "split": "val" if side else "train"}
        return load_captions(csv_path, data.image_dir, **options)
    options["question_type_column"] = data.question_type_column
    examples, bad = load_examples(csv_path, data.image_dir, annotations_path, **options)
    types = collect_errors([], parse_question_types, data.question_types)  # reported with the arguments, too
    return (of_types(examples, types, csv_path) if types else examples), bad


def build_run_data(run: Run, rows: Rows, processor, config) -> RunData:
    """Build the text encoder, the list of answers and the request for one base.

    Raises `InputError`, with every problem found, for rows or options that this base cannot be asked by.
    """
    family, problems = family_of(config), []
    if run.task is CAPTION and family.caption_prompt is None:
        raise InputError(
            f"--task caption: {family.name} chooses or writes answers to questions; it cannot write captions"
        )
    prompt = run.data.prompt or (family.caption_prompt if run.task is CAPTION else family.prompt)
    train, answers, note = _answers_allowed(run, rows, family)
    text = family.text_encoder(processor, config, prompt, answers)
    tree = collect_errors(problems, text.constraint)
    refused = COLLATORS[text.answers_with].REFUSED
    problems += [f"--{option}: {remedy}" for option, remedy in refused.items() if getattr(run.training, option)]
    room, row = run.decoding.max_new_tokens, run.training.tokens_per_row if text.shares_image else 0
    problems += text.problems_of_all(train + rows.val, row)
    rows, train = collect_errors(
        problems, _without_too_long, run, rows, train, partial(text.problems_by_row, answer_room=room)
    ) or (rows, train)
    raise_all(problems)
    return RunData(rows, train, AnswerRequest(text, run.decoding, tree), answers, note)


def _without_too_long(
    run: Run, rows: Rows, train: list[Example], problems_by_row: Callable[[list[Example]], list[tuple[int, str]]]
) -> tuple[Rows, list[Example]]:
    """Leave out the rows that a base cannot be given; raises `InputError` with them unless `--on_bad_row skip`."""
    data, main = run.data, PartialState().is_main_process
    problems: list[str] = []

    def drop(side: str, path: str, examples: list[Example], skipped: list[BadRow]) -> tuple[set[int], list[BadRow]]:
        listing = run.folder / f"{side}{BAD_ROWS}" if main else None
        _, bad, found = leave_out(path, examples, problems_by_row(examples), data.on_bad_row, listing, skipped)
        problems.extend(found)
        return {one.row for one in bad}, [*skipped, *bad]

    if data.eval_csv_path:
        lost, skipped = drop("", data.csv_path, train, rows.skipped)
        lost_val, skipped_val = drop("eval_", data.eval_csv_path, rows.val, rows.skipped_val)
    else:
        lost, skipped = drop("", data.csv_path, train + rows.val, rows.skipped)
        lost_val, skipped_val = lost, []
    kept, kept_val = (
        [one for one in side if one.row not in lost] for side, lost in ((rows.train, lost), (rows.val, lost_val))
    )
    for side, name in ((kept, "training"), (kept_val, "validation")):
        if not side and not problems:
            problems.append(f"no row is left for {name}: all of them are too long for this base")
    raise_all(problems)
    return Rows(kept, kept_val, skipped, skipped_val), [one for one in train if one.row not in lost]


def _answers_allowed(run: Run, rows: Rows, family: Family) -> tuple[list[Example], tuple[str, ...] | None, str]:
    """Choose the rows that can be learnt, the answers allowed (None: any), and a note on the rows left out."""
    if run.data.answers and run.data.answers != TABLE:
        answers = tuple(read_answers(run.data.answers))
        _, outside = _partition(rows.train + rows.val, answers)
        if outside:
            shown = "; ".join(f"row {example.row}: {example.answer!r}" for example in outside[:5])
            raise InputError(
                f"--answers {run.data.answers}: {len(outside)} rows of the tables have another answer ({shown}); add it to "
                "the list, or leave those rows out"
            )
        return rows.train, answers, ""
    if run.data.answers or family.needs_answers:
        listed = AnswerList.of(rows.train, run.data.min_answer_count)
        train, left_out = _partition(rows.train, listed.answers)
        _, lost = _partition(rows.val, listed.answers)
        note = (
            f"{listed.rare:,} rarer ones and {len(left_out):,} training questions left out; "
            f"{len(lost):,} of {len(rows.val):,} validation questions ask for others"
        )
        return train, listed.answers, note
    return rows.train, None, ""


def _partition(examples: list[Example], answers: tuple[str, ...]) -> tuple[list[Example], list[Example]]:
    """Divide examples into those with an answer among `answers`, after the official normalisation, and the others."""
    known = {normalize_answer(answer) for answer in answers}
    inside, outside = [], []
    for example in examples:
        named = any(normalize_answer(answer) in known for answer in example.answers)
        (inside if named else outside).append(example)
    return inside, outside


def count_images(examples: list[Example]) -> int:
    """Count the distinct images, by content."""
    return len({example.digest for example in examples})

"""The tables of a run on both sides of the split, and how a base is asked about them."""

import logging
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from accelerate import PartialState

from blip2vqa.adapters.files.manifest import data_hash
from blip2vqa.data.answers import normalize_answer, parse_question_types
from blip2vqa.data.captions import group_by_image, load_captions
from blip2vqa.data.examples import BadRow, Example, load_examples, of_types
from blip2vqa.data.splits import check_disjoint, split_by_image
from blip2vqa.evaluation.question_only import BlindScore, blind_score
from blip2vqa.evaluation.tasks import CAPTION
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.answer_lists import AnswerList, read_answers
from blip2vqa.models.families import family_of
from blip2vqa.models.family import Family
from blip2vqa.models.text import PromptEncoder
from blip2vqa.training.collators import refused_options
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

logger = logging.getLogger(__name__)

BAD_IMAGES = "bad_images.csv"
TABLE = "table"  # in place of a file of answers


@dataclass
class Tables:
    """Checked examples on both sides of the split, and how they are asked."""

    train: list[Example]
    val: list[Example]
    skipped: list[BadRow]
    request: AnswerRequest | None = None
    answers: tuple[str, ...] | None = None
    """The only ones there are; None: any."""
    note: str = ""
    """What the list of answers leaves out, in words."""

    @property
    def text(self) -> PromptEncoder:
        """What turns them into tensors."""
        return self.request.text

    @cached_property
    def sha256(self) -> str:
        """Of what is learnt, once it is known what is left out."""
        return data_hash(self.train)

    @cached_property
    def blind(self) -> BlindScore:
        """How many of the answers, of both sides, the questions' text gives away; pictures are held out whole."""
        rows = [example for example in self.train + self.val if example.answer]
        columns = zip(*((row.question, row.answer, row.digest) for row in rows), strict=True)
        return blind_score(*columns) if rows else BlindScore(None, 0)


def load_tables(run: Run) -> Tables:
    """Read, check and split the tables. Raises `InputError` with every problem found."""
    data, main, problems = run.data, PartialState().is_main_process, []

    def load(csv_path: str, annotations_path: str | None, bad_images: str) -> tuple[list[Example], list[BadRow]] | None:
        shared = {
            "on_bad_image": data.on_bad_image,
            "bad_images_path": run.folder / bad_images if main else None,
            "progress": main,
        }
        if run.task is CAPTION:
            style = Path(data.style).stem if data.style and data.captions == "style" else None
            choose = data.captions if style or data.captions != "style" else "all"  # a style missing has been reported
            load = partial(load_captions, csv_path, data.image_dir, choose=choose, style=style, **shared)
            return collect_errors(problems, load)
        load = partial(load_examples, csv_path, data.image_dir, annotations_path, **shared)
        found = collect_errors(problems, partial(load, question_type_column=data.question_type_column))
        types = collect_errors(
            [], parse_question_types, data.question_types
        )  # what is wrong with them has been reported
        if not found or not types:
            return found
        kept = collect_errors(problems, of_types, found[0], types, csv_path)
        return None if kept is None else (kept, found[1])

    loaded = load(data.csv_path, data.annotations_path, BAD_IMAGES)
    loaded_val = (
        load(data.eval_csv_path, data.eval_annotations_path, "eval_" + BAD_IMAGES) if data.eval_csv_path else None
    )
    raise_all(problems)
    train, skipped = loaded
    if loaded_val is None:
        # A share out of range has been reported with the arguments.
        share = data.val_split if 0 < data.val_split < 1 else 0.5
        train, val = split_by_image(train, share, run.training.seed)
        return Tables(train, _references(run, val), skipped)
    val, skipped_val = loaded_val
    val = _references(run, val)
    shared = check_disjoint(train, val)
    if shared and main:
        logger.warning("%d images stand in both tables: the validation score will flatter the adapter", shared)
    return Tables(train, val, skipped + skipped_val)


def _references(run: Run, val: list[Example]) -> list[Example]:
    """Validation examples as they are scored: a picture is captioned once, against all of its captions."""
    return group_by_image(val) if run.task is CAPTION else val


def ask_as(run: Run, tables: Tables, processor, config) -> None:
    """Find (in place) how the tables are asked of a base. Raises `InputError` for what it cannot be asked."""
    family, problems = family_of(config), []
    if run.task is CAPTION and family.caption_prompt is None:
        raise InputError(
            f"--task caption: {family.name} chooses or writes answers to questions; it cannot write captions"
        )
    prompt = run.data.prompt or (family.caption_prompt if run.task is CAPTION else family.prompt)
    collect_errors(problems, _close_answers, run, tables, family)
    raise_all(problems)
    text = family.text_encoder(processor, config, prompt, tables.answers)
    tree = collect_errors(problems, text.constraint)
    problems += refused_options(text, run.training)
    room, row = run.decoding.max_new_tokens, run.training.tokens_per_row if text.shares_image else 0
    collect_errors(problems, text.check_lengths, tables.train + tables.val, room, row)
    raise_all(problems)
    tables.request = AnswerRequest(text, run.decoding, tree)


def _close_answers(run: Run, tables: Tables, family: Family) -> None:
    """Find (in place) the only answers there are, if there is such a list, and leave out what a head cannot learn."""
    if run.data.answers and run.data.answers != TABLE:
        tables.answers = tuple(read_answers(run.data.answers))
        known = {normalize_answer(answer) for answer in tables.answers}
        outside = [e for e in tables.train + tables.val if not any(normalize_answer(a) in known for a in e.answers)]
        if outside:
            shown = "; ".join(f"row {example.row}: {example.answer!r}" for example in outside[:5])
            raise InputError(
                f"--answers {run.data.answers}: {len(outside)} rows of the tables have another answer ({shown}); add it to "
                "the list, or leave those rows out"
            )
    elif run.data.answers or family.needs_answers:
        listed = AnswerList.of(tables.train, run.data.min_answer_count)
        known = {normalize_answer(answer) for answer in listed.answers}
        able = [e for e in tables.train if any(normalize_answer(answer) in known for answer in e.answers)]
        lost = sum(not any(normalize_answer(answer) in known for answer in e.answers) for e in tables.val)
        tables.note = (
            f"{listed.rare:,} rarer ones and {len(tables.train) - len(able):,} training questions left out; "
            f"{lost:,} of {len(tables.val):,} validation questions ask for others"
        )
        tables.train, tables.answers = able, listed.answers


def count_images(examples: list[Example]) -> int:
    """Distinct images, by content."""
    return len({example.digest for example in examples})

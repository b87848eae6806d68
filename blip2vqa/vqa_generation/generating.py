"""One data set: catalogue in, questions asked, filtered, balanced, split and written."""

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from blip2vqa import __version__
from blip2vqa.blind import blind_score
from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.errors import InputError, raise_all
from blip2vqa.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from blip2vqa.reporting.contact_sheet import write_contact_sheet
from blip2vqa.reporting.data_card import data_card
from blip2vqa.reporting.distributions import draw_distributions
from blip2vqa.vqa_arguments import ApiArguments, CatalogueArguments, QuestionArguments, WriterArguments
from blip2vqa.vqa_generation.abo import read_products
from blip2vqa.vqa_generation.abo_layout import find_archive
from blip2vqa.vqa_generation.balance import balance
from blip2vqa.vqa_generation.blind_filter import FILTER, thin
from blip2vqa.vqa_generation.filters import FILTERS
from blip2vqa.vqa_generation.ledger import Ledger
from blip2vqa.vqa_generation.outputs import Files, split_of, write_json, write_provenance, write_tables
from blip2vqa.vqa_generation.rows import Item, Question
from blip2vqa.vqa_generation.selecting import choose_items
from blip2vqa.vqa_generation.table_catalogue import read_table_products
from blip2vqa.vqa_generation.templates import ask_templates, ask_unknown


@dataclass
class Funnel:
    """Questions as they pass the filters, and what each filter dropped."""

    left: list[Question]
    dropped: list[Question] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)

    def pass_through(self, step: str, reasons: Iterator[str | None] | Sequence[str | None]) -> None:
        """Apply one filter: for each question left, in order, None or why it goes."""
        kept, dropped = [], []
        for question, reason in zip(self.left, reasons, strict=True):
            judged = replace(question, verdicts=question.verdicts | {step: reason or "kept"})
            if reason:
                dropped.append((judged, reason))
            else:
                kept.append(judged)
        self.record(step, kept, dropped)

    def record(self, step: str, kept: list[Question], dropped: list[tuple[Question, str]]) -> None:
        """What one filter has made of the questions left, verdicts added."""
        self.left, self.dropped = kept, self.dropped + [question for question, _ in dropped]
        # Without what was answered, or how sure it was: these differ from row to row.
        reasons = dict(Counter(re.split(r' [("]', reason)[0] for _, reason in dropped).most_common())
        self.steps.append({"step": step, "dropped": len(dropped), "left": len(kept), "reasons": reasons})


def generate(
    catalogue: CatalogueArguments, asks: QuestionArguments, writer: WriterArguments, api: ApiArguments, resolved: dict
) -> dict | None:
    """Make the data set and write its files; returns its summary, or None after a dry run.

    Raises `InputError`, with every problem found, before anything is asked. What a back end has said stands in the file of
    responses whatever happens later: the same command goes on from there.
    """
    problems = [problem for part in (catalogue, asks, writer) for problem in part.check()]
    problems += api.check() if asks.backend == "api" else []
    raise_all(problems)
    files = Files(Path(asks.output_path))
    if not api.dry_run:
        files.check(asks.overwrite, asks.json_output)
    items, read = read_items(catalogue, asks.seed)
    if asks.backend == "api" and api.dry_run:
        from blip2vqa.vqa_generation.api.backend import dry_run

        with Ledger(files.responses) if files.responses.exists() else nullcontext() as ledger:
            print(dry_run(items, api, asks.num_questions, asks.seed, ledger))
        return None
    asks_others = asks.backend != "templates" or writer.check_model
    with Ledger(files.responses) if asks_others else nullcontext() as ledger:
        questions, cost = _ask(items, asks, writer, api, ledger)
        funnel = Funnel(questions)
        for step, judge in FILTERS.items():
            funnel.pass_through(step, judge(funnel.left))
        if writer.check_model:
            _check_by_model(funnel, writer, ledger, asks.seed)
    blind = _balance(funnel, asks)
    if not funnel.left:
        raise InputError(_nothing_left(funnel, files))
    sides = split_of(funnel.left, asks.val_split, asks.test_split, asks.seed)
    kept = sorted(funnel.left, key=lambda question: question.item.image_name)
    summary = summarize(kept, sides, items, funnel, {
        "output_path": str(files.table), "catalogue": read, "backend": asks.backend, "seed": asks.seed,
        "model": {"api": api.api_model, "model": writer.lora_model_path or writer.base_model_id}.get(asks.backend),
        "check_model": writer.check_model, "blind": blind, "cost": cost, "looked_at": None,
        "command": shlex.join(["generate_vqa.py", *sys.argv[1:]]),
        "versions": {"blip2vqa": __version__},
    })  # fmt: skip
    try:
        _write(files, asks, resolved, summary, kept, funnel, sides)
    except OSError as error:
        where = error.filename or files.table
        raise InputError(
            f"{where}: cannot be written: {error.strerror or error}; make room and run the same command again"
        ) from error
    return summary


def _write(
    files: Files, asks: QuestionArguments, resolved: dict, summary: dict, kept: list[Question], funnel: Funnel,
    sides: dict[int, str],
) -> None:  # fmt: skip
    """All files, the table last: where it stands, the others stand, too."""
    # Another run of the same has other places to write to.
    write_json_atomic(
        files.run, {name: value for name, value in resolved.items() if name not in ("json_output", "overwrite")}
    )
    write_provenance(files, sorted(kept + funnel.dropped, key=lambda question: question.item.image_name), sides)
    write_bytes_atomic(files.chart, draw_distributions(summary))
    write_text_atomic(files.card, data_card(summary, files.chart.name))
    if asks.preview:
        write_preview(files, kept, asks)
    if asks.json_output:
        write_json(asks.json_output, summary, kept, sides)
    write_tables(files, kept, sides)


def read_items(catalogue: CatalogueArguments, seed: int) -> tuple[list[Item], dict]:
    """The pictures to ask about, and what became of the listings. Raises `InputError` where no picture is usable."""
    counts: Counter = Counter()
    if catalogue.abo_dir:
        archive = find_archive(catalogue.abo_dir, catalogue.image_dir)
        products, image_dir, kind = read_products(archive, counts), archive.image_dir, "abo"
    else:
        products = read_table_products(catalogue.csv_path, catalogue.image_dir, counts)
        image_dir, kind = Path(catalogue.image_dir), "table"
    items = choose_items(products, image_dir, catalogue, seed, counts)
    source = catalogue.abo_dir or catalogue.csv_path
    if not items:
        why = "; ".join(f"{reason}: {number:,}" for reason, number in counts.items() if number)
        raise InputError(f"{source}: no usable picture ({why}); check the folder of the pictures, {image_dir}")
    return items, {"kind": kind, "path": str(source), "image_dir": str(image_dir), "counts": dict(counts)}


def _ask(
    items: Sequence[Item], asks: QuestionArguments, writer: WriterArguments, api: ApiArguments, ledger: Ledger | None
) -> tuple[list[Question], dict | None]:
    """All questions, from whoever asks them, and what that cost."""
    if asks.backend == "api":
        from blip2vqa.vqa_generation.api.backend import ask_api

        asked = ask_api(items, api, ledger, asks.num_questions, seed=asks.seed)
        return asked.questions, asked.counts
    wanted = ask_templates(items, asks.seed)
    if asks.backend == "templates":
        return wanted, None
    from blip2vqa.vqa_generation.model_backend import ask_model

    if writer.model_writes == "answers":
        wanted += ask_unknown(items, asks.seed)
    else:
        wanted = [question for question in wanted if question.about == question.question_type]
    return ask_model(wanted, writer, ledger), None


def _check_by_model(funnel: Funnel, writer: WriterArguments, ledger: Ledger, seed: int) -> None:
    """Round trip and picture swap."""
    from blip2vqa.vqa_generation.checks import PICTURE_SWAP, ROUND_TRIP, check_questions, verdicts

    checked = check_questions(funnel.left, writer, ledger, seed)
    found = {id(question): verdicts(question, said) for question, said in zip(funnel.left, checked, strict=True)}
    swapped = [
        found[id(question)][PICTURE_SWAP] for question in funnel.left if found[id(question)][ROUND_TRIP] == "kept"
    ]
    funnel.pass_through(ROUND_TRIP, [_reason(found[id(question)][ROUND_TRIP]) for question in funnel.left])
    funnel.pass_through(PICTURE_SWAP, map(_reason, swapped))


def _reason(verdict: str) -> str | None:
    return None if verdict == "kept" else verdict


def _balance(funnel: Funnel, asks: QuestionArguments) -> dict:
    """Balance, then thin what can be guessed; the blind score before and after both."""

    def groups() -> list[str]:
        return [str(question.item.group) for question in funnel.left]

    texts = [question.question for question in funnel.left], [question.answer for question in funnel.left]
    before = blind_score(*texts, groups(), seed=asks.seed).score
    dropped = balance(
        funnel.left, max_answer_share=asks.max_answer_share, max_yes_no_share=asks.max_yes_no_share,
        num_questions=asks.num_questions, seed=asks.seed,
    )  # fmt: skip
    funnel.pass_through("balance", [dropped.get(place) for place in range(len(funnel.left))])
    thinned = thin(funnel.left, asks.max_blind_accuracy, asks.seed, groups())
    funnel.record(FILTER, thinned.kept, thinned.dropped)
    return {"before": before, "after": thinned.after, "limit": asks.max_blind_accuracy}


def _nothing_left(funnel: Funnel, files: Files) -> str:
    worst = max(funnel.steps, key=lambda step: step["dropped"], default=None)
    why = f"the step {worst['step']} dropped {worst['dropped']:,}" if worst and worst["dropped"] else "none was asked"
    return f"{files.table}: no question is left ({why}); name more pictures or other limits"


def summarize(
    kept: Sequence[Question], sides: dict[int, str], items: Sequence[Item], funnel: Funnel, about: dict
) -> dict:
    """What the card and the screen show: plain JSON types; see `reporting.data_card`."""
    types: dict[str, Counter] = {}
    for question in kept:
        types.setdefault(question.question_type, Counter())[question.answer] += 1
    pictures = {question.item.image_name: question.item for question in kept}
    splits = {}
    for split in ("train", "val", "test"):
        rows = [question for question in kept if sides[question.item.group] == split]
        splits[split] = {
            "questions": len(rows),
            "pictures": len({row.item.image_name for row in rows}),
            "products": len({row.item.item_id for row in rows}),
        }
    return about | {
        "counts": {
            "pictures": len(pictures), "pictures_asked_about": len(items), "questions": len(kept),
            "products": len({item.item_id for item in pictures.values()}),
            "questions_per_picture": round(len(kept) / len(items), 2),
        },
        "splits": splits,
        "question_types": {
            name: {"n": answers.total(), "answers": dict(answers.most_common())}
            for name, answers in sorted(types.items(), key=lambda pair: -pair[1].total())
        },
        "product_types": dict(Counter(item.product_type for item in pictures.values()).most_common()),
        "funnel": funnel.steps,
    }  # fmt: skip


def write_preview(files: Files, kept: Sequence[Question], asks: QuestionArguments) -> None:
    """`asks.preview` pictures drawn by the seed, with all their questions, on one page."""
    from random import Random

    by_picture: dict[str, list[Question]] = {}
    for question in kept:
        by_picture.setdefault(question.item.image_name, []).append(question)
    shown = Random(asks.seed).sample(sorted(by_picture), min(asks.preview, len(by_picture)))

    def pictures() -> Iterator[tuple]:
        for name in shown:
            item = by_picture[name][0].item
            try:
                image = open_image(ImageSource(name, path=item.path))
            except BadImage:  # gone since it was looked at
                image = None
            yield item, image, by_picture[name]

    summary = f"{len(shown)} of {len(by_picture):,} pictures, drawn by seed {asks.seed}; {len(kept):,} questions in all"
    write_contact_sheet(files.preview, pictures(), f"{files.table.name}: a look", summary)

"""One data set: catalogue in, questions asked, filtered, balanced, split and written."""

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

from blip2vqa.config.generate import ApiArguments, CatalogueArguments, QuestionArguments, WriterArguments
from blip2vqa.evaluation.question_only import blind_score
from blip2vqa.generate.ask.api.endpoint import endpoint_problems
from blip2vqa.generate.ask.templates import ask_templates, ask_unknown
from blip2vqa.generate.catalogue.abo import read_products
from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.generate.catalogue.selecting import ABOVE_SHARE, UNSAID, choose_items
from blip2vqa.generate.catalogue.table_catalogue import read_table_products
from blip2vqa.generate.filter.balance import balance
from blip2vqa.generate.filter.blind_filter import FILTER, thin
from blip2vqa.generate.filter.filters import FILTERS
from blip2vqa.generate.filter.funnel import Funnel, summarize
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.outputs import Files, split_of, write_json, write_preview, write_provenance, write_tables
from blip2vqa.generate.report.data_card import data_card
from blip2vqa.generate.report.distributions import draw_distributions
from blip2vqa.generate.rows import Item, Question
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from blip2vqa.utils.version import __version__

logger = logging.getLogger(__name__)


def generate(
    catalogue: CatalogueArguments, asks: QuestionArguments, writer: WriterArguments, api: ApiArguments, resolved: dict
) -> dict | None:
    """Make the data set and write its files; returns its summary, or None after a dry run.

    Raises `InputError`, with every problem found, before anything is asked. What a back end has said stands in the file of
    responses whatever happens later: the same command goes on from there.
    """
    problems = [problem for part in (catalogue, asks, writer, api) for problem in part.check()]
    raise_all(problems + _misplaced(asks, writer, api) + (endpoint_problems(api) if asks.backend == "api" else []))
    files = Files.of(asks.output_path)
    if not api.dry_run:
        files.check(asks.overwrite, asks.json_output, [catalogue.csv_path])
        _find_models(asks, writer)
    items, read = read_items(catalogue, asks.seed)
    if api.dry_run:
        from blip2vqa.generate.ask.api.backend import dry_run

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
        raise InputError(_nothing_left(funnel, files, cost))
    sides = split_of(funnel.left, asks.val_split, asks.test_split, asks.seed)
    kept = sorted(funnel.left, key=lambda question: question.item.image_name)
    summary = summarize(kept, sides, funnel, {
        "output_path": str(files.table), "catalogue": read, "backend": asks.backend, "seed": asks.seed,
        "model": {"api": api.api_model, "model": writer.lora_model_path or writer.base_model_id}.get(asks.backend),
        "check_model": writer.check_model, "blind": blind, "cost": cost,
        "preview": str(files.preview) if asks.preview else None,
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


def _misplaced(asks: QuestionArguments, writer: WriterArguments, api: ApiArguments) -> list[str]:
    """Options of a back end that is not asked, which would do nothing."""
    of_model = ["base_model_id", "base_model_revision", "lora_model_path", "model_writes"]
    if not writer.check_model:
        of_model += ["quantization", "dtype", "batch_size"]
    given = {
        backend: [field.name for field in fields(part) if getattr(part, field.name) != field.default]
        for backend, part in (("api", api), ("model", writer))
    }
    given["model"] = [name for name in given["model"] if name in of_model]
    return [
        f"--{name}: goes with --backend {backend}, not with {asks.backend}"
        for backend, names in given.items()
        for name in names
        if backend != asks.backend
    ]


def _find_models(asks: QuestionArguments, writer: WriterArguments) -> None:
    """Raise `InputError` for a model that is not usable: now, not after others were paid."""
    if asks.backend != "model" and not writer.check_model:
        return
    from blip2vqa.generate.ask.model_backend import find_answerer, find_writer

    if asks.backend == "model":
        find_writer(writer) if writer.model_writes == "questions" else find_answerer(writer)
    if writer.check_model:
        find_answerer(writer, writer.check_model)


def _write(
    files: Files, asks: QuestionArguments, resolved: dict, summary: dict, kept: list[Question], funnel: Funnel,
    sides: dict[int, str],
) -> None:  # fmt: skip
    """All files, the tables last: where `vqa.csv` stands and nothing says unfinished, all are there, and of one run."""
    unfinished = summary["cost"] and summary["cost"]["unfinished"]
    why = unfinished or "stopped while the files were written"
    write_text_atomic(files.unfinished, f"{why}; the same command goes on\n")
    # Another run of the same has other places to write to.
    settings = {name: value for name, value in resolved.items() if name not in ("json_output", "overwrite")}
    write_json_atomic(files.run, settings)
    write_provenance(files, sorted(kept + funnel.dropped, key=lambda question: question.item.image_name), sides)
    write_bytes_atomic(files.chart, draw_distributions(summary))
    write_text_atomic(files.card, data_card(summary, files.chart.name))
    if asks.preview:
        write_preview(files, kept, asks.preview, asks.seed)
    if asks.json_output:
        write_json(asks.json_output, summary, kept, sides)
    for path in (files.table, files.train, files.val, files.test, *([] if asks.preview else [files.preview])):
        path.unlink(missing_ok=True)  # of a data set that was there: not every split has questions again
    write_tables(files, kept, sides)
    if not unfinished:
        files.unfinished.unlink(missing_ok=True)


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
        advice = f"check the folder of the pictures, {image_dir}"
        if counts["not clear what it is"] >= counts["read"] > 0:
            advice = "give columns such as name or product_type, in English, that say what the pictures show"
        raise InputError(f"{source}: no usable picture ({why}); {advice}")
    numbers = {name: counts.pop(name, 0) for name in ("listings", "read", "pictures")}
    unsaid = {reason: counts.pop(reason) for reason in UNSAID if counts[reason]}
    if unbalanced := counts[ABOVE_SHARE]:
        logger.warning(
            "%d of the pictures of %d products are of product types above --max_product_type_share %g, and left out",
            unbalanced, numbers["read"], catalogue.max_product_type_share,
        )  # fmt: skip
    return items, {
        "kind": kind, "path": str(source), "image_dir": str(image_dir), "listings": numbers["listings"],
        "products": numbers["read"], "left_out": dict(counts), "unsaid": unsaid,
    }  # fmt: skip


def _ask(
    items: Sequence[Item], asks: QuestionArguments, writer: WriterArguments, api: ApiArguments, ledger: Ledger | None
) -> tuple[list[Question], dict | None]:
    """All questions, from whoever asks them, and what that cost."""
    if asks.backend == "api":
        from blip2vqa.generate.ask.api.backend import ask_api

        asked = ask_api(items, api, ledger, asks.num_questions, seed=asks.seed)
        counts, left = asked.counts, asked.counts["unasked"] + asked.counts["no_answer"]
        why = f"{left:,} of {len(items):,} pictures have no answer yet" if left else None
        return asked.questions, counts | {"unfinished": why}
    wanted = ask_templates(items, asks.seed)
    if asks.backend == "templates":
        return wanted, None
    from blip2vqa.generate.ask.model_backend import ask_model

    if writer.model_writes == "answers":
        wanted += ask_unknown(items, asks.seed)
    else:
        wanted = [question for question in wanted if question.about == question.question_type]
    return ask_model(wanted, writer, ledger), None


def _check_by_model(funnel: Funnel, writer: WriterArguments, ledger: Ledger, seed: int) -> None:
    """Round trip and picture swap."""
    from blip2vqa.generate.filter.checks import KEPT, PICTURE_SWAP, ROUND_TRIP, check_questions, verdicts

    checked = check_questions(funnel.left, writer, ledger, seed)
    found = [verdicts(question, said) for question, said in zip(funnel.left, checked, strict=True)]
    reasons = [{step: None if said == KEPT else said for step, said in one.items()} for one in found]
    funnel.pass_through(ROUND_TRIP, [one[ROUND_TRIP] for one in reasons])
    funnel.pass_through(PICTURE_SWAP, [one[PICTURE_SWAP] for one in reasons if one[ROUND_TRIP] is None])


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
    if thinned.after is None and funnel.left:
        logger.warning("blind score: not measured; that takes questions about two products")
    elif thinned.after and thinned.after > asks.max_blind_accuracy:
        logger.warning(
            "blind score %.2f, above --max_blind_accuracy %.2f: dropping more brings it no lower; allow more, or name products "
            "that differ more", thinned.after, asks.max_blind_accuracy,
        )  # fmt: skip
    return {"before": before, "after": thinned.after, "limit": asks.max_blind_accuracy}


def _nothing_left(funnel: Funnel, files: Files, cost: dict | None) -> str:
    worst = max(funnel.steps, key=lambda step: step["dropped"], default=None)
    why, advice = "none was asked", "name more pictures or other limits"
    if worst and worst["dropped"]:
        why = f"the step {worst['step']} dropped {worst['dropped']:,}"
        if any(question.source != "templates" for question in funnel.dropped):
            advice = "the model does not answer as it should: try another"
    elif cost:
        named = ("refused", "malformed", "no_answer", "unasked")
        why = ", ".join(f"{cost[name]:,} pictures {name.replace('_', ' ')}" for name in named if cost[name]) or why
        advice = "try another --api_model"
    return f"{files.table}: no question is left ({why}); {advice}"

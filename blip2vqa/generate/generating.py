"""Make one data set: read a catalogue, ask about its pictures, filter, balance, split and write."""

import logging
from contextlib import nullcontext

from blip2vqa.config.generate import ApiArguments, CatalogueArguments, QuestionArguments, WriterArguments
from blip2vqa.evaluation.question_only import blind_score
from blip2vqa.generate.ask.api.endpoint import endpoint_problems
from blip2vqa.generate.ask.back_ends import ask_questions, check_models, misplaced_options
from blip2vqa.generate.catalogue.selecting import read_items
from blip2vqa.generate.filter.balance import balance
from blip2vqa.generate.filter.blind_filter import FILTER, thin
from blip2vqa.generate.filter.checks import check_by_model
from blip2vqa.generate.filter.filters import FILTERS
from blip2vqa.generate.filter.funnel import Funnel, summarize
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.outputs import Files, split_of, write_data_set
from blip2vqa.utils.console import command_line
from blip2vqa.utils.errors import InputError, file_error, raise_all
from blip2vqa.utils.formatting import percent
from blip2vqa.utils.terminal import some_lines
from blip2vqa.utils.version import __version__

logger = logging.getLogger(__name__)


def generate(
    catalogue: CatalogueArguments, args: QuestionArguments, writer: WriterArguments, api: ApiArguments, settings: dict
) -> dict | None:
    """Make the data set and write its files; returns its summary, or None after a dry run.

    `settings` are all options as a flat dict, which `vqa.run.json` keeps. Raises `InputError`, with every problem found, before
    anything is asked. What a back end has said is in the ledger whatever happens later: the same command goes on from there.
    """
    problems = [problem for part in (catalogue, args, writer, api) for problem in part.check()]
    problems += misplaced_options(args, writer, api)
    raise_all(problems + (endpoint_problems(api) if args.backend == "api" else []))
    files = Files(args.output_path)
    if not api.dry_run:
        files.check(args.overwrite, args.json_output, [catalogue.csv_path])
        check_models(args, writer)
    items, read = read_items(catalogue, args.seed)
    if api.dry_run:
        from blip2vqa.generate.ask.api.dry_run import dry_run

        with Ledger(files.responses) if files.responses.exists() else nullcontext({}) as ledger:
            print(some_lines(dry_run(items, api, ledger, args.num_questions, args.seed)))
        return None
    needs_ledger = args.backend != "templates" or writer.check_model
    with Ledger(files.responses) if needs_ledger else nullcontext() as ledger:
        questions, cost = ask_questions(items, args, writer, api, ledger)
        funnel = Funnel(questions)
        for step, judge in FILTERS.items():
            funnel.pass_through(step, judge(funnel.left))
        if writer.check_model:
            check_by_model(funnel, writer, ledger, args.seed)
    blind = _balance(funnel, args)
    if not funnel.left:
        raise InputError(_nothing_left(funnel, files, cost))
    sides = split_of(funnel.left, args.val_split, args.test_split, args.seed)
    kept = sorted(funnel.left, key=lambda question: question.item.image_name)
    summary = summarize(kept, sides, funnel, {
        "output_path": str(files.table), "catalogue": read, "backend": args.backend, "seed": args.seed,
        "model": {"api": api.api_model, "model": writer.lora_model_path or writer.base_model_id}.get(args.backend),
        "check_model": writer.check_model, "blind": blind, "cost": cost,
        "preview": str(files.preview) if args.preview else None,
        "command": command_line("generate"),
        "versions": {"blip2vqa": __version__},
    })  # fmt: skip
    try:
        write_data_set(files, args, settings, summary, kept, funnel.dropped, sides)
    except OSError as error:
        where = error.filename or files.table
        raise file_error(f"{where}: cannot be written", error, "make room and run the same command again") from error
    return summary


def _balance(funnel: Funnel, args: QuestionArguments) -> dict:
    """Balance the questions, then drop those guessed without the picture; returns the scores before and after both."""

    def groups() -> list[str]:
        return [str(question.item.group) for question in funnel.left]

    texts = [question.question for question in funnel.left], [question.answer for question in funnel.left]
    before = blind_score(*texts, groups(), seed=args.seed).score
    dropped = balance(
        funnel.left, max_answer_share=args.max_answer_share, max_yes_no_share=args.max_yes_no_share,
        num_questions=args.num_questions, seed=args.seed,
    )  # fmt: skip
    funnel.drop("balance", dropped)
    dropped, after = thin(funnel.left, args.max_blind_accuracy, args.seed, groups())
    funnel.drop(FILTER, dropped)
    if after is None and funnel.left:
        logger.warning("question-only score: not measured; that takes questions about two products")
    elif after and after > args.max_blind_accuracy:
        logger.warning(
            "question-only score %s, above --max_blind_accuracy %g: dropping more brings it no lower; allow more, or name "
            "products that differ more", percent(after), args.max_blind_accuracy,
        )  # fmt: skip
    return {"before": before, "after": after, "limit": args.max_blind_accuracy}


def _nothing_left(funnel: Funnel, files: Files, cost: dict | None) -> str:
    worst = max(funnel.steps, key=lambda step: step["dropped"])
    why, advice = "none was asked", "name more pictures or other limits"
    if worst["dropped"]:
        why = f"the step {worst['step']} dropped {worst['dropped']:,}"
        if any(question.source != "templates" for question in funnel.dropped):
            advice = "the model does not answer as it should: try another"
    elif cost:
        named = ("refused", "malformed", "no_answer", "unasked")
        why = ", ".join(f"{cost[name]:,} pictures {name.replace('_', ' ')}" for name in named if cost[name]) or why
        advice = "try another --api_model"
    return f"{files.table}: no question is left ({why}); {advice}"

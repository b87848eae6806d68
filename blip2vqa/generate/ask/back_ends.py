"""Ask by the back end that is chosen: templates, a model of this package, or a chat endpoint."""

from collections.abc import Sequence
from dataclasses import fields

from blip2vqa.config.generate import ApiArguments, QuestionArguments, WriterArguments
from blip2vqa.generate.ask.templates import ask_templates, ask_unknown
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question


def misplaced_options(args: QuestionArguments, writer: WriterArguments, api: ApiArguments) -> list[str]:
    """Find options of a back end that is not chosen, which would do nothing; returns one line each."""
    of_model = ["base_model_id", "base_model_revision", "lora_model_path", "model_writes"]
    if not writer.check_model:
        of_model += ["quantization", "dtype", "batch_size"]
    of_api = [field.name for field in fields(api)]
    return [
        f"--{field.name}: goes with --backend {backend}, not with {args.backend}"
        for backend, part, names in (("api", api, of_api), ("model", writer, of_model))
        for field in fields(part)
        if backend != args.backend and field.name in names and getattr(part, field.name) != field.default
    ]


def check_models(args: QuestionArguments, writer: WriterArguments) -> None:
    """Raise `InputError` for a model that is not usable: now, and not after others were paid."""
    if args.backend == "model":
        from blip2vqa.generate.ask.model_backend import find_model

        find_model(writer)
    if writer.check_model:
        from blip2vqa.generate.ask.respondent import find_answerer

        find_answerer(writer, writer.check_model)


def ask_questions(
    items: Sequence[Item], args: QuestionArguments, writer: WriterArguments, api: ApiArguments, ledger: Ledger | None
) -> tuple[list[Question], dict | None]:
    """Ask about all items; returns the questions, and what an endpoint counted and cost (None without one)."""
    if args.backend == "api":
        from blip2vqa.generate.ask.api.backend import ask_api

        asked = ask_api(items, api, ledger, args.num_questions, seed=args.seed)
        left = asked.counts["unasked"] + asked.counts["no_answer"]
        why = f"{left:,} of {len(items):,} pictures have no answer yet" if left else None
        return asked.questions, asked.counts | {"unfinished": why}
    wanted = ask_templates(items, args.seed)
    if args.backend == "templates":
        return wanted, None
    from blip2vqa.generate.ask.model_backend import ask_model

    if writer.model_writes == "answers":
        wanted += ask_unknown(items, args.seed)
    else:
        wanted = [question for question in wanted if question.about == question.question_type]
    return ask_model(wanted, writer, ledger), None

"""Questions from a base of this package: it answers questions of the templates, or words questions for given answers.

Imports torch and the models: import it where a model is asked, inside a function.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from blip2vqa.adapters.ref import CURRENT
from blip2vqa.config.generate import WriterArguments
from blip2vqa.data.answers import AUXILIARY
from blip2vqa.generate.ask.prompts import clean_answer
from blip2vqa.generate.ask.respondent import Respondent, find_answerer, find_spec, make_respondent, respond
from blip2vqa.generate.filter.agreement import answers_match
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Question
from blip2vqa.utils.errors import InputError

LONGEST_QUESTION = 30  # tokens
MOST_WORDS = 20
LEAST_WORDS = 3
_BEGINS = re.compile(r"(what|which|who|whose|whom|where|when|why|how)\b")
_QUOTES = "\"'“”‘’` "


def ask_model(wanted: Sequence[Question], args: WriterArguments, ledger: Ledger) -> list[Question]:
    """Complete each of `wanted`, in its order, by the model: its answer, or a question for its answer.

    `--model_writes answers`: the answer becomes the model's, in lower case, without a final period and never cut. `questions`:
    the question becomes the model's; for a text that is no question `verdicts["form"]` says why. `raw_answer` has what the
    model said. Raises `InputError` for a model that is not usable or cannot write, before its weights are read.
    """
    if args.model_writes == "questions":
        return _write_questions(wanted, find_writer(args), ledger)
    model = find_answerer(args)
    responses = respond(model, [(row.item, row.question) for row in wanted], ledger, "answering")
    return [
        replace(
            row, answer=clean_answer(one.text), source=f"model:{model.name}", raw_answer=one.text, prompt_hash=one.key
        )
        for row, one in zip(wanted, responses, strict=True)
    ]


def _write_questions(wanted: Sequence[Question], model: Respondent, ledger: Ledger) -> list[Question]:
    prompt = model.spec.family.question_prompt
    asked = [(row.item, prompt.replace("{answer}", row.answer)) for row in wanted]
    rows = []
    for row, one in zip(wanted, respond(model, asked, ledger, "writing questions"), strict=True):
        question, problem = as_question(one.text, row.answer)
        verdicts = row.verdicts | ({"form": problem} if problem else {})
        rows.append(
            replace(
                row, question=question, about="", source=f"model:{model.name}", raw_answer=one.text, prompt_hash=one.key,
                verdicts=verdicts,
            )
        )  # fmt: skip
    return rows


def find_writer(args: WriterArguments) -> Respondent:
    """Find the model that writes questions. Raises `InputError` for one that cannot."""
    spec = find_spec(args)
    if spec.family.caption_prompt is None:
        raise InputError(
            f"base model {spec.base_model_id}: {spec.family.name} cannot write questions; with --model_writes answers it "
            "answers those of the templates"
        )
    adapter = spec.adapters.get(CURRENT)
    if adapter and adapter.answers:
        raise InputError(
            f"adapter {adapter.path}: gives answers of its list alone and cannot write questions; with --model_writes answers "
            "it answers those of the templates"
        )
    decoding = {"do_sample": False, "min_new_tokens": 0, "max_new_tokens": LONGEST_QUESTION}
    return make_respondent(spec, args, prompt="{question}", decoding=decoding)


def as_question(raw: str, answer: str) -> tuple[str, str | None]:
    """Take the question out of what a model wrote; returns it with None, or with the reason why it is no question.

    A question ends with its first question mark, or lacks one and begins as questions do; it has 3 to 20 words, and the answer
    is not among them.
    """
    text = re.sub(r"(?i)^question:", "", " ".join(raw.split()).strip(_QUOTES)).strip(_QUOTES)
    first, mark, _ = text.partition("?")
    first = first.strip(_QUOTES)
    if not mark and not (_BEGINS.match(first.lower()) or AUXILIARY.match(first.lower())):
        return text, "not a question"
    question, words = f"{first.rstrip('.')}?", re.findall(r"[\w'’-]+", first)
    if len(words) < LEAST_WORDS:
        return question, "not a question"
    if len(words) > MOST_WORDS:
        return question, f"more than {MOST_WORDS} words"
    names = len(answer.split()) or 1
    if any(answers_match(answer, " ".join(words[start : start + names])) for start in range(len(words))):
        return question, "names its answer"
    return question, None

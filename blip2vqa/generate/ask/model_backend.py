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
from blip2vqa.generate.ask.respondent import Respondent, find_answerer, find_spec, respond
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
    model, writes = find_model(args), args.model_writes == "questions"
    prompt = model.spec.family.question_prompt if writes else None
    asked = [(row.item, prompt.replace("{answer}", row.answer) if writes else row.question) for row in wanted]
    rows = []
    for row, (text, key) in zip(
        wanted, respond(model, asked, ledger, "writing questions" if writes else "answering"), strict=True
    ):
        if writes:
            question, problem = as_question(text, row.answer)
            verdicts = row.verdicts | ({"form": problem} if problem else {})
            row = replace(row, question=question, about="", verdicts=verdicts)
        else:
            row = replace(row, answer=clean_answer(text))
        rows.append(replace(row, source=f"model:{model.name}", raw_answer=text, prompt_hash=key))
    return rows


def find_model(args: WriterArguments) -> Respondent:
    """Find the model that answers or writes questions. Raises `InputError` for one that cannot."""
    if args.model_writes == "answers":
        return find_answerer(args)
    spec = find_spec(args)
    adapter = spec.adapters.get(CURRENT)
    who = None
    if spec.family.caption_prompt is None:
        who = f"base model {spec.base_model_id}: {spec.family.name}"
    elif adapter and adapter.answers:
        who = f"adapter {adapter.path}: gives answers of its list alone and"
    if who:
        raise InputError(f"{who} cannot write questions; with --model_writes answers it answers those of the templates")
    decoding = {"do_sample": False, "min_new_tokens": 0, "max_new_tokens": LONGEST_QUESTION}
    return Respondent(spec, spec.request(prompt="{question}", decoding=decoding), args)


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

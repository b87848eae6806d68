"""A base of this package as the one who asks or answers: each picture looked at once, nothing computed twice.

Imports torch and the models: import it where a model is asked for, inside a function.
"""

import gc
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from blip2vqa.api import is_adapter
from blip2vqa.config.generate import WriterArguments
from blip2vqa.data.answers import AUXILIARY
from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Pixels, encode_in_memory
from blip2vqa.generate.ask.prompts import clean_answer
from blip2vqa.generate.filter.agreement import answers_match
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.reading import read_picture
from blip2vqa.generate.rows import Item, Question
from blip2vqa.inference.generation import answer_examples
from blip2vqa.inference.model_spec import ONLY, ModelSpec, check_asks, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.loading import remembered
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.progress import show_progress

logger = logging.getLogger(__name__)

PICTURES_TOGETHER = 64
"""What a killed run computes again, at most."""
WRITE = 'Write a question about the picture whose answer is "{answer}". Question:'
WRITE_INSTRUCTBLIP = "Given the image, generate a question whose answer is: {answer}. Question:"
"""One of those that it was trained with: Dai et al. 2023, arXiv 2305.06500, appendix."""
LONGEST_QUESTION = 30  # tokens
MOST_WORDS = 20
LEAST_WORDS = 3
_BEGINS = re.compile(r"(what|which|who|whose|whom|where|when|why|how)\b")
_QUOTES = "\"'“”‘’` "


@dataclass(frozen=True)
class Respondent:
    """Who is asked: a base, or an adapter on its base, found and checked; its weights are not read yet."""

    spec: ModelSpec
    request: AnswerRequest
    dtype: str
    quantization: str
    batch_size: int

    @property
    def called(self) -> str:
        """As the user called it."""
        adapter = self.spec.adapters.get(ONLY)
        return adapter.path if adapter else self.spec.base_model_id

    @property
    def name(self) -> str:
        """For the rows: a Hub id or a name in the store, of a folder its own name alone."""
        return Path(self.called).resolve().name if Path(self.called).exists() else self.called

    def key(self, item: Item, text: str) -> str:
        """SHA-256, hexadecimal, of all that decides what is said to `text` about the picture."""
        return hashlib.sha256(json.dumps([self._identity, item.digest, text]).encode()).hexdigest()

    @cached_property
    def _identity(self) -> list:
        base, adapter = self.spec.base_model_id, self.spec.adapters.get(ONLY)
        if Path(base).is_dir():
            # Others may be put in their place; to hash them would take as long as to load them.
            stats = {path.name: path.stat() for path in sorted(Path(base).iterdir()) if path.is_file()}
            version = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()]
        else:
            version = getattr(self.spec.config, "_commit_hash", None) or self.spec.revision
        own = [adapter.digest, adapter.answers] if adapter else None
        if adapter:
            adapter.adapter.forget_weights()
        decoding = asdict(self.request.decoding)
        return [remembered(base), version, own, self.request.text.prompt, decoding, self.dtype, self.quantization]


@dataclass(frozen=True)
class Said:
    """What was said to one question, and under which key of the ledger it stands."""

    text: str
    key: str


def ask_model(
    wanted: Sequence[Question], args: WriterArguments, ledger: Ledger, progress: bool = True
) -> list[Question]:
    """One question for each of `wanted`, in its order, with its picture's answer, or its answer's question, by the model.

    `--model_writes answers`: the answer is the model's, in lower case, without a final period and never cut. `questions`: the
    question is the model's for the answer given; one that is none says why in `verdicts["form"]`. What the model said is in
    `raw_answer`. Raises `InputError` for a model that is not usable or cannot write, before its weights are read.
    """
    if args.model_writes == "questions":
        return _ask_for_questions(wanted, find_writer(args), ledger, progress)
    model = find_answerer(args)
    said = respond(model, [(row.item, row.question) for row in wanted], ledger, "answering" if progress else None)
    return [
        replace(
            row, answer=clean_answer(one.text), source=f"model:{model.name}", raw_answer=one.text, prompt_hash=one.key
        )
        for row, one in zip(wanted, said, strict=True)
    ]


def _ask_for_questions(wanted: Sequence[Question], model: Respondent, ledger: Ledger, progress: bool) -> list[Question]:
    prompt = WRITE_INSTRUCTBLIP if model.spec.family.reads_question else WRITE
    asked = [(row.item, prompt.replace("{answer}", row.answer)) for row in wanted]
    said = respond(model, asked, ledger, "writing questions" if progress else None)
    rows = []
    for row, one in zip(wanted, said, strict=True):
        question, problem = as_question(one.text, row.answer)
        verdicts = row.verdicts | ({"form": problem} if problem else {})
        rows.append(
            replace(
                row, question=question, about="", source=f"model:{model.name}", raw_answer=one.text, prompt_hash=one.key,
                verdicts=verdicts,
            )
        )  # fmt: skip
    return rows


def find_answerer(args: WriterArguments, adapter_or_base: str | None = None) -> Respondent:
    """Who answers: the writer of `args`, or another adapter or base with its precision. Raises `InputError`."""
    spec = _find(args) if adapter_or_base is None else _find_named(adapter_or_base, args)
    # Drawn answers would be others in other batches, and so in a run that goes on.
    request = spec.request(_who(spec), decoding={"do_sample": False})
    check_asks(request, spec.adapters[ONLY].path if ONLY in spec.adapters else None)
    return Respondent(spec, request, args.dtype, args.quantization, args.batch_size)


def find_writer(args: WriterArguments) -> Respondent:
    """Who writes questions. Raises `InputError` for one that cannot."""
    spec = _find(args)
    if spec.family.caption_prompt is None:
        raise InputError(
            f"base model {spec.base_model_id}: {spec.family.name} cannot write questions; with --model_writes answers it "
            "answers those of the templates"
        )
    adapter = spec.adapters.get(ONLY)
    if adapter and adapter.answers:
        raise InputError(
            f"adapter {adapter.path}: gives answers of its list alone and cannot write questions; with --model_writes answers "
            "it answers those of the templates"
        )
    decoding = {"do_sample": False, "min_new_tokens": 0, "max_new_tokens": LONGEST_QUESTION}
    request = spec.request(_who(spec), prompt="{question}", decoding=decoding)
    return Respondent(spec, request, args.dtype, args.quantization, args.batch_size)


def _find(args: WriterArguments) -> ModelSpec:
    adapters = {ONLY: (args.lora_model_path, None)} if args.lora_model_path else {}
    return find_model_spec(args.base_model_id, args.base_model_revision, adapters, dtype=args.dtype)


def _find_named(name: str, args: WriterArguments) -> ModelSpec:
    if is_adapter(name):
        return find_model_spec(None, None, {ONLY: (name, None)}, dtype=args.dtype)
    return find_model_spec(name, None, dtype=args.dtype)


def _who(spec: ModelSpec) -> str | None:
    return ONLY if ONLY in spec.adapters else None


def respond(
    model: Respondent, asked: Sequence[tuple[Item, str]], ledger: Ledger, progress: str | None = None
) -> list[Said]:
    """What the model says to each question about its item's picture, in order; `progress` names the bar, or none is shown.

    What the ledger holds is not computed again, and where it holds all, the model is not loaded. The rest is computed
    `PICTURES_TOGETHER` pictures at a time, each looked at once for all its questions. A question longer than the model can
    read is answered "". Raises `InputError` for a picture that has changed.
    """
    keys = [model.key(item, text) for item, text in asked]
    missing: dict[str, dict[str, tuple[Item, str]]] = {}  # by picture
    for key, (item, text) in zip(keys, asked, strict=True):
        if ledger.get(key) is None:
            missing.setdefault(item.digest, {})[key] = (item, text)
    if missing:
        _compute(model, list(missing.values()), ledger, progress)
        gc.collect()  # the next model may need the room, and this one holds itself in circles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return [Said(ledger.get(key)["said"], key) for key in keys]


def _compute(
    model: Respondent, missing: list[dict[str, tuple[Item, str]]], ledger: Ledger, progress: str | None
) -> None:
    batch_size = model.batch_size
    loaded, _, _ = model.spec.load({}, None, dtype=model.dtype, quantization=model.quantization, batch_size=batch_size)
    too_long = _too_long(model.request, {text for rows in missing for _, text in rows.values()})
    if too_long:
        logger.warning(
            "%s: %d questions are longer than it can read, and count as not answered", model.name, len(too_long)
        )
    with show_progress(total=sum(map(len, missing)), desc=progress, unit="question", disable=progress is None) as bar:
        for start in range(0, len(missing), PICTURES_TOGETHER):
            rows = {key: row for one in missing[start : start + PICTURES_TOGETHER] for key, row in one.items()}
            items = {item.digest: item for item, _ in rows.values()}
            pixels = Pixels(
                {digest: read_picture(item) for digest, item in items.items()}, loaded.processor.image_processor
            )
            features = encode_in_memory(loaded, pixels, model.spec.scopes, batch_size)
            put = {key: row for key, row in rows.items() if row[1] not in too_long}
            examples = [_example(text, item) for item, text in put.values()]
            answers = answer_examples(loaded, features, examples, model.request, batch_size=batch_size)
            said = dict(zip(put, (answer.text for answer in answers), strict=True))
            ledger.add_all({
                key: {"model": model.name, "image_name": item.image_name, "asked": text, "said": said.get(key, "")}
                for key, (item, text) in rows.items()
            })  # fmt: skip
            bar.update(len(rows))


def _example(text: str, item: Item | None = None) -> Example:
    name, digest = (item.image_name, item.digest) if item else ("", "")
    return Example(0, None, name, digest, text, (), "", {})


def _too_long(request: AnswerRequest, texts: set[str]) -> set[str]:
    """Those that leave the model no room for an answer, or spell the token that stands for the picture."""
    found = set()
    for text in texts:
        try:
            request.text.check_lengths([_example(text)], request.decoding.max_new_tokens)
        except InputError:
            found.add(text)
    return found


def as_question(raw: str, answer: str) -> tuple[str, str | None]:
    """What a model wrote → the question in it, and None, or why it is none for that answer.

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

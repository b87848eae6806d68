"""A table of questions and the adapters that answer it, checked before any weight is loaded."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from accelerate import PartialState

from blip2vqa.adapters.ref import CURRENT, AdapterRef
from blip2vqa.config.base import column_names
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.bad_rows import BadRow, leave_out
from blip2vqa.data.choices import read_choices
from blip2vqa.data.examples import Example, check_examples, missing_types, of_types
from blip2vqa.data.table_checks import Table
from blip2vqa.data.tables import load_table
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec, parse_adapters
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.answer_lists import CHOICES, AnswerTree, read_answers
from blip2vqa.models.classes import ClassSubset
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import partial_path

DEFAULT = AdapterRef.named("default")
"""The adapter for types of questions that have none of their own."""


@dataclass(frozen=True)
class Job:
    """The questions and the adapters that answer them, checked before any weight is loaded."""

    table: Table
    examples: list[Example]
    skipped: list[BadRow]
    spec: ModelSpec
    requests: dict[AdapterRef, AnswerRequest]
    """One for each adapter; `CURRENT` alone where one adapter, or the base, answers all questions."""
    choices: dict[int, AnswerTree | ClassSubset] = field(default_factory=dict)
    """By row, its own answers, where these alone are allowed."""

    @property
    def routed(self) -> bool:
        """Whether each question goes to the adapter of its type."""
        return CURRENT not in self.requests

    def ref_for(self, example: Example) -> AdapterRef:
        """Choose the adapter that answers a question."""
        if not self.routed:
            return CURRENT
        own = AdapterRef.named(example.question_type)
        return own if own in self.requests else DEFAULT

    def request_for(self, example: Example) -> AnswerRequest:
        """Choose the request by which a question is asked."""
        request = self.requests[self.ref_for(example)]
        if not self.choices:
            return request
        return replace(request, tree=self.choices[example.row], of_row=True, calibration=None)


def check_job(args: InferenceArguments, features: FeatureArguments) -> Job:
    """Read the table and find the adapters. Raises `InputError` with every problem found."""
    problems = args.check() + features.check()
    if Path(args.output_path).exists() and not args.overwrite and not partial_path(args.output_path).exists():
        problems.append(
            f"--output_path {args.output_path}: is already there, finished; name another, or --overwrite it"
        )
    found = collect_errors(problems, _find_requests, args)
    rows = collect_errors(problems, load_rows, args) if args.csv_path else None
    job = Job(*rows, *found) if found and rows else None
    if job and job.routed:
        collect_errors(problems, _check_routes, job)
    raise_all(problems)
    job, reasons = _with_choices(job) if args.answers == CHOICES else (job, [])
    for ref, request in job.requests.items():
        asked = [example for example in job.examples if job.ref_for(example) == ref]
        room = request.tree.longest if request.tree else request.decoding.max_new_tokens
        room = max((tree.longest for tree in job.choices.values()), default=room)
        problems += request.text.problems_of_all(asked, 0)
        reasons += request.text.problems_by_row(asked, room)
        if args.min_probability and (request.calibration is None or job.choices):
            problems.append(_not_calibrated(job, ref))
    listing = args.on_bad_row, bad_rows_path(args), job.skipped
    examples, bad, found = leave_out(args.csv_path, job.examples, reasons, *listing)
    raise_all(problems + found)
    return replace(job, examples=examples, skipped=job.skipped + bad)


def _find_requests(args: InferenceArguments) -> tuple[ModelSpec, dict[AdapterRef, AnswerRequest]]:
    adapters = parse_adapters(args.lora_model_path)
    given = {ref: (path, args.lora_revision) for ref, path in adapters.items()}
    spec = find_model_spec(args.base_model_id, args.base_model_revision, given, dtype=args.dtype)
    spec.check_served(args.quantization)
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    answers = read_answers(args.answers) if args.answers and args.answers != CHOICES else None
    build = partial(spec.question_request, prompt=args.prompt, decoding=decoding, answers=answers)
    problems: list[str] = []
    requests = {ref: collect_errors(problems, build, ref) for ref in adapters or [CURRENT]}
    raise_all(problems)
    return spec, requests


def _not_calibrated(job: Job, ref: AdapterRef) -> str:
    if ref not in job.spec.adapters:
        return "--min_probability: the base alone has no calibration; name an adapter, or leave the option out"
    adapter = job.spec.adapters[ref]
    why = (
        "is asked with another prompt, decoding or list of answers than it was calibrated with"
        if adapter.manifest.get("calibration")
        else "has no calibration, which training makes from at least 30 validation answers, some right and some wrong"
    )
    return f"--min_probability: adapter {adapter.path} {why}; leave the option out"


def _with_choices(job: Job) -> tuple[Job, list[tuple[int, str]]]:
    """Restrict each question to its row's choices, of which the right one is its answer; returns the rows that have none."""
    examples, choices, reasons = read_choices(job.examples)
    trees, known = {}, {}
    for example in examples:
        if example.row not in choices:
            continue
        key = choices[example.row], job.ref_for(example)
        try:
            if key not in known:
                known[key] = job.requests[key[1]].text.constraint(key[0])
            trees[example.row] = known[key]
        except InputError as error:
            reasons.append((example.row, "; ".join(error.problems)))
    return replace(job, examples=examples, choices=trees), reasons


def _check_routes(job: Job) -> None:
    """Raise `InputError` for a question without an adapter, and for an adapter named for a type that does not exist."""
    types = Counter(example.question_type for example in job.examples)
    known = ", ".join(sorted(types))
    _, unknown = missing_types((ref.name for ref in job.requests if ref != DEFAULT), job.examples)
    problems = [f"--lora_model_path {name}=…: no question is of type {name}; the table has {known}" for name in unknown]
    lost = {name: count for name, count in types.items() if AdapterRef.named(name) not in job.requests}
    if lost and DEFAULT not in job.requests:
        shown = ", ".join(f"{name} ({count:,} questions)" for name, count in sorted(lost.items()))
        problems.append(f"--lora_model_path: no adapter for questions of type {shown}; add default=ADAPTER for them")
    raise_all(problems)


def bad_rows_path(args: InferenceArguments) -> Path | None:
    """Name the list of rows that cannot be used: `RESULTS.bad_rows.csv` for `RESULTS.csv`; None but in the main process."""
    return Path(args.output_path).with_suffix(".bad_rows.csv") if PartialState().is_main_process else None


def load_rows(args: InferenceArguments) -> tuple[Table, list[Example], list[BadRow]]:
    """Read the table, check its examples, and list the rows left out. Raises `InputError` with every problem found."""
    options = {"columns": column_names(args), "on_bad_row": args.on_bad_row}
    table, problems = load_table(args.csv_path, args.annotations_path, require_answers=False, **options)
    options = {"question_type_column": args.question_type_column, "on_bad_image": args.on_bad_image}
    options |= {"on_bad_row": args.on_bad_row, "bad_rows_path": bad_rows_path(args)}
    bad_images = Path(args.output_path).with_suffix(".bad_images.csv") if PartialState().is_main_process else None
    given = table, problems, args.csv_path, args.image_dir
    examples, bad = check_examples(*given, bad_images_path=bad_images, **options)
    types = collect_errors([], parse_question_types, args.question_types)  # what is wrong with them has been reported
    if types:
        examples = of_types(examples, types, args.csv_path)
        table = table.only({example.row for example in examples} | {row.row for row in bad})
    return table, examples, bad

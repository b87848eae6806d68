"""Answer a table of questions: the same table comes out with answers, confidence and status."""

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd
from accelerate import PartialState

from blip2vqa.adapters.ref import CURRENT, AdapterRef
from blip2vqa.config.base import column_names
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.bad_rows import BadRow, leave_out
from blip2vqa.data.choices import read_choices
from blip2vqa.data.examples import Example, check_examples, missing_types, of_types
from blip2vqa.data.prediction_table import PredictionsTable
from blip2vqa.data.table_checks import Table
from blip2vqa.data.tables import load_table
from blip2vqa.evaluation.scores import score
from blip2vqa.inference.generation import ANSWERS_WITH, Answer, answer_by_batch
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec, parse_adapters
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.inference.startup import find_scorer, start_pairs
from blip2vqa.models.answer_lists import CHOICES, AnswerTree, read_answers
from blip2vqa.models.classes import ClassSubset
from blip2vqa.models.loading import LoadedModel
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.distributed import run_on_main_rank, start
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import partial_path, write_json_atomic
from blip2vqa.utils.progress import show_progress

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
        return replace(request, tree=self.choices[example.row], of_row=True) if self.choices else request


def answer_table(args: InferenceArguments, features: FeatureArguments) -> dict | None:
    """Answer the table and write it; returns the metrics, or `{}` when the table has no answers.

    Processes of one launch share the work; the main one alone writes, and the others return None. Raises `InputError`, with
    every problem found, before any weight is loaded.
    """
    start()
    job = _check(args, features)
    answered = any(example.answers for example in job.examples)
    scorer = find_scorer(args.bertscore_model if answered else "none")
    with ExitStack() as opened:
        table, metrics = None, {}

        def open_table() -> set[int]:
            nonlocal table
            key = _run_key(args, job)
            table = PredictionsTable(args.output_path, job.table.frame, key, overwrite=args.overwrite)
            opened.callback(table.close)
            table.add({"row": bad.row, "status": f"bad {bad.of}: {bad.reason}"} for bad in job.skipped)
            return table.done

        def write_metrics(written: pd.DataFrame) -> None:
            said = dict(zip(job.table.frame.index.tolist(), written["generated_answer"].tolist(), strict=True))
            answers = [said[example.row] for example in job.examples]
            metrics["adapter" if job.spec.adapters else "base"] = score(job.examples, answers, bertscore=scorer)
            write_json_atomic(metrics_path(args.output_path), metrics)

        rows = run_on_main_rank(open_table)
        done = {index for index, example in enumerate(job.examples) if example.row in rows}
        if done and table:
            print(f"{args.output_path}: going on where it was, {len(done):,} of {len(job.examples):,} are answered")
        if len(done) < len(job.examples):
            _answer(args, features, job, done, table)
        if not table:
            return None
        table.finish(write_metrics if answered else None)
        return metrics


def _run_key(args: InferenceArguments, job: Job) -> dict:
    """Collect what the answers depend on: an interrupted table goes on only where all of it is the same."""
    return {
        "base_model": job.spec.base_model_id,
        "base_revision": job.spec.revision,
        "adapters": {ref.name: adapter.digest for ref, adapter in job.spec.adapters.items()},
        "images": hash_text("".join(example.digest for example in job.examples)),
        "prompts": {ref.name: request.text.prompt for ref, request in job.requests.items()},
        "decoding": {ref.name: asdict(request.decoding) for ref, request in job.requests.items()},
        "answers": {ref.name: list(request.tree.answers) for ref, request in job.requests.items() if request.tree}
        | ({CHOICES: "of each row"} if job.choices else {}),
        "routes": hash_text("\n".join(job.ref_for(example).name for example in job.examples)) if job.routed else None,
        "dtype": args.dtype,
        "quantization": args.quantization,
    }


def hash_text(text: str) -> str:
    """Compute the SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def metrics_path(output_path: str) -> Path:
    """Name the file of the metrics: `RESULTS.metrics.json` for `RESULTS.csv`."""
    return Path(output_path).with_suffix(".metrics.json")


def _check(args: InferenceArguments, features: FeatureArguments) -> Job:
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


def _start_block(
    args: InferenceArguments, job: Job, loaded: LoadedModel, kept: list[tuple[str, str]], done: set[int]
) -> str:
    images = len({example.digest for example in job.examples})
    pending = [example for index, example in enumerate(job.examples) if index not in done]
    counts = Counter(job.ref_for(example) for example in pending)
    base, *rest = start_pairs(loaded, kept)
    pairs = [base]
    if not job.spec.adapters:
        pairs.append(("adapter", "none: the base answers alone"))
    for ref, adapter in job.spec.adapters.items():
        share = f", {counts[ref]:,} questions" if job.routed else ""
        pairs.append((f"adapter {ref.name}".strip(), f"{adapter.path}{share}"))
    pairs += rest
    pairs.append(("questions", f"{len(pending):,} on {images:,} images, {args.batch_size} at once"))
    for ref, request in job.requests.items():
        of = f" {ref.name}" if ref.name else ""
        described = ANSWERS_WITH[request.text.answers_with].describe(request)
        pairs += [(f"{label}{of}", text) for label, text in described]
    if job.choices:
        pairs.append(("answers", "one of each row's own choices"))
    if job.skipped:
        pairs.append(("skipped", f"{len(job.skipped)} rows that cannot be used; their status says why"))
    return format_block("Answering", pairs)


def _answer(
    args: InferenceArguments,
    features: FeatureArguments,
    job: Job,
    done: set[int],
    table: PredictionsTable | None,
) -> None:
    """Answer the questions not in `done`; the main process alone has a table, and keeps results in it as they come."""
    examples, size, quantization = job.examples, args.batch_size, args.quantization
    loaded, found, kept = job.spec.load(examples, features.kept(), quantization=quantization, batch_size=size)
    if table:
        print(_start_block(args, job, loaded, kept, done), flush=True)
    requests = [job.request_for(example) for example in examples]
    batches = answer_by_batch(loaded, found, examples, requests, batch_size=size, done=done)
    total = len(examples) - len(done)
    with show_progress(total=total, desc="answering", unit="question", disable=not table) as bar:
        for batch in batches:
            if table:
                table.add(_result(job, examples[index], answer) for index, answer in batch)
            bar.update(sum(index not in done for index, _ in batch))


def _result(job: Job, example: Example, answer: Answer) -> dict:
    """Build the entry of one answer in `PredictionsTable`."""
    result = {"row": example.row, "answer": answer.text, "confidence": answer.confidence, "status": "ok"}
    if job.routed:
        result["adapter"] = job.ref_for(example).name
    return result | ({"ranked": answer.ranked} if answer.ranked else {})

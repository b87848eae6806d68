"""One inference run: a table of questions in, the same table with answers, confidence and status out."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import PartialState

from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.examples import BadRow, Example, check_examples, missing_types, of_types
from blip2vqa.data.prediction_table import PredictionsTable, partial_path
from blip2vqa.data.tables import Table, load_table
from blip2vqa.evaluation.metrics import bertscore_scorer
from blip2vqa.evaluation.scores import score
from blip2vqa.inference.generation import Answer, answer_by_batch
from blip2vqa.inference.model_spec import ONLY, ModelSpec, check_asks, find_model_spec, parse_adapters
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.answer_lists import read_answers
from blip2vqa.models.loading import LoadedModel
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.distributed import run_on_main_rank, start
from blip2vqa.utils.errors import collect_errors, raise_all
from blip2vqa.utils.files import write_json_atomic
from blip2vqa.utils.progress import show_progress

DEFAULT = "default"
"""The adapter for types of questions that have none of their own."""


@dataclass
class Job:
    """What will be answered and by whom, checked before any weight is loaded."""

    table: Table
    examples: list[Example]
    skipped: list[BadRow]
    spec: ModelSpec
    requests: dict[str, AnswerRequest]
    """By the user's names for adapters."""

    @property
    def routed(self) -> bool:
        """Whether each question goes to the adapter of its type."""
        return ONLY not in self.requests

    def name_for(self, example: Example) -> str:
        """Of the adapter that answers it."""
        if not self.routed:
            return ONLY
        return example.question_type if example.question_type in self.requests else DEFAULT


def answer_table(args: InferenceArguments, features: FeatureArguments) -> dict | None:
    """Answer the table and write it; returns the metrics, `{}` when the table has no answers, None but in the main process.

    Processes of one launch share the work; the main one alone writes. Raises `InputError`, with every problem found,
    before any weight is loaded.
    """
    state = start()
    job = _check(args, features)
    answered = any(example.answers for example in job.examples)
    scorer = bertscore_scorer(args.bertscore_model) if answered and state.is_main_process else None
    if scorer is not None:  # an evaluate.Metric is falsy
        scorer.check()
    table = None

    def open_table() -> set[int]:
        nonlocal table
        table = PredictionsTable(args.output_path, job.table.frame, _run_key(args, job), overwrite=args.overwrite)
        table.add({"row": bad.row, "status": f"bad image: {bad.reason}"} for bad in job.skipped)
        return table.done

    done = run_on_main_rank(open_table)
    pending = [example for example in job.examples if example.row not in done]
    if done and table:
        print(f"{args.output_path}: going on where it was, {len(done):,} of {len(job.examples):,} are answered")
    if pending:
        _answer(args, features, job, pending, table)
    if not table:
        return None
    written = table.finish()
    said = dict(zip(job.table.frame.index.tolist(), written["generated_answer"].tolist(), strict=True))
    if not answered:
        return {}
    answers = [said[example.row] for example in job.examples]
    metrics = {"adapter" if job.spec.adapters else "base": score(job.examples, answers, bertscore=scorer)}
    write_json_atomic(metrics_path(args.output_path), metrics)
    return metrics


def _run_key(args: InferenceArguments, job: Job) -> dict:
    """What the answers depend on."""
    return {
        "base_model": job.spec.base_model_id,
        "base_revision": job.spec.revision,
        "adapters": {name: adapter.digest for name, adapter in job.spec.adapters.items()},
        "images": hashlib.sha256("".join(example.digest for example in job.examples).encode()).hexdigest(),
        "prompts": {name: request.text.prompt for name, request in job.requests.items()},
        "decoding": {name: asdict(request.decoding) for name, request in job.requests.items()},
        "answers": {name: list(request.tree.answers) for name, request in job.requests.items() if request.tree},
        "routes": hashlib.sha256("\n".join(map(job.name_for, job.examples)).encode()).hexdigest()
        if job.routed
        else None,
        "dtype": args.dtype,
        "quantization": args.quantization,
    }


def metrics_path(output_path: str) -> Path:
    """`RESULTS.csv` → `RESULTS.metrics.json`."""
    return Path(output_path).with_suffix(".metrics.json")


def _check(args: InferenceArguments, features: FeatureArguments) -> Job:
    problems = args.check() + features.check()
    if Path(args.output_path).exists() and not args.overwrite and not partial_path(args.output_path).exists():
        problems.append(
            f"--output_path {args.output_path}: is already there, finished; name another, or --overwrite it"
        )
    found = collect_errors(problems, _find_voices, args)
    rows = collect_errors(problems, load_rows, args) if args.csv_path else None
    job = Job(*rows, *found) if found and rows else None
    if job:
        collect_errors(problems, _check_routes, job)
    raise_all(problems)
    for name, request in job.requests.items():
        asked = [example for example in job.examples if job.name_for(example) == name]
        room = request.tree.longest if request.tree else request.decoding.max_new_tokens
        collect_errors(problems, request.text.check_lengths, asked, room)
    raise_all(problems)
    return job


def _find_voices(args: InferenceArguments) -> tuple[ModelSpec, dict[str, AnswerRequest]]:
    adapters = parse_adapters(args.lora_model_path)
    spec = find_model_spec(
        args.base_model_id,
        args.base_model_revision,
        {name: (path, args.lora_revision) for name, path in adapters.items()},
        dtype=args.dtype,
    )
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    answers = read_answers(args.answers) if args.answers else None
    names = list(adapters) or [ONLY]
    requests = {name: spec.request(name, prompt=args.prompt, decoding=decoding, answers=answers) for name in names}
    problems: list[str] = []
    for name, request in requests.items():
        collect_errors(problems, check_asks, request, adapters.get(name))
    raise_all(problems)
    return spec, requests


def _check_routes(job: Job) -> None:
    """Every question has an adapter, and every adapter is named for a type that there is, here or by the rule."""
    if not job.routed:
        return
    types = Counter(example.question_type for example in job.examples)
    known = ", ".join(sorted(types))
    _, unknown = missing_types((name for name in job.requests if name != DEFAULT), job.examples)
    problems = [f"--lora_model_path {name}=…: no question is of type {name}; the table has {known}" for name in unknown]
    lost = {name: count for name, count in types.items() if name not in job.requests}
    if lost and DEFAULT not in job.requests:
        shown = ", ".join(f"{name} ({count:,} questions)" for name, count in sorted(lost.items()))
        problems.append(f"--lora_model_path: no adapter for questions of type {shown}; add default=ADAPTER for them")
    raise_all(problems)


def load_rows(args: InferenceArguments) -> tuple[Table, list[Example], list[BadRow]]:
    """The table, its checked examples, and the rows left out. Raises `InputError` with every problem found."""
    table, problems = load_table(args.csv_path, args.annotations_path, require_answers=False)
    examples, bad = check_examples(
        table,
        problems,
        args.csv_path,
        args.image_dir,
        question_type_column=args.question_type_column,
        on_bad_image=args.on_bad_image,
        bad_images_path=Path(args.output_path).with_suffix(".bad_images.csv")
        if PartialState().is_main_process
        else None,
    )
    types = collect_errors([], parse_question_types, args.question_types)  # what is wrong with them has been reported
    if types:
        examples = of_types(examples, types, args.csv_path)
        table = table.only({example.row for example in examples} | {row.row for row in bad})
    return table, examples, bad


def start_pairs(loaded: LoadedModel, kept: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a run that answers says first of its base, its device and its features."""
    processes = PartialState().num_processes
    return [
        *(tuple(note.split(": ", 1)) for note in loaded.notes),
        ("device", f"{loaded.device}, {processes} process{'es' * (processes > 1)}"),
        *kept,
    ]


def _start_block(
    args: InferenceArguments, job: Job, loaded: LoadedModel, kept: list[tuple[str, str]], pending: list[Example]
) -> str:
    images = len({example.digest for example in job.examples})
    counts = Counter(job.name_for(example) for example in pending)
    pairs = [("base model", f"{loaded.base_model_id} ({loaded.family.name})")]
    if not job.spec.adapters:
        pairs.append(("adapter", "none: the base answers alone"))
    for name, adapter in job.spec.adapters.items():
        label = f"adapter {name}" if name else "adapter"
        pairs.append((label, f"{adapter.path}, {counts[name]:,} questions" if name else adapter.path))
    pairs += start_pairs(loaded, kept)
    pairs.append(("questions", f"{len(pending):,} on {images:,} images, {args.batch_size} at once"))
    for name, request in job.requests.items():
        of = f" {name}" if name else ""
        if request.text.classes:
            listed = len(request.tree.answers if request.tree else request.text.answers)
            pairs.append((f"answers{of}", f"the likeliest of {listed:,}, outputs of the head"))
        else:
            pairs.append((f"decoding{of}", request.decoding.describe()))
        pairs.append((f"prompt{of}", request.text.prompt))
        if request.tree and not request.text.classes:
            how = f"found and ranked with {request.tree.beams} beams"
            pairs.append((f"answers{of}", f"one of {len(request.tree.answers):,}, {how}"))
    if job.skipped:
        pairs.append(("skipped", f"{len(job.skipped)} rows with a bad image; their status says why"))
    return format_block("Answering", pairs)


def _answer(
    args: InferenceArguments,
    features: FeatureArguments,
    job: Job,
    pending: list[Example],
    table: PredictionsTable | None,
) -> None:
    """Answer what is pending; the main process alone has a table, and keeps results in it as they come."""
    loaded, found, kept = job.spec.load(
        {example.digest: example.image for example in pending},
        features.kept(),
        dtype=args.dtype,
        quantization=args.quantization,
        batch_size=args.batch_size,
    )
    if table:
        print(_start_block(args, job, loaded, kept, pending), flush=True)
    requests = [job.requests[job.name_for(example)] for example in pending]
    batches = answer_by_batch(loaded, found, pending, requests, batch_size=args.batch_size)
    with show_progress(total=len(pending), desc="answering", unit="question", disable=not table) as bar:
        for batch in batches:
            if table:
                table.add(_result(job, pending[index], answer) for index, answer in batch)
            bar.update(len(batch))


def _result(job: Job, example: Example, answer: Answer) -> dict:
    """As `PredictionsTable` keeps it."""
    result = {"row": example.row, "answer": answer.text, "confidence": answer.confidence, "status": "ok"}
    if job.routed:
        result["adapter"] = job.name_for(example)
    return result | ({"ranked": answer.ranked} if answer.ranked else {})

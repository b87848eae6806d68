"""Answer a table of questions: the same table comes out with answers, confidence and status."""

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.sharding import refuse_sharding
from blip2vqa.data.examples import Example
from blip2vqa.data.prediction_table import UNSURE, PredictionsTable
from blip2vqa.evaluation.scores import score
from blip2vqa.inference.generation import ANSWERS_WITH, Answer, answer_by_batch
from blip2vqa.inference.job import Job, check_job
from blip2vqa.inference.startup import find_scorer, start_pairs
from blip2vqa.models.answer_lists import CHOICES
from blip2vqa.models.loading import LoadedModel
from blip2vqa.reporting.reports import report_answers, report_path
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.distributed import run_on_all_ranks, run_on_main_rank, start
from blip2vqa.utils.files import write_json_atomic
from blip2vqa.utils.progress import show_progress


def answer_table(args: InferenceArguments, features: FeatureArguments) -> dict | None:
    """Answer the table and write it; returns the metrics, or `{}` when the table has no answers.

    Processes of one launch share the work; the main one alone writes, and the others return None. Raises `InputError`, with
    every problem found, before any weight is loaded.
    """
    refuse_sharding("inference.py answers")
    start()
    job = run_on_all_ranks(lambda: check_job(args, features))
    answered = any(example.answers for example in job.examples)
    scorer = find_scorer(args.bertscore_model if answered else "none")
    with ExitStack() as opened:
        table, metrics = None, {}

        def open_table() -> set[int]:
            nonlocal table
            key = _run_key(args, job)
            kept = {"overwrite": args.overwrite, "min_probability": args.min_probability}
            table = PredictionsTable(args.output_path, job.table.frame, key, **kept)
            opened.callback(table.close)
            table.add({"row": bad.row, "status": f"bad {bad.of}: {bad.reason}"} for bad in job.skipped)
            return table.done

        def write_metrics(written: pd.DataFrame) -> None:
            rows = job.table.frame.index.tolist()
            columns = [dict(zip(rows, written[name].tolist(), strict=True)) for name in ("generated_answer", "status")]
            metrics.update(_score(job, *columns, scorer))
            report_answers(
                report_path(args.output_path), args.output_path, job.examples, written.set_index(pd.Index(rows))
            )
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


def _score(job: Job, said: dict[int, str], status: dict[int, str], scorer) -> dict[str, dict]:
    """Score the answers, those left out as empty ones; where there are such, also the answered rows alone.

    `said` and `status` are of the table's rows.
    """
    whose = "adapter" if job.spec.adapters else "base"
    examples = {whose: job.examples, "answered": [one for one in job.examples if status[one.row] != UNSURE]}
    if len(examples["answered"]) == len(job.examples):
        del examples["answered"]
    return {name: score(some, [said[one.row] for one in some], bertscore=scorer) for name, some in examples.items()}


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
    if answer.probability_right is not None:
        result["probability_right"] = answer.probability_right
    if job.routed:
        result["adapter"] = job.ref_for(example).name
    return result | ({"ranked": answer.ranked} if answer.ranked else {})

"""One inference run: a table of questions in, the same table with answers, confidence and status out."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from blip2vqa.api import decoding_of
from blip2vqa.arguments import DEFAULT_BASE, InferenceArguments
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import BadRow, Example, check_examples, load_questions
from blip2vqa.data.tables import Table, load_table
from blip2vqa.errors import gather, raise_all
from blip2vqa.evaluation import score
from blip2vqa.families import DEFAULT_PROMPT, family_of
from blip2vqa.features import encode_images
from blip2vqa.files import write_json_atomic
from blip2vqa.generation import Decoding, answer_examples
from blip2vqa.loading import (
    AdapterFile,
    LoadedModel,
    add_adapter,
    choose_dtype,
    find_adapter,
    find_device,
    load_base,
    load_config,
    load_processor,
)
from blip2vqa.metrics import bertscore_scorer
from blip2vqa.predictions import PredictionsTable, partial_path, read_predictions
from blip2vqa.reporting.tables import format_block

# Images encoded at a time: so many features are held in memory at once, and at most so much work is lost when stopped.
IMAGES_AT_ONCE = 256


@dataclass
class Job:
    """What will be answered and by whom, checked before any weight is loaded."""

    table: Table
    examples: list[Example]
    skipped: list[BadRow]
    adapter: AdapterFile | None
    base_model_id: str
    base_model_revision: str | None
    text: TextEncoder
    decoding: Decoding


def answer_table(args: InferenceArguments) -> dict:
    """Answer the table and write it; returns the metrics, `{}` when the table has no answers.

    Raises `InputError`, with every problem found, before any weight is loaded.
    """
    job = _check(args)
    answered = any(example.answers for example in job.examples)
    scorer = bertscore_scorer(args.bertscore_model) if answered else None
    if scorer is not None:  # an evaluate.Metric is falsy
        scorer.check()
    run_key = {
        "base_model": job.base_model_id,
        "base_revision": job.base_model_revision,
        "adapter": job.adapter and job.adapter.digest,
        "images": hashlib.sha256("".join(example.digest for example in job.examples).encode()).hexdigest(),
        "prompt": job.text.prompt,
        "decoding": vars(job.decoding),
        "dtype": args.dtype,
        "quantization": args.quantization,
    }
    predictions = PredictionsTable(args.output_path, job.table.frame, run_key, overwrite=args.overwrite)
    done = predictions.done
    predictions.add((bad.row, "", None, f"bad image: {bad.reason}") for bad in job.skipped)
    pending = [example for example in job.examples if example.row not in done]
    if done:
        print(f"{args.output_path}: going on where it was, {len(done):,} of {len(job.examples):,} are answered")
    if pending:
        loaded = load_base(
            job.base_model_id, revision=job.base_model_revision, dtype=args.dtype, quantization=args.quantization
        )
        if job.adapter:
            add_adapter(loaded, job.adapter)
        print(_start_block(args, job, loaded, len(pending)), flush=True)
        _answer(args, job, loaded, pending, predictions)
    written = predictions.finish()
    said = dict(zip(job.table.frame.index.tolist(), written["generated_answer"].tolist(), strict=True))
    if not answered:
        return {}
    answers = [said[example.row] for example in job.examples]
    metrics = {"adapter" if job.adapter else "base": score(job.examples, answers, bertscore=scorer)}
    write_json_atomic(metrics_path(args.output_path), metrics)
    return metrics


def score_table(args: InferenceArguments) -> dict:
    """Score predictions of any system against the table's answers; no model and no image is loaded."""
    raise_all(args.check())
    examples = load_questions(args.csv_path, args.annotations_path, question_type_column=args.question_type_column)
    scorer = bertscore_scorer(args.bertscore_model)
    metrics = {"predictions": score(examples, read_predictions(args.score, examples), bertscore=scorer)}
    write_json_atomic(score_path(args.score), metrics)
    return metrics


def metrics_path(output_path: str) -> Path:
    """`RESULTS.csv` → `RESULTS.metrics.json`."""
    return Path(output_path).with_suffix(".metrics.json")


def score_path(predictions: str) -> Path:
    """`PREDICTIONS.csv` → `PREDICTIONS.score.json`."""
    return Path(predictions).with_suffix(".score.json")


def _check(args: InferenceArguments) -> Job:
    problems = args.check()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append("inference.py answers in one process; start it with python, not with several under a launcher")
    if Path(args.output_path).exists() and not args.overwrite and not partial_path(args.output_path).exists():
        problems.append(
            f"--output_path {args.output_path}: is already there, finished; name another, or --overwrite it"
        )
    found = gather(problems, _find_model, args)
    rows = gather(problems, _load_rows, args) if args.csv_path else None
    if found and rows:
        text, decoding = found[-2:]
        gather(problems, text.check_lengths, rows[1], decoding.max_new_tokens)
    raise_all(problems)
    return Job(*rows, *found)


def _find_model(args: InferenceArguments) -> tuple[AdapterFile | None, str, str | None, TextEncoder, Decoding]:
    adapter, base, revision = None, args.base_model_id or DEFAULT_BASE, args.base_model_revision
    if args.lora_model_path:
        adapter = find_adapter(args.lora_model_path, args.lora_revision, args.base_model_id, revision)
        base, revision = adapter.base_model_id, adapter.base_model_revision
    config = load_config(base, revision)
    choose_dtype(args.dtype, family_of(config), find_device())
    manifest = adapter.manifest if adapter else {}
    prompt = args.prompt or manifest.get("prompt", DEFAULT_PROMPT)
    text = TextEncoder.of(load_processor(base, config, revision), config, prompt)
    return adapter, base, revision, text, decoding_of(manifest, args.num_beams, args.max_new_tokens)


def _load_rows(args: InferenceArguments) -> tuple[Table, list[Example], list[BadRow]]:
    table, problems = load_table(args.csv_path, args.annotations_path, require_answers=False)
    return table, *check_examples(
        table,
        problems,
        args.csv_path,
        args.image_dir,
        question_type_column=args.question_type_column,
        on_bad_image=args.on_bad_image,
        bad_images_path=Path(args.output_path).with_suffix(".bad_images.csv"),
    )


def _start_block(args: InferenceArguments, job: Job, loaded: LoadedModel, pending: int) -> str:
    decoding = job.decoding
    pairs = [
        ("base model", f"{loaded.base_model_id} ({loaded.family.name})"),
        ("adapter", args.lora_model_path or "none: the base answers alone"),
        *(tuple(note.split(": ", 1)) for note in loaded.notes),
        ("device", str(loaded.device)),
        (
            "questions",
            f"{pending:,} on {len({example.digest for example in job.examples}):,} images, {args.batch_size} at once",
        ),
        ("decoding", f"{decoding.num_beams} beams" if decoding.num_beams > 1 else "greedy"),
        ("prompt", job.text.prompt),
    ]
    if job.skipped:
        pairs.append(("skipped", f"{len(job.skipped)} rows with a bad image; their status says why"))
    return format_block("Answering", pairs)


def _answer(
    args: InferenceArguments, job: Job, loaded: LoadedModel, pending: list[Example], predictions: PredictionsTable
) -> None:
    """Answer image by image, so that one is encoded once for all its questions; results are kept as they come."""
    text, decoding = job.text, job.decoding
    by_image: dict[str, list[Example]] = {}
    for example in pending:
        by_image.setdefault(example.digest, []).append(example)
    digests = list(by_image)
    with tqdm(total=len(pending), desc="answering", unit="question") as bar:
        for start in range(0, len(digests), IMAGES_AT_ONCE):
            chunk = digests[start : start + IMAGES_AT_ONCE]
            images = {digest: by_image[digest][0].image for digest in chunk}
            features = encode_images(loaded, images, batch_size=args.batch_size, progress=False)
            rows = [example for digest in chunk for example in by_image[digest]]
            for first in range(0, len(rows), args.batch_size):
                batch = rows[first : first + args.batch_size]
                answers = answer_examples(loaded, text, features, batch, decoding, batch_size=args.batch_size)
                predictions.add(
                    (example.row, answer.text, answer.confidence, "ok")
                    for example, answer in zip(batch, answers, strict=True)
                )
                bar.update(len(batch))

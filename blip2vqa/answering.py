"""One inference run: a table of questions in, the same table with answers, confidence and status out."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import PartialState
from tqdm.auto import tqdm

from blip2vqa.answer_lists import AnswerTree, read_answers
from blip2vqa.api import decoding_of
from blip2vqa.arguments import DEFAULT_BASE, FeatureArguments, InferenceArguments
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import BadRow, Example, check_examples, load_questions
from blip2vqa.data.tables import Table, load_table
from blip2vqa.errors import gather, raise_all
from blip2vqa.evaluation import score
from blip2vqa.families import DEFAULT_PROMPT, family_of
from blip2vqa.features import load_with_features
from blip2vqa.files import write_json_atomic
from blip2vqa.generation import Decoding, answer_by_batch
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
from blip2vqa.processes import on_main, start
from blip2vqa.reporting.tables import format_block


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
    tree: AnswerTree | None
    """The answers allowed; None: whatever the model says."""


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
        table.add((bad.row, "", None, f"bad image: {bad.reason}") for bad in job.skipped)
        return table.done

    done = on_main(open_table)
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
    metrics = {"adapter" if job.adapter else "base": score(job.examples, answers, bertscore=scorer)}
    write_json_atomic(metrics_path(args.output_path), metrics)
    return metrics


def _run_key(args: InferenceArguments, job: Job) -> dict:
    """What the answers depend on."""
    return {
        "base_model": job.base_model_id,
        "base_revision": job.base_model_revision,
        "adapter": job.adapter and job.adapter.digest,
        "images": hashlib.sha256("".join(example.digest for example in job.examples).encode()).hexdigest(),
        "prompt": job.text.prompt,
        "decoding": vars(job.decoding),
        "answers": list(job.tree.answers) if job.tree else None,
        "dtype": args.dtype,
        "quantization": args.quantization,
    }


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


def _check(args: InferenceArguments, features: FeatureArguments) -> Job:
    problems = args.check() + features.check()
    if Path(args.output_path).exists() and not args.overwrite and not partial_path(args.output_path).exists():
        problems.append(
            f"--output_path {args.output_path}: is already there, finished; name another, or --overwrite it"
        )
    found = gather(problems, _find_model, args)
    rows = gather(problems, _load_rows, args) if args.csv_path else None
    if found and rows:
        *_, text, decoding, tree = found
        gather(problems, text.check_lengths, rows[1], tree.longest if tree else decoding.max_new_tokens)
    raise_all(problems)
    return Job(*rows, *found)


def _find_model(args: InferenceArguments) -> tuple:
    """Adapter, base, its revision, text encoder, decoding, answer tree: the last six fields of a `Job`."""
    adapter, base, revision = None, args.base_model_id or DEFAULT_BASE, args.base_model_revision
    if args.lora_model_path:
        adapter = find_adapter(args.lora_model_path, args.lora_revision, args.base_model_id, revision)
        base, revision = adapter.base_model_id, adapter.base_model_revision
    config = load_config(base, revision)
    choose_dtype(args.dtype, family_of(config), find_device())
    manifest = adapter.manifest if adapter else {}
    prompt = args.prompt or manifest.get("prompt", DEFAULT_PROMPT)
    text = TextEncoder.of(load_processor(base, config, revision), config, prompt)
    tree = AnswerTree(tuple(read_answers(args.answers)), text) if args.answers else None
    if tree:
        tree.check()
    return adapter, base, revision, text, decoding_of(manifest, args.num_beams, args.max_new_tokens), tree


def _load_rows(args: InferenceArguments) -> tuple[Table, list[Example], list[BadRow]]:
    table, problems = load_table(args.csv_path, args.annotations_path, require_answers=False)
    return table, *check_examples(
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


def _start_block(
    args: InferenceArguments, job: Job, loaded: LoadedModel, kept: list[tuple[str, str]], pending: int
) -> str:
    decoding, state = job.decoding, PartialState()
    images = len({example.digest for example in job.examples})
    pairs = [
        ("base model", f"{loaded.base_model_id} ({loaded.family.name})"),
        ("adapter", args.lora_model_path or "none: the base answers alone"),
        *(tuple(note.split(": ", 1)) for note in loaded.notes),
        ("device", f"{loaded.device}, {state.num_processes} process{'es' * (state.num_processes > 1)}"),
        *kept,
        ("questions", f"{pending:,} on {images:,} images, {args.batch_size} at once"),
        ("decoding", f"{decoding.num_beams} beams" if decoding.num_beams > 1 else "greedy"),
        ("prompt", job.text.prompt),
    ]
    if job.tree:
        pairs.append(("answers", f"one of {len(job.tree.answers):,}, found and ranked with {job.tree.beams} beams"))
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
    revision = job.base_model_revision
    loaded, found, kept = load_with_features(
        partial(load_base, job.base_model_id, revision=revision, dtype=args.dtype, quantization=args.quantization),
        {example.digest: example.image for example in pending},
        job.adapter.scopes if job.adapter else (),
        features.kept(),
        batch_size=args.batch_size,
    )
    if job.adapter:
        add_adapter(loaded, job.adapter)
    if table:
        print(_start_block(args, job, loaded, kept, len(pending)), flush=True)
    batches = answer_by_batch(
        loaded, job.text, found, pending, job.decoding, batch_size=args.batch_size, tree=job.tree
    )  # fmt: skip
    with tqdm(total=len(pending), desc="answering", unit="question", disable=not table) as bar:
        for batch in batches:
            if table:
                table.add(
                    (pending[index].row, answer.text, answer.confidence, "ok", *([answer.ranked] if job.tree else []))
                    for index, answer in batch
                )
            bar.update(len(batch))

"""One inference run: a table of questions in, the same table with answers, confidence and status out."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import PartialState
from tqdm.auto import tqdm

from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.examples import BadRow, Example, check_examples, load_questions, missing_types, of_types
from blip2vqa.data.prediction_table import PredictionsTable, partial_path, read_predictions
from blip2vqa.data.tables import Table, load_table
from blip2vqa.evaluation.metrics import bertscore_scorer
from blip2vqa.evaluation.scores import score
from blip2vqa.inference.generation import Answer, answer_by_batch
from blip2vqa.inference.model_spec import ONLY, Source, check_asks, find_source, parse_adapters
from blip2vqa.inference.request import Voice
from blip2vqa.models.answer_lists import read_answers
from blip2vqa.models.loading import LoadedModel
from blip2vqa.reporting.tables import format_block
from blip2vqa.utils.distributed import on_main, start
from blip2vqa.utils.errors import gather, raise_all
from blip2vqa.utils.files import write_json_atomic

DEFAULT = "default"
"""The adapter for types of questions that have none of their own."""


@dataclass
class Job:
    """What will be answered and by whom, checked before any weight is loaded."""

    table: Table
    examples: list[Example]
    skipped: list[BadRow]
    source: Source
    voices: dict[str, Voice]
    """By the user's names for adapters."""

    @property
    def routed(self) -> bool:
        """Whether each question goes to the adapter of its type."""
        return ONLY not in self.voices

    def name_for(self, example: Example) -> str:
        """Of the adapter that answers it."""
        if not self.routed:
            return ONLY
        return example.question_type if example.question_type in self.voices else DEFAULT


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
    metrics = {"adapter" if job.source.adapters else "base": score(job.examples, answers, bertscore=scorer)}
    write_json_atomic(metrics_path(args.output_path), metrics)
    return metrics


def _run_key(args: InferenceArguments, job: Job) -> dict:
    """What the answers depend on."""
    return {
        "base_model": job.source.base_model_id,
        "base_revision": job.source.revision,
        "adapters": {name: adapter.digest for name, adapter in job.source.adapters.items()},
        "images": hashlib.sha256("".join(example.digest for example in job.examples).encode()).hexdigest(),
        "prompts": {name: voice.text.prompt for name, voice in job.voices.items()},
        "decoding": {name: asdict(voice.decoding) for name, voice in job.voices.items()},
        "answers": {name: list(voice.tree.answers) for name, voice in job.voices.items() if voice.tree},
        "routes": hashlib.sha256("\n".join(map(job.name_for, job.examples)).encode()).hexdigest()
        if job.routed
        else None,
        "dtype": args.dtype,
        "quantization": args.quantization,
    }


def score_table(args: InferenceArguments) -> dict:
    """Score predictions of any system against the table's answers; no model and no image is loaded."""
    raise_all(args.check())
    examples = load_questions(args.csv_path, args.annotations_path, question_type_column=args.question_type_column)
    said = dict(zip(map(id, examples), read_predictions(args.score, examples), strict=True))
    types = parse_question_types(args.question_types)
    examples = of_types(examples, types, args.csv_path) if types else examples
    scorer = bertscore_scorer(args.bertscore_model)
    metrics = {"predictions": score(examples, [said[id(example)] for example in examples], bertscore=scorer)}
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
    found = gather(problems, _find_voices, args)
    rows = gather(problems, load_rows, args) if args.csv_path else None
    job = Job(*rows, *found) if found and rows else None
    if job:
        gather(problems, _check_routes, job)
    raise_all(problems)
    for name, voice in job.voices.items():
        asked = [example for example in job.examples if job.name_for(example) == name]
        room = voice.tree.longest if voice.tree else voice.decoding.max_new_tokens
        gather(problems, voice.text.check_lengths, asked, room)
    raise_all(problems)
    return job


def _find_voices(args: InferenceArguments) -> tuple[Source, dict[str, Voice]]:
    adapters = parse_adapters(args.lora_model_path)
    source = find_source(
        args.base_model_id,
        args.base_model_revision,
        {name: (path, args.lora_revision) for name, path in adapters.items()},
        dtype=args.dtype,
    )
    decoding = {"num_beams": args.num_beams, "max_new_tokens": args.max_new_tokens}
    answers = read_answers(args.answers) if args.answers else None
    names = list(adapters) or [ONLY]
    voices = {name: source.voice(name, prompt=args.prompt, decoding=decoding, answers=answers) for name in names}
    problems: list[str] = []
    for name, voice in voices.items():
        gather(problems, check_asks, voice, adapters.get(name))
    raise_all(problems)
    return source, voices


def _check_routes(job: Job) -> None:
    """Every question has an adapter, and every adapter is named for a type that there is, here or by the rule."""
    if not job.routed:
        return
    types = Counter(example.question_type for example in job.examples)
    known = ", ".join(sorted(types))
    _, unknown = missing_types((name for name in job.voices if name != DEFAULT), job.examples)
    problems = [f"--lora_model_path {name}=…: no question is of type {name}; the table has {known}" for name in unknown]
    lost = {name: count for name, count in types.items() if name not in job.voices}
    if lost and DEFAULT not in job.voices:
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
    types = gather([], parse_question_types, args.question_types)  # what is wrong with them has been reported
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
    if not job.source.adapters:
        pairs.append(("adapter", "none: the base answers alone"))
    for name, adapter in job.source.adapters.items():
        label = f"adapter {name}" if name else "adapter"
        pairs.append((label, f"{adapter.path}, {counts[name]:,} questions" if name else adapter.path))
    pairs += start_pairs(loaded, kept)
    pairs.append(("questions", f"{len(pending):,} on {images:,} images, {args.batch_size} at once"))
    for name, voice in job.voices.items():
        of = f" {name}" if name else ""
        if voice.text.classes:
            listed = len(voice.tree.answers if voice.tree else voice.text.answers)
            pairs.append((f"answers{of}", f"the likeliest of {listed:,}, outputs of the head"))
        else:
            pairs.append((f"decoding{of}", voice.decoding.describe()))
        pairs.append((f"prompt{of}", voice.text.prompt))
        if voice.tree and not voice.text.classes:
            how = f"found and ranked with {voice.tree.beams} beams"
            pairs.append((f"answers{of}", f"one of {len(voice.tree.answers):,}, {how}"))
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
    loaded, found, kept = job.source.load(
        {example.digest: example.image for example in pending},
        features.kept(),
        dtype=args.dtype,
        quantization=args.quantization,
        batch_size=args.batch_size,
    )
    if table:
        print(_start_block(args, job, loaded, kept, pending), flush=True)
    voices = [job.voices[job.name_for(example)] for example in pending]
    batches = answer_by_batch(loaded, found, pending, voices, batch_size=args.batch_size)
    with tqdm(total=len(pending), desc="answering", unit="question", disable=not table) as bar:
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

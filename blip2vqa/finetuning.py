"""One fine-tuning run: table and base in, an adapter that knows what it is, its scores and predictions out."""

import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from transformers import EarlyStoppingCallback

from blip2vqa.arguments import (
    DataArguments,
    FinetuneArguments,
    GenerationArguments,
    LoraArguments,
    ModelArguments,
    raise_all,
)
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import BadRow, Example, load_examples
from blip2vqa.data.splits import check_disjoint, split_by_image, write_split
from blip2vqa.errors import InputError
from blip2vqa.evaluation import BlindBaseline, score, swap_images
from blip2vqa.exchange.manifest import data_hash, versions, write_manifest
from blip2vqa.families import family_of
from blip2vqa.features import ImageFeatures, encode_images
from blip2vqa.files import write_json_atomic, write_text_atomic
from blip2vqa.generation import Answer, Decoding, answer_examples
from blip2vqa.loading import LoadedModel, choose_dtype, find_device, load_base, load_config
from blip2vqa.lora import LoraSummary, wrap
from blip2vqa.metrics import BERTScore, bertscore_scorer
from blip2vqa.predictions import to_csv
from blip2vqa.reporting.card import model_card
from blip2vqa.reporting.tables import format_block
from blip2vqa.training import VQATrainer

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """The arguments of one run, checked, and what they resolve to."""

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    generation: GenerationArguments
    training: FinetuneArguments
    resolved: dict
    """What differs from the defaults; as JSON, a configuration that repeats the run."""

    def __post_init__(self):
        # Trainer's own output_dir becomes the folder of its checkpoints, inside this one.
        self.folder = Path(self.training.output_dir)
        self.started = time.monotonic()

    def results(self) -> list[tuple[str, str]]:
        """What was written and where, for the closing block."""
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        return [
            ("time", f"{minutes} min {seconds} s"),
            ("adapter", f"{self.folder}/adapter_model.safetensors, with its prompt and scores in blip2vqa.json"),
            ("scores", f"{self.folder}/metrics.json"),
            ("answers", f"{self.folder}/predictions.csv"),
            ("run again", f"accelerate launch finetune.py {self.folder}/run.json --output_dir NEW_FOLDER"),
            ("use it", f"python inference.py --lora_model_path {self.folder} --image_dir … --csv_path …"),
        ]


@dataclass
class Tables:
    """Checked examples on both sides of the split."""

    train: list[Example]
    val: list[Example]
    skipped: list[BadRow]


def finetune(run: Run) -> dict:
    """Fine-tune, evaluate and write everything; returns what `metrics.json` holds.

    Raises `InputError`, with every problem found, before any weight is loaded.
    """
    state, args, folder = PartialState(), run.training, run.folder
    tables = _check(run)
    # Found now, not after hours of training: an encoder that is not to be had.
    scorer = bertscore_scorer(run.generation.bertscore_model) if state.is_main_process else None
    resume = _checkpoint_to_resume(run)
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / "run.json", run.resolved)
        write_split(folder / "split.json", tables.train, tables.val)

    state.wait_for_everyone()

    loaded = load_base(
        run.model.base_model_id,
        revision=run.model.base_model_revision,
        dtype=run.model.dtype,
        quantization=run.model.quantization,
        device=args.device,
        for_training=True,
    )
    text = TextEncoder.of(loaded, run.data.prompt)
    text.check_lengths(tables.train + tables.val, loaded.max_positions, answer_room=run.generation.max_new_tokens)
    features = _encode_all(run, loaded, tables, state)
    decoding = Decoding(run.generation.num_beams, run.generation.max_new_tokens)

    def answers(examples: list[Example], progress: str) -> list[Answer]:
        size = args.per_device_eval_batch_size
        shown = None if args.disable_tqdm else progress
        return answer_examples(loaded, text, features, examples, decoding, batch_size=size, progress=shown)

    base_answers = answers(tables.val, "base model")
    lora = wrap(loaded, run.lora, args.seed)
    trainer = _trainer(run, loaded, text, features, tables, decoding)
    if state.is_main_process:
        print(_start_block(run, loaded, lora, tables, trainer), flush=True)
    trainer.train(resume_from_checkpoint=resume)

    adapter_answers = answers(tables.val, "adapter")
    swapped = swap_images(tables.val, args.seed)
    swapped_answers = answers(swapped, "swapped images") if swapped else None
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder, is_main_process=state.is_main_process)
    metrics = {}
    if state.is_main_process:
        metrics = _score(tables, scorer, base_answers, adapter_answers, swapped_answers)
        _write_results(run, loaded, lora, tables, decoding, metrics, base_answers, adapter_answers)
    state.wait_for_everyone()
    return metrics


def _check(run: Run) -> Tables:
    """Everything that can be wrong, found in one go, before any weight is loaded."""
    problems = []
    for part in (run.data, run.lora, run.generation, run.training):
        problems += part.check()
    tables = None
    for step in (lambda: _check_base(run), lambda: _checkpoint_to_resume(run)):
        try:
            step()
        except InputError as error:
            problems += error.problems
    if run.data.csv_path:
        try:
            tables = _load_tables(run)
        except InputError as error:
            problems += error.problems
    raise_all(problems)
    return tables


def _check_base(run: Run) -> None:
    config = load_config(run.model.base_model_id, run.model.base_model_revision)
    choose_dtype(run.model.dtype, family_of(config), find_device(run.training.use_cpu))


def _load_tables(run: Run) -> Tables:
    data, main = run.data, PartialState().is_main_process

    def load(csv_path: str, annotations_path: str | None) -> tuple[list[Example], list[BadRow]]:
        return load_examples(
            csv_path,
            data.image_dir,
            annotations_path,
            question_type_column=data.question_type_column,
            on_bad_image=data.on_bad_image,
            bad_images_path=run.folder / "bad_images.csv" if main else None,
            progress=main,
        )

    train, skipped = load(data.csv_path, data.annotations_path)
    if not data.eval_csv_path:
        train, val = split_by_image(train, data.val_split, run.training.seed)
        return Tables(train, val, skipped)
    val, skipped_val = load(data.eval_csv_path, data.eval_annotations_path)
    shared = check_disjoint(train, val)
    if shared and main:
        logger.warning("%d images stand in both tables: the validation score will flatter the adapter", shared)
    return Tables(train, val, skipped + skipped_val)


def _checkpoint_to_resume(run: Run) -> str | None:
    """The checkpoint to go on from; refuses a folder that holds another run's results."""
    asked = run.training.resume_from_checkpoint
    checkpoints = [
        path for path in (run.folder / "checkpoints").glob("checkpoint-*")
        if (path / "trainer_state.json").is_file()  # written last: without it the run was stopped in the middle of one
    ]  # fmt: skip
    if not asked or str(asked).lower() == "false":
        results = [name for name in ("adapter_model.safetensors", "metrics.json") if (run.folder / name).exists()]
        if results or checkpoints:
            raise InputError(
                f"--output_dir {run.folder}: holds another run ({', '.join(results) or 'checkpoints'}); name a new folder, "
                "or go on with that run by --resume_from_checkpoint"
            )
        return None
    if str(asked).lower() != "true":
        if not (Path(asked) / "trainer_state.json").is_file():
            raise InputError(f"--resume_from_checkpoint {asked}: not a checkpoint (no trainer_state.json in it)")
        return str(asked)
    if not checkpoints:
        raise InputError(f"--resume_from_checkpoint: no checkpoint in {run.folder / 'checkpoints'}; leave the flag out")
    return str(max(checkpoints, key=lambda path: int(path.name.rsplit("-", 1)[1])))


def _encode_all(run: Run, loaded: LoadedModel, tables: Tables, state: PartialState) -> ImageFeatures:
    """Features of all images, memory-mapped from a file that the processes of one machine fill together."""
    file = run.folder / f".features-{state.process_index // _local_world(state)}"  # one for each machine
    images = {example.digest: example.image for example in tables.train + tables.val}
    features = encode_images(
        loaded,
        images,
        batch_size=run.training.per_device_eval_batch_size,
        file=file,
        part=(state.local_process_index, _local_world(state)),
        progress=not run.training.disable_tqdm,
    )
    state.wait_for_everyone()
    if state.is_local_main_process:
        file.unlink()  # the mapping stays until the last process ends, and nothing is left behind if it is killed
    return features


def _local_world(state: PartialState) -> int:
    """Processes on this machine: its disk holds the features, and another machine's may not be the same."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))


def _trainer(
    run: Run, loaded: LoadedModel, text: TextEncoder, features: ImageFeatures, tables: Tables, decoding: Decoding
) -> VQATrainer:
    args = run.training
    args.output_dir = str(run.folder / "checkpoints")
    args.dataloader_pin_memory &= loaded.device.type != "cpu"  # else torch warns at every epoch
    if loaded.dtype == torch.float16:
        args.fp16, args.mixed_precision = True, "fp16"  # brings the gradient scaler that float16 needs
    callbacks = [EarlyStoppingCallback(args.early_stopping_patience)] if args.early_stopping_patience else []
    return VQATrainer(
        loaded, text, features, decoding, train=tables.train, val=tables.val, args=args, callbacks=callbacks
    )


def _start_block(run: Run, loaded: LoadedModel, lora: LoraSummary, tables: Tables, trainer: VQATrainer) -> str:
    args = run.training
    processes = trainer.accelerator.num_processes
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    steps = args.max_steps if args.max_steps > 0 else math.ceil(len(tables.train) / batch) * args.num_train_epochs
    parts = (
        f"{args.per_device_train_batch_size} × {args.gradient_accumulation_steps} accumulated × {processes} processes"
    )
    pairs = [
        ("base model", f"{loaded.base_model_id} ({loaded.family.name})"),
        *(tuple(note.split(": ", 1)) for note in loaded.notes),
        ("device", f"{loaded.device}, {processes} process{'es' if processes > 1 else ''}"),
        *lora.lines(),
        ("training", f"{len(tables.train):,} questions on {_images(tables.train):,} images"),
        ("validation", f"{len(tables.val):,} questions on {_images(tables.val):,} images, none of them in training"),
        ("effective batch", f"{batch} questions ({parts})"),
        ("steps", f"{int(steps):,} in {args.num_train_epochs:g} epochs"),
        ("prompt", run.data.prompt),
    ]
    if tables.skipped:
        pairs.append(
            ("skipped", f"{len(tables.skipped)} rows with a bad image; listed in {run.folder / 'bad_images.csv'}")
        )
    return format_block("Fine-tuning", pairs)


def _images(examples: list[Example]) -> int:
    return len({example.digest for example in examples})


def _score(
    tables: Tables,
    scorer: BERTScore | None,
    base: list[Answer],
    adapter: list[Answer],
    swapped: list[Answer] | None,
) -> dict[str, dict]:
    """What `metrics.json` holds: base and adapter, and what a model scores that never sees the right picture."""
    blind = BlindBaseline(tables.train).predict(tables.val)
    metrics = {
        "base": score(tables.val, [answer.text for answer in base], bertscore=scorer),
        "adapter": score(tables.val, [answer.text for answer in adapter], bertscore=scorer),
        "blind": score(tables.val, blind),
    }
    if swapped is not None:
        metrics["swapped"] = score(tables.val, [answer.text for answer in swapped])
    return metrics


def _write_results(
    run: Run,
    loaded: LoadedModel,
    lora: LoraSummary,
    tables: Tables,
    decoding: Decoding,
    metrics: dict,
    base: list[Answer],
    adapter: list[Answer],
) -> None:
    folder, arguments = run.folder, run.lora
    manifest = {
        "task": "vqa",
        "family": loaded.family.name,
        "base_model_id": loaded.where,
        "base_model_revision": loaded.revision,
        "prompt": run.data.prompt,
        "decoding": asdict(decoding),
        "end_token": loaded.tokenizer.convert_ids_to_tokens(loaded.end_token_id),
        "roles": [role for role, count in lora.modules.items() if count],
        "rank": arguments.lora_r,
        "alpha": arguments.lora_alpha,
        "scaling": "alpha / sqrt(rank)" if arguments.use_rslora else "alpha / rank",
        "data": {
            "table": run.data.csv_path,
            "sha256": data_hash(tables.train),
            "rows_train": len(tables.train),
            "rows_val": len(tables.val),
            "images_train": _images(tables.train),
            "images_val": _images(tables.val),
        },
        "seed": run.training.seed,
        "metrics": metrics,
        "versions": versions(),
    }
    predictions = pd.DataFrame(
        {
            "image_name": [example.image_name for example in tables.val],
            "question": [example.question for example in tables.val],
            "answer": [example.answer for example in tables.val],
            "question_type": [example.question_type for example in tables.val],
            "base_answer": [answer.text for answer in base],
            "generated_answer": [answer.text for answer in adapter],
            "confidence": [f"{answer.confidence:.4f}" for answer in adapter],
        }
    )
    write_text_atomic(folder / "predictions.csv", to_csv(predictions))
    write_text_atomic(folder / "README.md", model_card(manifest, metrics))
    write_manifest(folder, manifest)
    write_json_atomic(folder / "metrics.json", metrics)

"""One fine-tuning run: table and base in, an adapter that knows what it is, its scores and predictions out."""

import logging
import math
from collections.abc import Callable
from functools import partial

import torch
from accelerate import PartialState
from transformers import EarlyStoppingCallback

from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.lora import LoraSummary, wrap
from blip2vqa.config.roles import parse_scopes
from blip2vqa.data.examples import Example
from blip2vqa.data.splits import check_disjoint, write_split
from blip2vqa.evaluation.metrics import bertscore_scorer
from blip2vqa.evaluation.question_only import FOLDS
from blip2vqa.evaluation.scores import swap_images
from blip2vqa.evaluation.tasks import VQA
from blip2vqa.features.encode import Features, load_with_features
from blip2vqa.inference.generation import Answer, answer_examples
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import LoadedModel, load_base, load_config
from blip2vqa.reporting.tables import format_block
from blip2vqa.training.checks import check
from blip2vqa.training.data import BAD_IMAGES, Tables, count_images
from blip2vqa.training.outputs import score_run, write_results
from blip2vqa.training.resume import TRAINING_DATA, checkpoint_to_resume, describe_training_data
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import VQATrainer, row_length
from blip2vqa.utils.files import write_json_atomic

logger = logging.getLogger(__name__)

MOST_BLIND = 0.5  # that the text of the questions may give away, before it is warned of


def finetune(run: Run) -> dict:
    """Fine-tune, evaluate and write everything; returns what `metrics.json` holds.

    Raises `InputError`, with every problem found, before any weight is loaded.
    """
    state, args, folder = PartialState(), run.training, run.folder
    tables = check(run)
    # Found now, not after hours of training: an encoder that is not to be had.
    scorer = bertscore_scorer(run.generation.bertscore_model) if state.is_main_process else None
    if scorer is not None:  # an evaluate.Metric is falsy
        scorer.check()
    resume = checkpoint_to_resume(run, tables)
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / "run.json", run.resolved)
        write_split(folder / "split.json", tables.train, tables.val)
        write_json_atomic(folder / TRAINING_DATA, describe_training_data(tables))

    state.wait_for_everyone()
    base = run.model.base_model_id, run.model.base_model_revision
    fingerprints = fingerprint_base(*base, progress=not args.disable_tqdm) if state.is_main_process else {}

    loaded, features, kept = load_with_features(
        partial(
            load_base,
            base[0],
            revision=base[1],
            dtype=run.model.dtype,
            quantization=run.model.quantization,
            device=args.device,
            for_training=True,
            answers=tables.answers,
        ),
        {example.digest: example.image for example in tables.train + tables.val},
        family_of(load_config(*base)),
        parse_scopes(run.lora.lora_scope),
        run.features.kept(),
        batch_size=args.per_device_eval_batch_size,
        progress=not args.disable_tqdm,
    )

    def answers(examples: list[Example], progress: str) -> list[Answer]:
        size = args.per_device_eval_batch_size
        shown = None if args.disable_tqdm else progress
        return answer_examples(loaded, features, examples, tables.request, batch_size=size, progress=shown)

    base_answers = answers(tables.val, "base model")
    lora = wrap(loaded, run.lora, args.seed, fused=not args.torch_compile)
    trainer = _trainer(run, loaded, features, tables, answers)
    if state.is_main_process:
        print(_start_block(run, loaded, kept, lora, tables, trainer), flush=True)
        if run.task is VQA and (tables.blind.score or 0) > MOST_BLIND:
            logger.warning(
                "blind score %.2f, above %.1f: the answers can largely be guessed from the questions, and learnt without the "
                "picture; balance the answers to each question, or trust only scores well above the blind baseline's",
                tables.blind.score,
                MOST_BLIND,
            )
    trainer.train(resume_from_checkpoint=resume)

    adapter_answers = trainer.final_answers()
    swapped = swap_images(tables.val, args.seed)
    swapped_answers = answers(swapped, "swapped images") if swapped else None
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder, is_main_process=state.is_main_process)
    metrics = {}
    if state.is_main_process:
        metrics = score_run(run.task, tables, scorer, base_answers, adapter_answers, swapped_answers)
        write_results(run, loaded, lora, tables, metrics, base_answers, adapter_answers, fingerprints)
        if run.push_to:
            run.publish()
    state.wait_for_everyone()
    return metrics


def _trainer(
    run: Run,
    loaded: LoadedModel,
    features: Features,
    tables: Tables,
    answers: Callable[[list[Example], str], list[Answer]],
) -> VQATrainer:
    args = run.training
    args.output_dir = str(run.folder / "checkpoints")
    args.dataloader_pin_memory &= loaded.device.type != "cpu"  # else torch warns at every epoch
    if loaded.dtype == torch.float16:
        args.fp16, args.mixed_precision = True, "fp16"  # brings the gradient scaler that float16 needs
    callbacks = [EarlyStoppingCallback(args.early_stopping_patience)] if args.early_stopping_patience else []
    return VQATrainer(
        tables.text,
        features,
        answers,
        model=loaded.model,
        train=tables.train,
        val=tables.val,
        tokens_per_row=row_length(tables.train, tables.text, args),
        task=run.task,
        args=args,
        callbacks=callbacks,
    )


def _start_block(
    run: Run, loaded: LoadedModel, kept: list[tuple[str, str]], lora: LoraSummary, tables: Tables, trainer: VQATrainer
) -> str:
    args = run.training
    processes = trainer.accelerator.num_processes
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    epoch = math.ceil(len(tables.train) / batch)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(epoch * args.num_train_epochs)
    by = "process" if processes == 1 else "processes"
    size, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    parts = f"{size} × {accumulated} accumulated × {processes} {by}"
    row = trainer.data_collator.tokens_per_row
    unit = f"{run.task.unit}s"
    rows = f"{unit} of one image share rows of up to {row} tokens" if row else f"one for each {run.task.unit}"
    shared = check_disjoint(tables.train, tables.val) or "none"
    pairs = [
        ("base model", f"{loaded.base_model_id} ({loaded.family.name})"),
        *(tuple(note.split(": ", 1)) for note in loaded.notes),
        ("device", f"{loaded.device}, {processes} {by}"),
        *kept,
        *lora.lines(),
        ("training", f"{len(tables.train):,} {unit} on {count_images(tables.train):,} images"),
        (
            "validation",
            f"{len(tables.val):,} {unit} on {count_images(tables.val):,} images, {shared} of them in training",
        ),
        ("effective batch", f"{batch} {unit} ({parts})"),
        ("rows", rows),
        ("steps", f"{steps:,}, or {steps / epoch:.3g} epochs"),
        ("prompt", tables.text.prompt),
    ]
    if run.task is VQA and tables.blind.score is not None:
        score, n = tables.blind
        sample = "" if n == len(tables.train) + len(tables.val) else f", {n:,} of them"
        guessed = "of the questions' answers can be guessed without the picture"
        pairs.append(("blind score", f"{score:.2f} {guessed} ({FOLDS}-fold, question text alone{sample})"))
    if tables.answers:
        pairs.append(("answers", "; ".join(filter(None, (f"{len(tables.answers):,} to choose from", tables.note)))))
    if tables.skipped:
        pairs.append(("skipped", f"{len(tables.skipped)} rows with a bad image; listed in {run.folder / BAD_IMAGES}"))
    return format_block("Fine-tuning", pairs)

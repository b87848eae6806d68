"""Say in words what a run is about to do, before it trains."""

import logging
import math

from blip2vqa.adapters.lora import LoraSummary
from blip2vqa.data.splits import check_disjoint
from blip2vqa.evaluation.question_only import FOLDS
from blip2vqa.evaluation.tasks import VQA
from blip2vqa.inference.startup import start_pairs
from blip2vqa.models.loading import LoadedModel
from blip2vqa.reporting.tables import format_block
from blip2vqa.training.data import BAD_IMAGES, BAD_ROWS, RunData, count_images
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.formatting import percent

logger = logging.getLogger(__name__)

MOST_BLIND = 0.5
"""Share of the answers that the questions' text may give away without a warning."""


def print_start(
    run: Run,
    data: RunData,
    loaded: LoadedModel,
    feature_lines: list[tuple[str, str]],
    lora: LoraSummary,
    trainer: VQATrainer,
) -> None:
    """Print the start block, and warn of questions that give their answers away."""
    args, unit, processes = trainer.args, f"{run.task.unit}s", trainer.accelerator.num_processes
    size, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    batch = size * accumulated * processes
    epoch = math.ceil(len(data.train) / batch)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(epoch * args.num_train_epochs)
    parts = f"{size} × {accumulated} accumulated × {processes} process{'es' * (processes > 1)}"
    row = trainer.data_collator.tokens_per_row
    rows = f"{unit} of one image share rows of up to {row} tokens" if row else f"one for each {run.task.unit}"
    shared = check_disjoint(data.train, data.val) or "none"
    validation = f"{len(data.val):,} {unit} on {count_images(data.val):,} images, {shared} of them in training"
    pairs = [
        *start_pairs(loaded, feature_lines),
        *lora.lines(),
        ("training", f"{len(data.train):,} {unit} on {count_images(data.train):,} images"),
        ("validation", validation),
        ("effective batch", f"{batch} {unit} ({parts})"),
        ("rows", rows),
        ("steps", f"{steps:,}, or {steps / epoch:.3g} epochs"),
        ("prompt", data.text.prompt),
    ]
    score, n = data.blind if run.task is VQA else (None, 0)
    if score is not None:
        sample = "" if n == len(data.train) + len(data.val) else f", {n:,} of them"
        guessed = f"{percent(score)} of the answers can be guessed without the picture"
        pairs.append(("question alone", f"{guessed} ({FOLDS}-fold classifier of the question's text{sample})"))
    if data.answers:
        pairs.append(("answers", "; ".join(filter(None, (f"{len(data.answers):,} to choose from", data.note)))))
    for of, listing in (("image", BAD_IMAGES), ("row", BAD_ROWS)):
        skipped = sum(bad.of == of for bad in [*data.rows.skipped, *data.rows.skipped_val])
        if skipped:
            what = "with a bad image" if of == "image" else "that cannot be used"
            pairs.append(("skipped", f"{skipped} rows {what}; listed in {run.folder / listing}"))
    print(format_block("Fine-tuning", pairs), flush=True)
    if score is not None and score > MOST_BLIND:
        logger.warning(
            "%s of the answers can be guessed from the question alone, more than %s: they can be learnt without the "
            "picture; balance the answers to each question, or trust only scores well above the blind baseline's",
            percent(score),
            percent(MOST_BLIND, 0),
        )

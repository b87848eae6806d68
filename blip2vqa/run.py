"""A fine-tuning run as asked for: its arguments, its tables, and all that can be wrong with them, found in one go."""

import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState

from blip2vqa.arguments import (
    DataArguments,
    FeatureArguments,
    FinetuneArguments,
    GenerationArguments,
    LoraArguments,
    ModelArguments,
)
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import BadRow, Example, load_examples
from blip2vqa.data.splits import check_disjoint, describe_split, split_by_image
from blip2vqa.errors import InputError, gather, raise_all
from blip2vqa.families import family_of, parse_roles, parse_scopes
from blip2vqa.loading import choose_dtype, find_device, load_config, load_processor
from blip2vqa.lora import modules_to_adapt
from blip2vqa.reporting.tables import verdict

logger = logging.getLogger(__name__)

BAD_IMAGES = "bad_images.csv"
# What may differ when a run goes on: how long it lasts, what it says, where it stands and how fast it goes.
MAY_CHANGE = {
    "output_dir", "num_train_epochs", "max_steps", "early_stopping_patience", "save_total_limit", "report_to", "run_name",
    "logging_steps", "logging_strategy", "disable_tqdm", "bertscore_model", "per_device_eval_batch_size",
    "dataloader_num_workers", "feature_cache", "feature_cache_limit", "tokens_per_batch",
}  # fmt: skip


@dataclass
class Run:
    """The arguments of one run, checked, and what they resolve to."""

    model: ModelArguments
    data: DataArguments
    lora: LoraArguments
    generation: GenerationArguments
    features: FeatureArguments
    training: FinetuneArguments
    resolved: dict
    """What differs from the defaults; as JSON, a configuration that repeats the run."""

    def __post_init__(self):
        # Trainer's own output_dir becomes the folder of its checkpoints, inside this one.
        self.folder = Path(self.training.output_dir)
        self.started = time.monotonic()
        if self.training.n_gpu > 1:
            # Trainer would copy the model to all of them in one process, which is slow, and counts the loss once for each.
            logger.warning("1 of %d GPUs is used; `accelerate launch` uses them all", self.training.n_gpu)
            self.training._n_gpu = 1

    def results(self, metrics: dict) -> list[tuple[str, str]]:
        """What was written and where, for the closing block."""
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        return [
            ("verdict", verdict(metrics)),
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


def check(run: Run) -> Tables:
    """Read and check everything before any weight is loaded. Raises one `InputError` with every problem found."""
    parts = (run.data, run.lora, run.generation, run.features, run.training)
    problems = [problem for part in parts for problem in part.check()]
    text = gather(problems, _check_base, run)
    tables = gather(problems, _load_tables, run) if run.data.csv_path else None
    gather(problems, checkpoint_to_resume, run, tables)
    if text and tables:
        room, row = run.generation.max_new_tokens, 0 if text.seq2seq else run.training.tokens_per_row
        gather(problems, text.check_lengths, tables.train + tables.val, room, row)
    raise_all(problems)
    return tables


def _check_base(run: Run) -> TextEncoder:
    base, revision = run.model.base_model_id, run.model.base_model_revision
    config = load_config(base, revision)
    family, problems = family_of(config), []
    gather(problems, choose_dtype, run.model.dtype, family, find_device(run.training.use_cpu))
    if run.training.fp16 and not family.float16:
        problems.append(f"--fp16: {family.name} overflows in float16; use --bf16, or leave it out")
    # An unknown role or part has been reported with the arguments.
    roles, scopes = gather([], parse_roles, run.lora.lora_roles), gather([], parse_scopes, run.lora.lora_scope)
    if roles and scopes:
        with torch.device("meta"):
            model = family.model_class(config)
        gather(problems, modules_to_adapt, model, family, roles, scopes)
    raise_all(problems)
    return TextEncoder.of(load_processor(base, config, revision), config, run.data.prompt)


def _load_tables(run: Run) -> Tables:
    data, main, problems = run.data, PartialState().is_main_process, []

    def load(csv_path: str, annotations_path: str | None, bad_images: str) -> tuple[list[Example], list[BadRow]] | None:
        return gather(
            problems,
            partial(
                load_examples,
                csv_path,
                data.image_dir,
                annotations_path,
                question_type_column=data.question_type_column,
                on_bad_image=data.on_bad_image,
                bad_images_path=run.folder / bad_images if main else None,
                progress=main,
            ),
        )

    loaded = load(data.csv_path, data.annotations_path, BAD_IMAGES)
    loaded_val = (
        load(data.eval_csv_path, data.eval_annotations_path, "eval_" + BAD_IMAGES) if data.eval_csv_path else None
    )
    raise_all(problems)
    train, skipped = loaded
    if loaded_val is None:
        # A share out of range has been reported with the arguments.
        share = data.val_split if 0 < data.val_split < 1 else 0.5
        train, val = split_by_image(train, share, run.training.seed)
        return Tables(train, val, skipped)
    val, skipped_val = loaded_val
    shared = check_disjoint(train, val)
    if shared and main:
        logger.warning("%d images stand in both tables: the validation score will flatter the adapter", shared)
    return Tables(train, val, skipped + skipped_val)


def checkpoint_to_resume(run: Run, tables: Tables | None) -> str | None:
    """The checkpoint to go on from, if asked. Nothing finished is touched, and a run goes on as it began or not at all."""
    asked = str(run.training.resume_from_checkpoint or "false")
    checkpoints = [
        path for path in (run.folder / "checkpoints").glob("checkpoint-*")
        if (path / "trainer_state.json").is_file()  # written last: without it the run was stopped in the middle of one
    ]  # fmt: skip
    if (run.folder / "metrics.json").exists():  # written last
        raise InputError(f"--output_dir {run.folder}: holds a finished run; name a new folder")
    if asked.lower() == "false":
        if checkpoints or (run.folder / "adapter_config.json").exists():
            raise InputError(
                f"--output_dir {run.folder}: holds another run, stopped on its way; go on with it by "
                "--resume_from_checkpoint, or name a new folder"
            )
        return None
    if asked.lower() != "true" and not (Path(asked) / "trainer_state.json").is_file():
        raise InputError(f"--resume_from_checkpoint {asked}: not a checkpoint (no trainer_state.json in it)")
    if not checkpoints and asked.lower() == "true":
        raise InputError(f"--resume_from_checkpoint: no checkpoint in {run.folder / 'checkpoints'}; leave the flag out")
    checkpoint = Path(asked) if asked.lower() != "true" else max(checkpoints, key=lambda path: int(path.name[11:]))
    raise_all(_differences(run, tables, checkpoint.parent.parent))
    return str(checkpoint)


def _differences(run: Run, tables: Tables | None, before: Path) -> list[str]:
    """What a run to go on with was begun with otherwise: it would end in an adapter that nothing describes."""
    problems = []
    if (before / "run.json").is_file():
        then = json.loads((before / "run.json").read_text(encoding="utf-8"))
        problems = [
            f"--{name}: the run in {before} was begun with {then.get(name)!r}, not {run.resolved.get(name)!r}"
            for name in sorted(then | run.resolved)
            if name not in MAY_CHANGE and then.get(name) != run.resolved.get(name)
        ]
    if tables and (before / "split.json").is_file():
        split = json.loads((before / "split.json").read_text(encoding="utf-8"))
        if split != describe_split(tables.train, tables.val):
            problems.append(f"{run.data.csv_path}: the images are not those that the run in {before} was begun with")
    return problems


def count_images(examples: list[Example]) -> int:
    """Distinct images, by content."""
    return len({example.digest for example in examples})

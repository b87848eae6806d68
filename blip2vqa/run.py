"""A fine-tuning run as asked for: its arguments, its tables, and all that can be wrong with them, found in one go."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from blip2vqa.arguments import (
    DataArguments,
    FinetuneArguments,
    GenerationArguments,
    LoraArguments,
    ModelArguments,
)
from blip2vqa.collate import TextEncoder
from blip2vqa.data.examples import BadRow, Example, load_examples
from blip2vqa.data.splits import check_disjoint, split_by_image
from blip2vqa.errors import InputError, gather, raise_all
from blip2vqa.families import family_of
from blip2vqa.loading import choose_dtype, find_device, load_config, load_processor

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


def check(run: Run) -> Tables:
    """Read and check everything before any weight is loaded. Raises one `InputError` with every problem found."""
    problems = [problem for part in (run.data, run.lora, run.generation, run.training) for problem in part.check()]
    text = gather(problems, _check_base, run)
    gather(problems, checkpoint_to_resume, run)
    tables = gather(problems, _load_tables, run) if run.data.csv_path else None
    if text and tables:
        room, row = run.generation.max_new_tokens, 0 if text.seq2seq else run.training.tokens_per_row
        gather(problems, text.check_lengths, tables.train + tables.val, room, row)
    raise_all(problems)
    return tables


def _check_base(run: Run) -> TextEncoder:
    base, revision = run.model.base_model_id, run.model.base_model_revision
    config = load_config(base, revision)
    choose_dtype(run.model.dtype, family_of(config), find_device(run.training.use_cpu))
    return TextEncoder.of(load_processor(base, config, revision), config, run.data.prompt)


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


def checkpoint_to_resume(run: Run) -> str | None:
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


def count_images(examples: list[Example]) -> int:
    """Distinct images, by content."""
    return len({example.digest for example in examples})

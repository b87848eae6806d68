"""Resume a run that was stopped: find its checkpoint, and make sure that it is the same run."""

import re
import zipfile
from dataclasses import MISSING, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open

from blip2vqa.config.finetune import FINETUNE_ARGUMENTS, FinetuneArguments
from blip2vqa.config.paths import absolute, from_file
from blip2vqa.config.sharding import ZERO3
from blip2vqa.data.splits import describe_split
from blip2vqa.training.data import RunData
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import Failure, InputError, raise_all
from blip2vqa.utils.restart import resuming_command
from blip2vqa.utils.strict_json import read_json

CHECKPOINT = re.compile(r"checkpoint-\d{1,12}", re.ASCII)
SPLIT = "split.json"
TRAINING_DATA = "training_data.json"
FORMER_TRAINING_DATA = "taught.json"
"""The name of `TRAINING_DATA` in runs that were begun by version 0.1.0."""
# Options that may differ when a run is resumed: they decide how long it lasts, what it prints, and where and how fast it runs.
MAY_CHANGE = {
    "output_dir", "num_train_epochs", "max_steps", "early_stopping_patience", "save_minutes", "save_total_limit", "report_to",
    "run_name", "project", "trackio_space_id", "trackio_static_space_id", "trackio_bucket_id",
    "logging_steps", "logging_strategy", "disable_tqdm", "bertscore_model", "per_device_eval_batch_size",
    "dataloader_num_workers", "feature_cache", "feature_cache_limit", "tokens_per_batch", "hub_model_id", "hub_private_repo",
    "hub_revision",
}  # fmt: skip


def checkpoint_to_resume(run: Run, data: RunData | None) -> str | None:
    """Find the checkpoint to resume from; None for a run from the beginning.

    `data`: None where it could not be read; then only the options are compared. Raises `InputError` for a folder that holds a
    finished run or another one, and for a run that was begun with other options or data.
    """
    asked = str(run.training.resume_from_checkpoint or "false")
    last = last_checkpoint(run.folder / "checkpoints", run.training.save_only_model)
    if (run.folder / "metrics.json").exists():  # written last
        raise InputError(f"--output_dir {run.folder}: holds a finished run; name a new folder")
    trained = (run.folder / "adapter_config.json").exists()
    if asked.lower() == "false" and trained and data and (run.folder / "run.json").is_file():
        # It was stopped after training, while its results were scored and written: the same command goes on with that.
        if not _differences(run, data, run.folder):
            if not last:
                return None
            asked = "true"
    if asked.lower() == "false":
        if last or trained:
            raise InputError(
                f"--output_dir {run.folder}: holds another run, stopped on its way; go on with it by "
                "--resume_from_checkpoint, or name a new folder"
            )
        return None
    if asked.lower() != "true" and (lacking := _lacks(Path(asked), run.training.save_only_model)):
        raise InputError(f"--resume_from_checkpoint {asked}: not a checkpoint (no {lacking} in it)")
    if not last and asked.lower() == "true":
        raise InputError(f"--resume_from_checkpoint: no checkpoint in {run.folder / 'checkpoints'}; leave the flag out")
    checkpoint = Path(asked) if asked.lower() != "true" else last
    _read(checkpoint / "trainer_state.json")
    _check_readable(checkpoint)
    _check_launch(checkpoint, run.training)
    raise_all(_differences(run, data, checkpoint.parent.parent))
    return str(checkpoint)


def last_checkpoint(folder: Path, only_model: bool = False) -> Path | None:
    """Find the whole checkpoint of the latest step in a folder of checkpoints; None without any.

    `only_model`: whether they hold no state of the optimizer. A copy of one, such as "checkpoint-12 (copy)", is none.
    """
    named = [path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    whole = [path for path in named if not _lacks(path, only_model)]
    return max(whole, key=lambda path: int(path.name[11:]), default=None)


def _lacks(checkpoint: Path, only_model: bool) -> str | None:
    """Name a file that a checkpoint lacks; None for a whole one.

    A run may have been stopped while it wrote a checkpoint, the state last, or while it removed one, in any order.
    """
    needed = ["trainer_state.json", "adapter_model.safetensors"]
    if not only_model:
        whose = "global_step*/*optim_states.pt" if (checkpoint / "latest").exists() else "optimizer.pt"  # DeepSpeed's
        needed += [whose, "scheduler.pt", "rng_state*.pth"]
    return next((name for name in needed if not any(checkpoint.glob(name))), None)


def _check_readable(checkpoint: Path) -> None:
    """Raise `InputError` for a damaged file of a checkpoint; what torch has written are zip archives, with checksums inside."""
    for path in sorted(checkpoint.iterdir()):
        try:
            if path.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
                if damaged:
                    raise ValueError(f"{damaged} does not agree with its checksum")
            elif path.suffix == ".safetensors":
                safe_open(path, "pt")
        except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
            raise InputError(
                f"{path}: damaged ({error}); remove {checkpoint}, to go on from the checkpoint before it, or begin anew in a "
                "new folder"
            ) from error


def _check_launch(checkpoint: Path, args: FinetuneArguments) -> None:
    """Raise `InputError` for a checkpoint of another kind of launch, where DeepSpeed has divided the optimizer."""
    parts = len([*checkpoint.glob("global_step*/*optim_states.pt")])
    zero3 = any(checkpoint.glob("global_step*/*zero_pp_rank_*model_states.pt"))
    if parts != (args.world_size if args.deepspeed_plugin else 0) or zero3 != (args.sharding.kind == ZERO3):
        stage = ZERO3 if zero3 else "ZeRO-1 or 2"
        how = f"by {parts} processes with DeepSpeed's {stage}" if parts else "without DeepSpeed"
        raise InputError(f"--resume_from_checkpoint: {checkpoint} was saved {how}; launch in the same way")


def _differences(run: Run, data: RunData | None, before: Path) -> list[str]:
    """List in what this run differs from the one that was begun in folder `before`.

    Resumed with other options or data, it would end in an adapter that nothing describes.
    """
    options, split = _read(before / "run.json"), _read(before / SPLIT)
    asked = absolute(run.resolved)
    options = options and absolute(from_file(options, before))
    training_data = _read(before / TRAINING_DATA) or _read(before / FORMER_TRAINING_DATA)
    problems = []
    # Options that are None are never written, and an earlier version does not know those that have come since.
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for arguments in FINETUNE_ARGUMENTS
        for field in fields(arguments)
    }
    for name in sorted((options.keys() | asked.keys()) - MAY_CHANGE) if options is not None else ():
        was, value = (side.get(name, defaults.get(name)) for side in (options, asked))
        if was != value:
            problems.append(f"--{name}: the run in {before} was begun with {was!r}, not {value!r}")
    if data and split not in (None, describe_split(data.train, data.val)):
        problems.append(f"{run.data.csv_path}: the images are not those that the run in {before} was begun with")
    if data and training_data not in (None, describe_training_data(data)):
        problems.append(
            f"{run.data.csv_path}: questions, answers, or the list of answers, are not those that the run in {before} was "
            "begun with"
        )
    return problems


def _read(path: Path) -> dict | None:
    """Read a file of the stopped run; None where there is none. Raises `InputError` for a damaged one."""
    if not path.is_file():
        return None
    try:
        value = read_json(path, finite=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}; restore it, or begin anew in a new folder") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object; restore it, or begin anew in a new folder")
    return value


def describe_training_data(data: RunData) -> dict:
    """Describe what an adapter learns from: a resumed run must have the same, and a head its answers in the same order."""
    return {"sha256": data.sha256, "answers": list(data.answers) if data.answers else None}


def interrupted(run: Run) -> Failure:
    """Return what ends a run that Ctrl-C has stopped outside of its training, with the command that goes on with it."""
    last = last_checkpoint(run.folder / "checkpoints")
    go_on = (
        f"to go on from {last}: {resuming_command()}" if last else "no checkpoint was saved; run the same command again"
    )
    return Failure("Ctrl-C: stopped outside of training; files that were finished are kept", go_on, exit_code=130)

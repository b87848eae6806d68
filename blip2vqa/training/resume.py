"""Going on with a run that was stopped: from which checkpoint, and whether it is the same run."""

import json
from pathlib import Path

from blip2vqa.data.splits import describe_split
from blip2vqa.training.data import Tables
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError, raise_all

TRAINING_DATA = "taught.json"  # beside split.json: what the rows say
# What may differ when a run goes on: how long it lasts, what it says, where it stands and how fast it goes.
MAY_CHANGE = {
    "output_dir", "num_train_epochs", "max_steps", "early_stopping_patience", "save_total_limit", "report_to", "run_name",
    "logging_steps", "logging_strategy", "disable_tqdm", "bertscore_model", "per_device_eval_batch_size",
    "dataloader_num_workers", "feature_cache", "feature_cache_limit", "tokens_per_batch", "hub_model_id", "hub_private_repo",
    "hub_revision",
}  # fmt: skip


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
    if tables and (before / TRAINING_DATA).is_file():
        taught = json.loads((before / TRAINING_DATA).read_text(encoding="utf-8"))
        if taught != describe_training_data(tables):
            problems.append(
                f"{run.data.csv_path}: questions, answers, or the list of answers, are not those that the run in {before} was "
                "begun with"
            )
    return problems


def describe_training_data(tables: Tables) -> dict:
    """What an adapter learns from: a resumed run must go on with the same, and a head with its answers in their order."""
    return {"sha256": tables.sha256, "answers": list(tables.answers) if tables.answers else None}

"""Paths in the settings that a run leaves behind: they lead to the same files from any working folder."""

import os
from pathlib import Path

PATHS = (
    "csv_path", "image_dir", "annotations_path", "eval_csv_path", "eval_annotations_path", "answers", "base_model_id",
    "start_from", "style", "feature_cache", "bertscore_model", "deepspeed", "accelerator_config", "output_dir", "abo_dir",
    "check_model", "lora_model_path", "output_path",
)  # fmt: skip
"""Options that may name a file or a folder; each may also be a word or a name on the Hub."""
OUTPUTS = ("output_dir", "output_path")
"""Of these, the ones that are paths also before anything is there."""
WORDS = ("table", "none", "auto", "minilm", "detailed", "concise", "creative")
"""Values that are no paths even where a file is called so."""
FROM = "paths_from"
"""The key beside them that says that relative paths start at the file, not at the working folder; its value: `HERE`."""
HERE = "this file"


def absolute(values: dict) -> dict:
    """Return settings with each path that leads somewhere, or to the output, made absolute."""
    return {name: os.path.abspath(value) if _is_path(name, value) else value for name, value in values.items()}


def for_file(values: dict, folder: Path) -> dict:
    """Return settings as a file in `folder` keeps them: paths below it are relative to it, all others absolute."""
    values, folder = absolute(values), folder.absolute()
    below = {
        name: os.path.relpath(value, folder)
        for name, value in values.items()
        if _is_path(name, value) and Path(value).is_relative_to(folder)
    }
    return values | below | ({FROM: HERE} if below else {})


def from_file(values: dict, folder: Path) -> dict:
    """Return settings that a file in `folder` keeps, with absolute paths; without the key `FROM` they stay as they are."""
    if values.get(FROM) != HERE:
        return values
    values = {name: value for name, value in values.items() if name != FROM}
    return values | absolute({
        name: str(folder / value)
        for name, value in values.items()
        if isinstance(value, str) and _is_path(name, str(folder / value), value)
    })  # fmt: skip


def _is_path(name: str, value: object, written: str | None = None) -> bool:
    """Tell whether an option's value is a path; `written`: how it stands in the file, if not so."""
    if name not in PATHS or not isinstance(value, str) or (written or value) in WORDS:
        return False
    return name in OUTPUTS or os.path.exists(value)

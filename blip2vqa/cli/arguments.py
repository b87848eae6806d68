"""What the commands do alike with their arguments: how they are called, and what is refused before torch is imported."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from blip2vqa.config.parser import parse
from blip2vqa.utils.errors import InputError, raise_all

_SCRIPTS = {
    "finetune": "accelerate launch finetune.py",
    "infer": "python inference.py",
    "caption": "python caption.py",
    "generate": "python generate_vqa.py",
    "exchange": "python exchange.py",
}
_TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".json")


def called(command: str) -> str:
    """Return how the user called `command`: as `blip2vqa COMMAND`, or by the script of the same purpose."""
    script = _SCRIPTS[command]
    return script if Path(sys.argv[0]).name == script.split()[-1] else f"blip2vqa {command}"


def described(command: str, text: str) -> str:
    """Return a command's description with its examples as the user calls it."""
    return text.replace(f"blip2vqa {command}", called(command))


def parse_arguments(
    command: str, dataclasses: list[type], description: str, argv: list[str], *, needs: str, known: Sequence[str] = ()
) -> tuple[tuple, dict]:
    """Parse the command line `argv` as `blip2vqa.config.parser.parse`; `needs`: arguments that it cannot do without."""
    program = called(command)
    if not argv:
        raise InputError(f"no arguments are given; try {program} {needs} (--help lists the options)")
    usage = f"{program} [CONFIG.json or .yaml] [--option VALUE …]"
    return parse(dataclasses, described(command, description), argv, usage=usage, known=known)


def check_paths(parts: Iterable) -> None:
    """Raise `InputError` if a path among the arguments leads nowhere, with all that is wrong with them otherwise.

    Found here, it takes no second; later, it would have to wait for the import of torch.
    """
    parts = list(parts)
    missing = [problem for part in parts for problem in _missing(part)]
    if missing:
        raise_all([*(problem for part in parts if hasattr(part, "check") for problem in part.check()), *missing])


def _missing(part) -> list[str]:
    values = vars(part)
    problems = []
    for name in ("csv_path", "eval_csv_path", "annotations_path", "eval_annotations_path", "score"):
        path = values.get(name)
        if path and Path(path.removesuffix(".gz")).suffix.lower() in _TABLES and not Path(path).exists():
            problems.append(f"--{name} {path}: no such file")
    if values.get("image_dir") and not Path(values["image_dir"]).is_dir():
        problems.append(f"--image_dir {values['image_dir']}: no such folder")
    adapters = values.get("lora_model_path") or []
    adapters = [adapters] if isinstance(adapters, str) else [adapter.rpartition("=")[2] for adapter in adapters]
    for what, path in (("base model", values.get("base_model_id")), *(("adapter", adapter) for adapter in adapters)):
        if path and path.startswith(("/", "./", "../", "~")) and not Path(path).exists():
            problems.append(f"{what} {path}: no such folder")
    return problems

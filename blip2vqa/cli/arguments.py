"""What the commands do alike with their arguments: how they are parsed, and what is refused before torch is imported."""

import sys
from collections.abc import Sequence
from pathlib import Path

from blip2vqa.config.parser import parse
from blip2vqa.utils.console import called
from blip2vqa.utils.errors import collect_errors, raise_all
from blip2vqa.utils.strict_json import shown
from blip2vqa.utils.terminal import half_pair

_FILES = ("csv_path", "eval_csv_path", "annotations_path", "eval_annotations_path", "score", "systems", "answers")
# A table of another name may be a data set of the Hub, and `answers` may be a word.
_ENDINGS = (".csv", ".tsv", ".txt", ".token", ".parquet", ".xlsx", ".jsonl", ".json", ".yaml", ".yml")
_FOLDERS = {
    **dict.fromkeys(("base_model_id", "base", "tuned", "target"), "base model"),
    **dict.fromkeys(("lora_model_path", "start_from", "adapter", "adapters", "first", "second", "direct"), "adapter"),
}


_WRITTEN = ("output_path", "output_dir", "output", "compare", "plot", "json_output", "preview")
_LONGEST = 200
"""Bytes of the name of what is written: to it come endings and the number of the process, and file systems take 255."""


def described(command: str, text: str) -> str:
    """Return a command's description with its examples as the user calls it."""
    return text.replace(f"blip2vqa {command}", called(command))


def parse_arguments(
    command: str,
    dataclasses: list[type],
    description: str,
    argv: list[str] | None,
    *,
    needs: str,
    known: Sequence[str] = (),
) -> tuple[tuple, dict]:
    """Parse the command line `argv`, None for this process's own, as `blip2vqa.config.parser.parse`, and check its paths.

    `needs`: arguments that the command cannot do without.
    """
    program, argv = called(command), sys.argv[1:] if argv is None else argv
    usage, example = f"{program} [CONFIG.json or .yaml] [--option VALUE …]", f"{program} {needs}"
    text = described(command, description)
    parts, resolved = parse(dataclasses, text, argv, usage=usage, example=example, known=known)
    missing = [f"--{name}" for part in parts for name in part.missing()]
    if any(getattr(part, "estimate", None) is not None for part in parts):  # which needs no folder to write into
        missing = [name for name in missing if name != "--output_dir"]
    problems = []
    collect_errors(problems, check_paths, parts)
    if missing:  # the parts say it of each by itself
        problems = [problem for problem in problems if problem.split(": missing")[0] not in missing]
        problems.append(f"{', '.join(missing)}: missing; for example: {example} (--help lists the options)")
    raise_all(problems)
    return parts, resolved


def check_paths(parts: Sequence) -> None:
    """Raise `InputError` if a path among the arguments leads nowhere, with all that is wrong with them otherwise.

    Found here, it takes no second; later, it would have to wait for the import of torch.
    """
    raise_all([problem for part in parts for problem in _no_names(part)])
    missing = [problem for part in parts for problem in _missing(part)]
    if missing:
        others = [problem for part in parts for problem in part.check()]
        raise_all([*dict.fromkeys(others + missing)])  # some parts check a path themselves


def _no_names(part) -> list[str]:
    """Name texts that no file can hold, and names of outputs that no file can bear."""
    problems = []
    for name, value in vars(part).items():
        for text in filter(lambda text: isinstance(text, str), value if isinstance(value, list) else [value]):
            # Pictures are only read, whatever they are called.
            if "\0" in text or (half_pair(text) and name != "images"):
                problems.append(f"--{name} {text}: is no text in UTF-8; give another, or rename the file or folder")
            elif name in _WRITTEN and len(Path(text).name.encode()) > _LONGEST:
                problems.append(f"--{name} {text}: its name is too long; give one of at most {_LONGEST} bytes")
    return problems


def _missing(part) -> list[str]:
    given = {name: value for name, value in vars(part).items() if value}
    problems = [
        f"--{name} {given[name]}: no such file"
        for name in _FILES
        if name in given
        and Path(given[name].removesuffix(".gz")).suffix.lower() in _ENDINGS
        and not Path(given[name]).exists()
    ]
    if "archive" in given and not Path(given["archive"]).is_file():
        archive = str(Path(given["archive"]))
        problems.append(f"archive {archive if archive.isprintable() else shown(archive)}: there is no such file")
    if "image_dir" in given and not Path(given["image_dir"]).is_dir():
        problems.append(f"--image_dir {given['image_dir']}: no such folder")
    for name, what in _FOLDERS.items():
        several = given.get(name, [])
        for path in [several] if isinstance(several, str) else [one.rpartition("=")[2] for one in several]:
            if path.startswith(("/", "./", "../", "~")) and not Path(path).expanduser().exists():
                problems.append(f"{what} {path}: no such folder")
    return problems

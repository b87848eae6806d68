"""Styles of captions: small files of finetune.py's own options, of which captioning uses the prompt and the decoding."""

import difflib
from dataclasses import fields
from pathlib import Path
from typing import get_args

from blip2vqa.config.common import GenerationArguments
from blip2vqa.config.decoding import check_decoding
from blip2vqa.config.files import is_config_file, read_file
from blip2vqa.config.training import FINETUNE_OPTIONS, trainer_flags
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, raise_all

FOLDER = Path(__file__).parent


def known_styles() -> list[str]:
    """Return the names of the styles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def style_file(name: str) -> Path:
    """Return the file of a style that is known by name, or is a file. Raises `InputError` naming the known ones."""
    file = Path(name) if is_config_file(name) else FOLDER / f"{name}.json"
    if not file.is_file():
        raise InputError(
            f"style {name}: not known; choose from {', '.join(known_styles())}, or name a JSON or YAML file of your own"
        )
    return file


def read_style(name: str) -> dict:
    """Read a style's options. Raises `InputError` for an unknown one, or a file that is not readable or has no prompt."""
    file = style_file(name)
    style = read_file(file, "style")
    if not isinstance(style, dict) or not isinstance(style.get("prompt"), str):
        raise InputError(f'style {file}: must hold one JSON object with a "prompt"')
    raise_all([f"style {file}: {problem}" for problem in check_style(style)])
    return style


def check_style(style: dict) -> list[str]:
    """Name what of a style is no option of finetune.py, or out of range."""
    options = [option for part in FINETUNE_OPTIONS for option in fields(part)]
    known = {option.name for option in options}.union(trainer_flags())
    known.update(alias.lstrip("-") for option in options for alias in option.metadata["aliases"])
    problems = []
    for name in style.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name} is no option of {named('finetune')}{f'; did you mean {near[0]}?' if near else ''}")
    if "{question}" in style["prompt"]:
        problems.append("its prompt contains {question}, and captions have none; leave it out")
    decoding = {option.name: option for option in fields(GenerationArguments) if option.name in style}
    for name, option in decoding.items():
        kind = next(iter(get_args(option.type)), option.type)  # int of int | None
        kinds = (int, float) if kind is float else kind
        if not isinstance(style[name], kinds) or (isinstance(style[name], bool) and kind is not bool):
            return [*problems, f"{name} is {style[name]!r}; it must be of type {kind.__name__}"]
    return problems + check_decoding(style)

"""Styles of captions: small JSON files of finetune.py's own options, of which captioning uses the prompt and the decoding."""

import difflib
import json
from dataclasses import Field, fields
from pathlib import Path

from blip2vqa.utils.errors import InputError

FOLDER = Path(__file__).parent


def known_styles() -> list[str]:
    """Names of the styles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def style_file(name: str) -> Path:
    """The JSON of a style that is known by name, or is a file. Raises `InputError` naming the known ones."""
    file = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not file.is_file():
        raise InputError(
            f"style {name}: not known; choose from {', '.join(known_styles())}, or name a JSON of your own"
        )
    return file


def read_style(name: str) -> dict:
    """A style's options. Raises `InputError` for an unknown one, or a file that is not readable or has no prompt."""
    file = style_file(name)
    try:
        style = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise InputError(f"style {file}: not readable as JSON: {error}") from error
    if not isinstance(style, dict) or not isinstance(style.get("prompt"), str):
        raise InputError(f'style {file}: must hold one JSON object with a "prompt"')
    problems = check_style(style)
    if problems:
        raise InputError(*(f"style {file}: {problem}" for problem in problems))
    return style


def check_style(style: dict) -> list[str]:
    """What of a style is no option of finetune.py, or out of range."""
    # Imported here: these take seconds, which a mistyped flag should not wait for.
    from blip2vqa.config.common import GenerationArguments, check_decoding
    from blip2vqa.config.finetune import FINETUNE_ARGUMENTS

    options = [field for part in FINETUNE_ARGUMENTS for field in fields(part)]
    known = {name for option in options for name in (option.name, *_aliases(option))}
    problems = []
    for name in style.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name} is no option of finetune.py{f'; did you mean {near[0]}?' if near else ''}")
    if "{question}" in style["prompt"]:
        problems.append("its prompt contains {question}, and captions have none; leave it out")
    for field in fields(GenerationArguments):
        value, kinds = style.get(field.name), (int, float) if field.type is float else field.type
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and field.type is not bool)
        if field.name in style and wrong:
            return [*problems, f"{field.name} is {value!r}; it must be of type {field.type.__name__}"]
    return problems + check_decoding(style)


def _aliases(option: Field) -> list[str]:
    return [alias.lstrip("-") for alias in option.metadata.get("aliases", ())]

"""Styles of captions: small JSON files of finetune.py's own options, of which captioning uses the prompt and the decoding."""

import json
from pathlib import Path

from blip2vqa.errors import InputError

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
    return style

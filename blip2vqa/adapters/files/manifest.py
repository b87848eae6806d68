"""The manifest beside an adapter's weights, `blip2vqa.json`: base, prompt, decoding, data, scores, versions."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from blip2vqa.adapters.validation.manifest_schema import FORMAT
from blip2vqa.adapters.validation.safety import MANIFEST
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import write_json_atomic
from blip2vqa.utils.strict_json import parse_json

if TYPE_CHECKING:
    from blip2vqa.data.examples import Example  # whose import brings in pandas

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


def data_hash(examples: Iterable["Example"]) -> str:
    """SHA-256 over images (by content), questions and answers, whatever the order of the rows."""
    rows = sorted(json.dumps([e.digest, e.question, e.answers]) for e in examples)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Package → installed version."""
    return {package: version(package) for package in _PACKAGES}


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write `manifest` into the adapter's folder, whole or not at all."""
    write_json_atomic(folder / MANIFEST, {"format": FORMAT, **manifest})


def read_manifest(folder: Path, name: str) -> dict:
    """The manifest in an adapter's folder; `{}` for an adapter of other tools. Raises `InputError` for a broken one.

    `name`: what its user calls it.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    try:
        manifest = parse_json(file.read_bytes(), finite=False)
    except ValueError as error:
        raise InputError(
            f"adapter {name}: {MANIFEST} is not readable as JSON ({error}); restore or remove it"
        ) from error
    if not isinstance(manifest, dict):
        raise InputError(f"adapter {name}: {MANIFEST} holds no JSON object; restore or remove it")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"adapter {name}: {MANIFEST} has format {manifest.get('format')!r}; this version reads {FORMAT}"
        )
    return manifest

"""Write the manifest beside an adapter's weights, `blip2vqa.json`, and compute what it says of data and versions."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from blip2vqa.adapters.validation.manifest_schema import FORMAT
from blip2vqa.adapters.validation.safety import MANIFEST
from blip2vqa.utils.files import write_json_atomic

if TYPE_CHECKING:
    from blip2vqa.data.examples import Example  # whose import brings in pandas

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


def data_hash(examples: Iterable["Example"]) -> str:
    """Compute a SHA-256 over images (by content), questions and answers, whatever the order of the rows."""
    rows = sorted(json.dumps([e.digest, e.question, e.answers]) for e in examples)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Look up the installed versions of the packages that an adapter depends on."""
    return {package: version(package) for package in _PACKAGES}


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write `manifest` into the adapter's folder, whole or not at all."""
    write_json_atomic(folder / MANIFEST, {"format": FORMAT, **manifest})

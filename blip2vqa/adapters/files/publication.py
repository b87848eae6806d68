"""Prepare an adapter for others: its files, with a card for strangers and without this machine's paths."""

import hashlib
import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from safetensors.torch import save

from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.files.card import is_hub_id, model_card
from blip2vqa.adapters.validation.keys import plain_key
from blip2vqa.adapters.validation.manifest_schema import FORMAT, USES
from blip2vqa.adapters.validation.safe_weights import read_header
from blip2vqa.adapters.validation.safety import (
    BASE_CONFIG,
    CARD,
    CONFIG,
    MANIFEST,
    METRICS,
    WEIGHTS,
    check_folder,
    read_labels,
)
from blip2vqa.utils.errors import InputError


def published(
    adapter: Adapter, repo_id: str, licence: str | None, base_model_id: str | None
) -> dict[str, bytes | Path]:
    """Make what is published of an adapter under this name: file → its contents, or the file to send as it is.

    Raises `InputError` for one whose base has no name on the Hub.
    """
    base = base_model_id or adapter.base_model_id
    if not base or not is_hub_id(base):
        where = f"its base is a local folder, {base}" if base else "it does not say what its base is"
        raise InputError(
            f"adapter {adapter.name}: {where}; name the Hub's with --base_model_id, or others cannot load it"
        )
    revision = None if base_model_id else adapter.base_model_revision
    manifest = _without_paths({**adapter.manifest, "base_model_id": base, "base_model_revision": revision})
    config, _, scores = check_folder(adapter.folder, adapter.name, weights="header")
    metrics = manifest.get("metrics") or scores
    files: dict[str, bytes | Path] = {WEIGHTS: adapter.folder / WEIGHTS}
    if any(key != plain_key(key) for key in read_header(adapter.folder / WEIGHTS)):
        files[WEIGHTS] = save(adapter.weights, {"format": "pt"})  # others' PEFT reads plain keys alone
    if adapter.labels:
        kept = read_labels(adapter.folder)[0]
        files[BASE_CONFIG] = _json({key: kept[key] for key in ("model_type", "id2label")})
    files[CONFIG] = _json({**config, "base_model_name_or_path": base, "revision": revision})
    if (adapter.folder / METRICS).is_file():
        files[METRICS] = (adapter.folder / METRICS).read_bytes()
    sent = [*files, *([MANIFEST] if adapter.manifest else [])]
    files[CARD] = model_card(manifest, metrics, repo_id=repo_id, licence=licence, files=sent).encode()
    if adapter.manifest:
        sent = {file: files[file] for file in manifest.get("files", {}) if file in files}
        contents = {file: data if isinstance(data, bytes) else data.read_bytes() for file, data in sent.items()}
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
        files[MANIFEST] = _json({"format": FORMAT, **manifest, **({"files": sums} if sums else {})})
    return files


def _without_paths(manifest: dict) -> dict:
    """Return the manifest with each path of this machine cut to its last part."""

    def last_part(value):
        if isinstance(value, dict):
            return {key: last_part(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [last_part(part) for part in value]
        if not isinstance(value, str):
            return value
        kinds = (PurePosixPath, PureWindowsPath)
        local = value.startswith(("~", "./", "../")) or any(kind(value).is_absolute() for kind in kinds)
        return PureWindowsPath(value).name if local else value  # which takes both kinds of stroke

    words = {key for key, use in USES.items() if use.words}
    clean = {key: value if key in words else last_part(value) for key, value in manifest.items()}
    if (clean.get("data") or {}).get("table"):
        clean["data"]["table"] = Path(clean["data"]["table"]).name
    return clean


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

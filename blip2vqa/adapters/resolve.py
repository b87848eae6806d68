"""Find an adapter by what a user calls it: a folder, a name in the store, or a Hub id (USER/NAME or USER/NAME@REVISION)."""

import logging
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

from blip2vqa.adapters.files.adapter import Adapter, read_adapter
from blip2vqa.adapters.storage.hub import fetch_adapter
from blip2vqa.adapters.storage.local import find_in_store
from blip2vqa.adapters.validation.safety import CONFIG
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)


def locate(name: str | Path, revision: str | None = None) -> tuple[Path, str, str | None]:
    """Find an adapter's folder, fetching it from the Hub where it is neither a folder nor in the store.

    Returns (folder, whose contents are not checked yet; what the user calls the adapter, without a revision; revision on the
    Hub, or None for an adapter on this machine). Raises `InputError` for what is no adapter or not reachable.
    """
    name = str(name)
    folder = _folder_below(Path(name)) if Path(name).is_dir() else find_in_store(name)
    if folder is not None:
        return folder, name, None
    name, _, at = name.partition("@")
    return fetch_adapter(name, at or revision, or_local=True), name, at or revision


def _folder_below(folder: Path) -> Path:
    """Return a folder, or the one folder in it that holds an adapter where it holds none: PEFT's of an adapter with a name.

    Raises `InputError` where several do.
    """
    if (folder / CONFIG).is_file():
        return folder
    below = _named_in(folder)
    if len(below) > 1:
        paths = ", ".join(map(str, below[:8]))
        raise InputError(
            f"adapter {folder}: holds {len(below)} adapters, each in a folder of its own; name one: {paths}"
        )
    if below:
        logger.warning("adapter %s: it is in %s", folder, below[0])
    return below[0] if below else folder


def _named_in(folder: Path) -> list[Path]:
    """List the folders in a folder that hold an adapter."""
    try:
        return sorted(file.parent for file in folder.glob(f"*/{CONFIG}") if file.is_file())
    except OSError:
        return []


def open_adapter(name: str | Path, revision: str | None = None) -> Adapter:
    """Find an adapter and read it.

    Raises `InputError`, with every problem found, for what is no adapter, not reachable, or not safe to load.
    """
    return read_adapter(*locate(name, revision))


def is_adapter(name: str, revision: str | None = None) -> bool:
    """Tell whether a local folder, a name in the store, or a Hub id holds a PEFT adapter."""
    if Path(name).is_dir():
        return (Path(name) / CONFIG).is_file() or bool(
            not (Path(name) / "config.json").exists() and _named_in(Path(name))
        )
    if find_in_store(name):
        return True
    name, _, at = name.partition("@")
    try:
        hf_hub_download(name, CONFIG, revision=at or revision)
    except (EntryNotFoundError, LocalEntryNotFoundError, HFValidationError, OSError):
        return False
    return True

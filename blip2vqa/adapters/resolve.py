"""Find an adapter by what a user calls it: a folder, a name in the store, or a Hub id (USER/NAME or USER/NAME@REVISION)."""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

from blip2vqa.adapters.files.adapter import Adapter, read_adapter
from blip2vqa.adapters.storage.hub import fetch_adapter
from blip2vqa.adapters.storage.local import find_in_store
from blip2vqa.adapters.validation.safety import CONFIG


def locate(name: str | Path, revision: str | None = None) -> tuple[Path, str, str | None]:
    """Find an adapter's folder, fetching it from the Hub where it is neither a folder nor in the store.

    Returns (folder, whose contents are not checked yet; what the user calls the adapter, without a revision; revision on the
    Hub, or None for an adapter on this machine). Raises `InputError` for what is no adapter or not reachable.
    """
    name = str(name)
    folder = Path(name) if Path(name).is_dir() else find_in_store(name)
    if folder is not None:
        return folder, name, None
    name, _, at = name.partition("@")
    return fetch_adapter(name, at or revision, or_local=True), name, at or revision


def open_adapter(name: str | Path, revision: str | None = None) -> Adapter:
    """Find an adapter and read it.

    Raises `InputError`, with every problem found, for what is no adapter, not reachable, or not safe to load.
    """
    return read_adapter(*locate(name, revision))


def is_adapter(name: str, revision: str | None = None) -> bool:
    """Tell whether a local folder, a name in the store, or a Hub id holds a PEFT adapter."""
    if Path(name).is_dir():
        return (Path(name) / CONFIG).is_file()
    if find_in_store(name):
        return True
    name, _, at = name.partition("@")
    try:
        hf_hub_download(name, CONFIG, revision=at or revision)
    except (EntryNotFoundError, LocalEntryNotFoundError, HFValidationError, OSError):
        return False
    return True

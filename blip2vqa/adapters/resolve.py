"""What a name stands for: a local folder, an adapter of the local store, or a repository of the Hub."""

from pathlib import Path

from blip2vqa.adapters.storage.local import find_in_store
from blip2vqa.adapters.validation.safety import CONFIG


def is_adapter(name: str, revision: str | None = None) -> bool:
    """Tell whether a local folder, a name in the store, or a Hub id holds a PEFT adapter."""
    if Path(name).is_dir():
        return (Path(name) / CONFIG).is_file()
    if find_in_store(name):
        return True
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    name, _, at = name.partition("@")
    try:
        hf_hub_download(name, CONFIG, revision=at or revision)
    except (EntryNotFoundError, LocalEntryNotFoundError, HFValidationError, OSError):
        return False
    return True

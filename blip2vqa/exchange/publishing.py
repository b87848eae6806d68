"""Adapters into the store, into a file, to the Hub and from it: found by name first, then handed to the storage."""

from pathlib import Path

from blip2vqa.adapters.files.chat_template import chat_template
from blip2vqa.adapters.resolve import locate, open_adapter
from blip2vqa.adapters.storage import archive, hub, local
from blip2vqa.utils.files import write_text_atomic


def add(
    adapter: str, name: str | None = None, store: str | Path | None = None, *, convert_pickle: bool = False
) -> Path:
    """Copy an adapter into the store; return its folder there.

    `name`, `convert_pickle` and what is raised: as in `blip2vqa.adapters.storage.local.add`.
    """
    folder, called, _ = locate(adapter)
    return local.add(folder, name, store, convert_pickle=convert_pickle, called=called)


def export(adapter: str, output: str | Path | None = None) -> Path:
    """Write an adapter as one file with checksums, by default NAME.zip in the current folder; return the file.

    Beside it, as NAME.jinja, stands the prompt for servers, unless there is such a file already.
    """
    opened = open_adapter(adapter)
    file = archive.export(opened, Path(output or f"{Path(opened.name).resolve().name}.zip"))
    template, prompt = file.with_suffix(".jinja"), opened.manifest.get("prompt")
    if prompt and not template.exists():
        write_text_atomic(template, chat_template(prompt))
    return file


def push(adapter: str, hub_model_id: str, **options) -> str:
    """Publish an adapter on the Hub as USER/NAME; return its address. Options: see `blip2vqa.adapters.storage.hub.push`."""
    return hub.push(open_adapter(adapter), hub_model_id, **options)


def pull(name: str, as_name: str | None = None, store: str | Path | None = None) -> Path:
    """Fetch an adapter, USER/NAME or USER/NAME@REVISION, into the store; return its folder there.

    A pull that fails leaves the store as it was. Raises `InputError`.
    """
    name, _, revision = name.partition("@")
    return local.add(hub.fetch_adapter(name, revision or None), as_name, store, called=name)

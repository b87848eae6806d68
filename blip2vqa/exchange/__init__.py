"""Adapters kept, checked, merged, moved and published: every command of exchange.py as a function, under its name."""

from blip2vqa.exchange.commands import (
    add,
    check,
    export,
    extract,
    fuse,
    import_adapter,
    inspect,
    list_store,
    merge,
    pull,
    push,
    remove,
    resize,
    swap,
    transfer,
)

__all__ = [
    "add", "check", "export", "extract", "fuse", "import_adapter", "inspect", "list_store", "merge", "pull", "push", "remove",
    "resize", "swap", "transfer",
]  # fmt: skip

"""Adapters kept, checked, merged, moved and published: every command of exchange.py as a function, under its name."""

FUNCTIONS = (
    "list_store", "inspect", "check", "add", "remove", "export", "import_adapter", "merge", "resize", "extract", "fuse",
    "transfer", "swap", "push", "pull",
)  # fmt: skip


def __getattr__(name: str):
    # They pull in torch and transformers, and modules below import their neighbours here.
    if name in FUNCTIONS:
        from blip2vqa.exchange import commands

        return getattr(commands, name)
    raise AttributeError(f"module 'blip2vqa.exchange' has no attribute {name!r}")

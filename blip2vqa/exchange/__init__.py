"""Adapters kept, checked, merged, moved and published: every command of exchange.py as a function, imported when it is used.

from blip2vqa.exchange import list_store, inspect, check, add, remove, export, import_adapter, merge, resize, extract, fuse
from blip2vqa.exchange import transfer, swap, push, pull
"""

from collections.abc import Callable
from importlib import import_module


def __getattr__(name: str) -> Callable:
    for command in import_module("blip2vqa.exchange.commands").COMMANDS.values():
        if command.name == name:
            return command.function
    raise AttributeError(f"module 'blip2vqa.exchange' has no attribute {name!r}")

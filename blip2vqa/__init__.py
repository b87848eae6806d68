"""BLIP-2 that answers questions about your own pictures, adapted with LoRA."""

import logging

from blip2vqa.utils.version import __version__ as __version__

# bitsandbytes announces at import that an optional CPU kernel package is absent; nobody here needs it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    # `load` pulls in torch and transformers; reading a table or printing --help does not need them.
    if name == "load":
        from blip2vqa.api import load

        return load
    raise AttributeError(f"module 'blip2vqa' has no attribute {name!r}")

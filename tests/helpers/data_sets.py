"""A data set is made in this process."""

from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.generate.generating import generate


def run(*argv: object) -> dict | None:
    """Make a data set by the flags of generate_vqa.py; returns its summary."""
    parts, resolved = parse(VQA_ARGUMENTS, "test", [str(word) for word in argv])
    return generate(*parts, resolved)

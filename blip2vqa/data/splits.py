"""Splits examples into training and validation sides that share no picture."""

import random
from collections import Counter
from collections.abc import Sequence

from blip2vqa.data.examples import Example
from blip2vqa.utils.errors import InputError


def split_by_image(examples: Sequence[Example], val_split: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split by the pictures' contents, never by row: all questions of a picture, under whatever names, on one side.

    `val_split` is the share of distinct pictures, in (0, 1), that goes to validation; each side gets at least one. The
    same pictures and seed give the same split, whatever the order of rows, which each side keeps.
    Raises InputError for a share out of range and for fewer than two distinct pictures.
    """
    if not 0 < val_split < 1:
        raise InputError(f"val_split {val_split}: give a share of the images between 0 and 1, both excluded")
    digests = sorted({example.digest for example in examples})
    if len(digests) < 2:
        raise InputError(
            f"val_split {val_split}: {len(digests)} distinct image cannot be split; add images or give an eval table"
        )
    random.Random(seed).shuffle(digests)
    count = min(max(round(val_split * len(digests)), 1), len(digests) - 1)
    held_out = set(digests[:count])
    train = [example for example in examples if example.digest not in held_out]
    val = [example for example in examples if example.digest in held_out]
    return train, val


def describe_split(train: Sequence[Example], val: Sequence[Example]) -> dict[str, list[dict]]:
    """List which picture is where, as `{"train": [...], "val": [...]}`.

    Each picture, sorted by name, is `{"image_name", "digest" (SHA-256 of its bytes), "questions" (how many)}`.
    """
    sides = {}
    for split, side in (("train", train), ("val", val)):
        counts = Counter((example.image_name, example.digest) for example in side)
        sides[split] = [
            {"image_name": name, "digest": digest, "questions": count}
            for (name, digest), count in sorted(counts.items())
        ]
    return sides


def check_disjoint(train: Sequence[Example], val: Sequence[Example]) -> int:
    """Count the distinct pictures, by content, that stand on both sides; an honest evaluation needs 0."""
    return len({example.digest for example in train} & {example.digest for example in val})

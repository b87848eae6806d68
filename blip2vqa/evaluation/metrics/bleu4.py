"""BLEU (https://aclanthology.org/P02-1040) of 1 to 4 words over all rows together, without smoothing, against the
reference of closest length.

Without any common run of four words, as when all captions are shorter than that, it is near 0 even where they are the
same.
"""

from collections.abc import Sequence

from blip2vqa.evaluation.metric import Metric, Needs, Result, Row
from blip2vqa.evaluation.words import spaced


def compute(rows: Sequence[Row]) -> Result:
    """Score all rows together, 0 to 1."""
    from pycocoevalcap.bleu.bleu import Bleu

    if not rows:
        return Result(None)
    known = {place: [spaced(text) for text in row.references] for place, row in enumerate(rows)}
    scores, _ = Bleu(4).compute_score(known, {place: [spaced(row.text)] for place, row in enumerate(rows)}, verbose=0)
    return Result(float(scores[3]))


METRIC = Metric("bleu4", "BLEU-4", 40, Needs.CAPTIONS, compute)

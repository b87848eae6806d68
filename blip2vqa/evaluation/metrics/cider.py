"""CIDEr (https://arxiv.org/abs/1411.5726) in the form CIDEr-D that the COCO evaluation calls CIDEr: clipped counts, a
penalty for unlike length (sigma 6), the mean over n-grams of 1 to 4 words, times 10.

An n-gram counts the less the more rows of this very set have it in their references. Scores of different sets are
therefore not comparable, every image should be one row, and with a single row, where every n-gram is in all of them,
the score is 0 whatever was said. Papers give it times 100, so their 120 is 1.2 here.
"""

from collections.abc import Sequence

from blip2vqa.evaluation.metric import Metric, Needs, Result, Row
from blip2vqa.evaluation.words import spaced


def compute(rows: Sequence[Row]) -> Result:
    """Score each row 0 to 10 against all captions of its picture."""
    from pycocoevalcap.cider.cider import Cider

    known = {place: [spaced(text) for text in row.references] for place, row in enumerate(rows)}
    if not any(text for texts in known.values() for text in texts):  # the scorer cannot do without any n-gram
        return Result.mean_of([0.0] * len(rows))
    mean, scores = Cider().compute_score(known, {place: [spaced(row.text)] for place, row in enumerate(rows)})
    return Result(float(mean), scores.tolist())


METRIC = Metric("cider", "CIDEr", 30, Needs.CAPTIONS, compute)

"""BERTScore (https://arxiv.org/abs/1904.09675): how near a text's meaning is to its reference's, by a text encoder.

Of several references the one of the highest F1 counts, of equals the first. The encoder's full name stands beside the
scores as `bertscore_scorer`: scores of different encoders are not comparable.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blip2vqa.evaluation.metric import Metric, Needs, Result, Row

if TYPE_CHECKING:
    from blip2vqa.evaluation.bertscore import BERTScore


def compute(rows: Sequence[Row], encoder: "BERTScore") -> Result:
    """Score all rows; precision, recall and the encoder's name stand beside the F1. It may fall below 0 when rescaled."""
    texts = [row.text for row in rows]
    found = encoder.compute(predictions=texts, references=_nearest(rows, encoder))
    return Result(found["f1"], details={f"bertscore_{key}": found[key] for key in ("precision", "recall", "scorer")})


def _nearest(rows: Sequence[Row], encoder: "BERTScore") -> list[str]:
    """Find the reference of the highest F1 for each row."""
    if all(len(row.references) == 1 for row in rows):
        return [row.references[0] for row in rows]
    pairs = [(row.text, reference) for row in rows for reference in row.references]
    scores = encoder.compute(predictions=[text for text, _ in pairs], references=[known for _, known in pairs])
    values = iter(scores["scores"])  # of which each row takes as many as it has references
    return [max(zip(row.references, values, strict=False), key=lambda pair: pair[1])[0] for row in rows]


METRIC = Metric("bertscore_f1", "BERTScore F1", 50, Needs.ENCODER, compute)

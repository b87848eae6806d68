"""ANLS, Average Normalized Levenshtein Similarity: the measure of answers that are text read in the picture.

Biten et al. 2019, https://arxiv.org/abs/1907.00490, equation 1: an answer counts as much as it resembles the nearest of
the annotators' answers, 1 - edit distance / length of the longer text, and not at all below `THRESHOLD`, where it is
another answer rather than a misspelt one. As in the competition's own script (https://rrc.cvc.uab.es/?ch=11), a
similarity of exactly the threshold counts, letters are compared in lower case, and blanks around and between words as
one space.
"""

from collections.abc import Sequence

from blip2vqa.evaluation.metric import Metric, Needs, Result, Row

THRESHOLD = 0.5


def similarity(prediction: str, answers: Sequence[str]) -> float:
    """Compare one prediction with all accepted answers: 0, or `THRESHOLD` to 1 for the nearest of them."""
    from rapidfuzz.distance import Levenshtein

    said = _plain(prediction)
    nearest = max(Levenshtein.normalized_similarity(said, _plain(answer)) for answer in answers)
    return nearest if said and nearest >= THRESHOLD else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def compute(rows: Sequence[Row]) -> Result:
    """Score each row 0 to 1 against all its annotators' answers."""
    return Result.mean_of([similarity(row.text, row.example.answers) for row in rows])


METRIC = Metric("anls", "ANLS", 25, Needs.ANSWERS, compute, repeats="accuracy")

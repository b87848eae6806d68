"""Calibrates confidences: which share of the answers given with a confidence is right.

The map is Platt's, a logistic regression on the log-odds of the confidence: two numbers, so that some dozens of answers are
enough (Platt 1999; Guo et al. 2017, https://arxiv.org/abs/1706.04599).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
"""Bins of equal width of the reliability diagram, and of the expected calibration error."""
FOLDS = 5
FEWEST = 30
"""Answers needed."""
FEWEST_EACH = 5
"""Right answers needed, and wrong ones, and images."""


@dataclass(frozen=True)
class Calibration:
    """Maps a confidence to the probability that the answer is right."""

    slope: float
    intercept: float

    def probability(self, confidence: float) -> float:
        """Compute 1 / (1 + exp(-(slope * log-odds of the confidence + intercept)))."""
        return float(1 / (1 + np.exp(-(self.slope * _log_odds(np.array(confidence)) + self.intercept))))


@dataclass(frozen=True)
class Calibrated:
    """A calibration with what is known of it from the answers that it was made from."""

    calibration: Calibration
    probabilities: list[float]
    """Of each answer to be right, by calibrations of the other images' answers."""
    n: int
    error_before: float
    """Expected calibration error of the confidences, from 0 to 1."""
    error_after: float
    """That of `probabilities`."""

    def remembered(self) -> dict:
        """Return what a manifest keeps of it."""
        kept = {"slope": self.calibration.slope, "intercept": self.calibration.intercept, "n": self.n}
        return kept | {"error_before": self.error_before, "error_after": self.error_after}


def calibrate(confidences: Sequence[float], right: Sequence[bool], images: Sequence[str]) -> Calibrated | None:
    """Fit the calibration to answers with their confidences (0 to 1), whether they were right, and what image they are about.

    The error afterwards is honest: each answer's probability is from a calibration that saw none of its image. Returns None
    where there are too few answers, too few right or wrong ones, or too few images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    right, images = np.array(right, dtype=bool), np.unique(images, return_inverse=True)[1]
    if len(right) < FEWEST or min(right.sum(), (~right).sum(), images.max() + 1) < FEWEST_EACH:
        return None
    inputs, model = _log_odds(np.array(confidences, dtype=float))[:, None], LogisticRegression()
    folds = list(GroupKFold(FOLDS).split(inputs, right, images))
    if any(len(set(right[learnt])) < 2 for learnt, _ in folds):
        return None
    held_out = cross_val_predict(model, inputs, right, cv=folds, method="predict_proba")[:, 1]
    model.fit(inputs, right)
    calibration = Calibration(float(model.coef_[0, 0]), float(model.intercept_[0]))
    errors = calibration_error(confidences, right), calibration_error(held_out, right)
    return Calibrated(calibration, held_out.tolist(), len(right), *errors)


def reliability(probabilities: Sequence[float], right: Sequence[bool]) -> list[tuple[float, float, int]]:
    """Put answers into `BINS` by their probability: (mean probability, share that is right, answers) of each that has any."""
    probabilities, right = np.array(probabilities, dtype=float), np.array(right, dtype=float)
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    inside = [bins == number for number in range(BINS)]
    return [
        (float(probabilities[among].mean()), float(right[among].mean()), int(among.sum()))
        for among in inside
        if among.any()
    ]


def calibration_error(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """Compute the expected calibration error, 0 to 1: how far probability and share right are apart in a bin, on average."""
    return sum(n * abs(mean - share) for mean, share, n in reliability(probabilities, right)) / len(right)


def accuracy_by_share(probabilities: Sequence[float], right: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Compute the accuracy of the surest answers: (shares answered, accuracies), from the surest answer to all of them."""
    order = np.argsort(-np.array(probabilities, dtype=float), kind="stable")
    counts = np.arange(1, len(order) + 1)
    accuracies = np.array(right, dtype=float)[order].cumsum() / counts
    return (counts / len(order)).tolist(), accuracies.tolist()


def _log_odds(confidences: np.ndarray) -> np.ndarray:
    kept = np.clip(confidences, 1e-6, 1 - 1e-6)
    return np.log(kept / (1 - kept))

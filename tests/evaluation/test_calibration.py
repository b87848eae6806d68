"""Calibration maps confidences to shares that are right, and says how far off it is on images that it has not seen."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from blip2vqa.evaluation.calibration import (
    Calibration,
    accuracy_by_share,
    calibrate,
    calibration_error,
    reliability,
)


def drawn(n: int, slope: float, intercept: float, seed: int = 0):
    """Confidences, and whether answers are right with the probability that the map gives them."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.02, 0.999, n)
    odds = slope * np.log(confidences / (1 - confidences)) + intercept
    return confidences.tolist(), (rng.random(n) < 1 / (1 + np.exp(-odds))).tolist(), [str(i // 3) for i in range(n)]


def test_the_map_is_found_again_and_the_error_falls():
    confidences, right, images = drawn(6000, 0.5, -1.0)
    found = calibrate(confidences, right, images)
    assert found.calibration.slope == pytest.approx(0.5, abs=0.06)
    assert found.calibration.intercept == pytest.approx(-1.0, abs=0.1)
    assert found.error_before > 0.15 and found.error_after < 0.03 and found.n == 6000


def test_a_probability_is_the_logistic_of_the_log_odds():
    calibration = Calibration(0.7, -0.2)
    assert calibration.probability(0.9) == pytest.approx(1 / (1 + math.exp(-(0.7 * math.log(9) - 0.2))))
    assert 0 < calibration.probability(0.0) < 0.01 and 0.99 < calibration.probability(1.0) < 1


def test_each_probability_comes_from_other_images():
    confidences, right, images = drawn(120, 1.0, 0.0, seed=3)
    found = calibrate(confidences, right, images)
    odds = np.log(np.array(confidences) / (1 - np.array(confidences)))[:, None]
    fitted_to_all = LogisticRegression().fit(odds, right).predict_proba(odds)[:, 1]
    assert not np.allclose(found.probabilities, fitted_to_all)
    # Turn the labels of one image round: what is said of its own answers must not change.
    turned = [not one if image == "5" else one for one, image in zip(right, images, strict=True)]
    again = calibrate(confidences, turned, images)
    own = [place for place, image in enumerate(images) if image == "5"]
    assert [again.probabilities[place] for place in own] == [found.probabilities[place] for place in own]
    assert again.probabilities != found.probabilities


@pytest.mark.parametrize(
    ("n", "share", "images"), [(29, 0.5, 29), (100, 0.0, 100), (100, 1.0, 100), (100, 0.03, 100), (100, 0.5, 4)]
)
def test_too_little_is_not_calibrated(n, share, images):
    right = [place < share * n for place in range(n)]
    assert calibrate([0.5] * n, right, [str(place % images) for place in range(n)]) is None


def test_bins_and_their_error_by_hand():
    probabilities, right = [0.11, 0.19, 0.85, 0.95, 1.0], [False, True, True, True, False]
    assert reliability(probabilities, right) == [
        (pytest.approx(0.15), 0.5, 2), (0.85, 1.0, 1), (pytest.approx(0.975), 0.5, 2),
    ]  # fmt: skip
    by_hand = (2 * 0.35 + 0.15 + 2 * 0.475) / 5
    assert calibration_error(probabilities, right) == pytest.approx(by_hand)


def test_the_surest_answers_come_first():
    shares, accuracies = accuracy_by_share([0.2, 0.9, 0.5, 0.7], [False, True, True, False])
    assert shares == [0.25, 0.5, 0.75, 1.0] and accuracies == [1.0, 0.5, pytest.approx(2 / 3), 0.5]

"""What a run's scores say of its adapter."""

import pytest

from blip2vqa.evaluation.verdict import verdict
from helpers.run_scores import scores


@pytest.mark.parametrize(
    ("adapter", "blind", "swapped", "said"),
    [
        (0.9, 0.4, 0.3, "better than the blind baseline, and 60.0 points"),
        (0.4, 0.4, 0.3, "no better than the blind baseline"),
        (0.5, 0.4, 0.5, "does not look at the picture"),
        (0.5, 0.4, None, "only one"),
    ],
)
def test_the_verdict_is_plain(adapter, blind, swapped, said):
    metrics = {"adapter": scores(adapter), "blind": scores(blind)}
    assert said in verdict(metrics | ({"swapped": scores(swapped)} if swapped is not None else {}))


def test_captions_are_judged_by_cider():
    metrics = {"adapter": {"cider": 1.2}, "blind": {"cider": 0.1}, "swapped": {"cider": 0.2}}
    assert verdict(metrics) == "better than the blind baseline, and 1.000 of its CIDEr is owed to the picture"

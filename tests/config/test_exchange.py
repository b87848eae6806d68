"""What the arguments of exchange.py's commands refuse by themselves."""

import pytest

from blip2vqa.config.exchange import ExtractArguments, MergeArguments, ResizeArguments, TransferArguments

MERGE = {"adapters": ["a", "b"], "output": "c"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (MergeArguments(**MERGE, density=0.0), "--density: 0.0 is out of range; it must be above 0, at most 1"),
        (MergeArguments(**MERGE, drop=1.0), "--drop: 1.0 is out of range; it must be at least 0, below 1"),
        (MergeArguments(**MERGE, rank=0), "--rank: 0 is out of range; it must be at least 1"),
        (MergeArguments(**MERGE, rank=2, energy=0.9), "--rank and --energy: give one of them"),
        (MergeArguments(**MERGE, method="ties", energy=0.9), "--energy 0.9: goes with linear; ties takes --rank"),
        (MergeArguments(**MERGE, method="mean"), "--method mean: unknown; choose from linear, cat, ties, dare"),
        (ResizeArguments("a", "b"), "--rank, --energy: give one of the two"),
        (ExtractArguments("a", "b", "c", rank=0), "--rank: 0 is out of range; it must be at least 1"),
        (
            TransferArguments(output="o", csv_path="absent.csv"),
            "--csv_path: needs --image_dir, the folder of its images",
        ),
    ],
)
def test_what_is_wrong_is_one_line(arguments, problem):
    assert problem in arguments.check()


def test_what_is_right_passes():
    right = [MergeArguments(**MERGE), ResizeArguments("a", "b", rank=2), ExtractArguments("a", "b", "c")]
    assert [one.check() for one in right] == [[], [], []]

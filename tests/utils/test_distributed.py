"""What one process does for all; several processes are tested by the scripts that start them."""

from types import SimpleNamespace

import pytest

from blip2vqa.utils import distributed
from blip2vqa.utils.distributed import run_on_all_ranks, run_on_main_rank
from blip2vqa.utils.errors import InputError


def refuse():
    raise InputError("one", "two")


@pytest.mark.parametrize("run", [run_on_main_rank, run_on_all_ranks])
def test_the_result_or_the_problems_come_back(run):
    assert run(lambda: 3) == 3
    with pytest.raises(InputError) as raised:
        run(refuse)
    assert raised.value.problems == ["one", "two"]


def test_what_only_one_machine_says_bears_its_number(monkeypatch):
    others = iter([[(0, InputError("both")), (1, InputError("both", "here"))], [0, 1]])
    monkeypatch.setattr(distributed, "PartialState", lambda: SimpleNamespace(num_processes=2))
    monkeypatch.setattr(distributed, "gather_object", lambda found: next(others))
    with pytest.raises(InputError) as raised:
        run_on_all_ranks(refuse)
    assert raised.value.problems == ["both", "here (on machine 1 of 2)"]

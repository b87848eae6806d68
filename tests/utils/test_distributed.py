"""What one process does for all; several processes are tested by the scripts that start them."""

import pytest

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

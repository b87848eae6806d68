"""A finished run that several files of tests look at."""

import pytest

from blip2vqa.training.recipe import finetune
from helpers.finetune_runs import make_run


@pytest.fixture(scope="session")
def finished(tiny_opt, drawn, tmp_path_factory):
    """A finished run on the random OPT base, and its metrics."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, finetune(make_run(tiny_opt, drawn, out))

"""A run of finetune.py that the tests of the scripts share."""

import pytest

from helpers.script_runs import ACCELERATE, SAME, base_arguments, run


@pytest.fixture(scope="session")
def tuned(tiny_opt, drawn, tmp_path_factory):
    """finetune.py, launched as the README says, with two optimizer steps an epoch and no dropout."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    done = run(
        *ACCELERATE, "finetune.py", *base_arguments(tiny_opt, drawn), *SAME, "--output_dir", out, "--batch_size", "4"
    )
    assert done.returncode == 0, done.stderr
    return out, done

"""FSDP as accelerate's configuration asks for it: two processes share a base, and end with the files of one."""

import pytest

from helpers.launching import Launch, run_script
from helpers.script_runs import SAME, assert_same_run, base_arguments

CONFIG = "configs/accelerate/fsdp.yaml"


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_a_shared_base_trains_and_answers_as_a_whole_one(kind, request, tuned, drawn, tmp_path):
    base, one = request.getfixturevalue(f"tiny_{kind}"), tuned[0]
    arguments = [*base_arguments(base, drawn), *SAME]
    if kind == "t5":
        one = tmp_path / "one"
        done = run_script("finetune.py", *arguments, "--output_dir", one, "--batch_size", "4")
        assert done.returncode == 0, done.stderr
    two = tmp_path / "two"
    more = ("--output_dir", two, "--batch_size", "2", "--ddp_backend", "gloo", "--per_device_eval_batch_size", "5")
    with Launch(tmp_path, CONFIG, "finetune.py", *arguments, *more) as launch:
        assert launch.wait() == [0, 0], launch.said(1)
    out, err = launch.said(0)[0], "".join(launch.said(1))
    assert f"FSDP, {2 if kind == 'opt' else 4} blocks divided" in out and "Warning" not in err
    assert_same_run(one, two)
    files = [{path.name for path in folder.glob("checkpoints/*/*") if "rng" not in path.name} for folder in (one, two)]
    assert files[0] == files[1]  # a checkpoint of one kind of launch goes on in the other

"""A few of the campaign's trials: the faults are real, they are noticed, and what is found can be run again alone."""

import json
import random

import pytest

from fault_parts import mutations
from helpers.launching import run_script

TRIALS = (
    "kills/merge/operation-*", "kills/export/moment-0", "kills/add/operation-*", "disks/merge/full-0", "disks/merge/size-0",
    "pairs/add/pair-0", "inputs/csv/0", "inputs/json/1", "inputs/manifest/2", "inputs/archive/3", "inputs/png/4",
    "inputs/fingerprints/5",
)  # fmt: skip


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("faults") / "faults.json"
    numbers = ["--kills", 34 * 6, "--inputs", 0, "--disks", 34 * 5, "--pairs", 34]
    done = run_script("benchmarks/faults.py", "--only", *TRIALS, *numbers, "--workers", 2, "--output", output)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


def test_a_few_faults_of_each_part_are_held(tried):
    assert tried["failures"] == []
    assert {part: row["failed"] for part, row in tried["parts"].items()} == dict.fromkeys(
        ("kills", "disks", "pairs", "inputs"), 0
    )
    assert tried["of"]["kills/merge"]["held"] >= 3 and tried["parts"]["inputs"]["tried"] == 6


def test_every_damage_changes_something_and_is_the_same_again():
    good = json.dumps([{"image_name": "a.png", "question": "What is it?", "answer": "red", "n": 17}] * 3).encode()
    for change in (*mutations.TEXTS, mutations.json_text, mutations.gzipped(mutations.JSON)):
        data = mutations.gzip.compress(good, mtime=0) if change.__qualname__.startswith("gzipped") else good
        made = [change(data, random.Random(number)) for number in range(20)]
        assert made == [change(data, random.Random(number)) for number in range(20)]
        assert sum(one != data for one in made) > 10, change

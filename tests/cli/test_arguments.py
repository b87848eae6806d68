"""What the commands refuse before torch is imported."""

import os
import sys
from dataclasses import dataclass

import pytest

from blip2vqa.cli.arguments import check_paths, described
from blip2vqa.config.common import DataArguments
from blip2vqa.config.exchange import TransferArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.utils.errors import InputError


def test_examples_go_by_the_name_that_the_command_was_called_by(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/inference.py", "--help"])
    assert described("infer", "blip2vqa infer --csv_path A") == "python inference.py --csv_path A"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/blip2vqa", "infer"])
    assert described("infer", "blip2vqa infer --csv_path A") == "blip2vqa infer --csv_path A"


def test_paths_that_lead_nowhere_are_named_with_all_else_that_is_wrong(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("image_name,question\n")
    check_paths([InferenceArguments(csv_path=str(table), image_dir=str(tmp_path))])
    args = InferenceArguments(
        csv_path="absent.csv", image_dir="absent", lora_model_path=["count=./absent"], batch_size=0
    )
    with pytest.raises(InputError) as raised:
        check_paths([args])
    assert raised.value.problems == [
        "--batch_size: 0 is out of range; it must be at least 1",
        "--csv_path absent.csv: no such file",
        "--image_dir absent: no such folder",
        "adapter ./absent: no such folder",
    ]


def test_names_of_the_hub_are_no_paths():
    check_paths([InferenceArguments(csv_path="user/questions", base_model_id="Salesforce/blip2-opt-2.7b")])


@pytest.mark.parametrize("ending", [".json", ".yaml", ".yml", ".txt"])
def test_lists_of_systems_and_of_answers_must_be_there(ending, tmp_path):
    path = tmp_path / f"list{ending}"
    args = InferenceArguments(systems=str(path), answers=str(path), image_dir=str(tmp_path))
    with pytest.raises(InputError) as raised:
        check_paths([args])
    assert {f"--systems {path}: no such file", f"--answers {path}: no such file"} <= {*raised.value.problems}
    path.touch()
    check_paths([args])


def test_answers_of_the_table_are_no_path():
    check_paths([DataArguments(answers="table")])


def test_a_path_that_a_command_checks_itself_is_named_once(tmp_path):
    args = TransferArguments(adapter="x", target="y", output="z", csv_path="absent.csv", image_dir=str(tmp_path))
    with pytest.raises(InputError) as raised:
        check_paths([args])
    assert raised.value.problems == ["--csv_path absent.csv: no such file"]


@dataclass
class Given:
    image_dir: str | None = None
    output_path: str | None = None
    images: list[str] | None = None

    def check(self) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"image_dir": os.fsdecode(b"caf\xe9")}, "is no text in UTF-8"),
        ({"image_dir": "a\0b"}, "is no text in UTF-8"),
        ({"images": ["a\0b"]}, "is no text in UTF-8"),
        ({"output_path": "out/" + "x" * 250 + ".csv"}, "its name is too long"),
        ({"output_path": "out/" + "é" * 110 + ".csv"}, "its name is too long"),
    ],
)
def test_names_that_no_file_can_bear_are_refused_at_once(given, reason):
    with pytest.raises(InputError, match=reason):
        check_paths([Given(**given)])


def test_pictures_to_read_may_have_any_name():
    check_paths([Given(images=[os.fsdecode(b"caf\xe9.png")])])

"""Where the files of a data set stand, and which are not written over."""

import pytest

from blip2vqa.generate.files import Files
from blip2vqa.utils.errors import InputError


@pytest.mark.parametrize("name", ["vqa.csv", "my.data.v2.csv", "VQA.CSV"])
def test_files_stand_beside_the_table_under_its_name(tmp_path, name):
    files, stem = Files(tmp_path / name), name[:-4]
    endings = {
        "train": ".train.csv", "val": ".val.csv", "test": ".test.csv", "provenance": ".jsonl", "card": ".md", "chart": ".png",
        "preview": ".html", "responses": ".responses.jsonl", "run": ".run.json",
    }  # fmt: skip
    assert {kind: getattr(files, kind) for kind in endings} == {
        kind: tmp_path / (stem + end) for kind, end in endings.items()
    }
    assert files.table == tmp_path / name
    with pytest.raises(AttributeError, match="nonsense"):
        files.nonsense  # noqa: B018


def test_a_finished_table_is_not_overwritten_unasked(tmp_path):
    files, other = Files(tmp_path / "vqa.csv"), tmp_path / "all.json"
    files.responses.write_text("{}")
    files.check(overwrite=False)
    files.card.write_text("somebody's notes")
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: vqa\.md is already there.*--overwrite true"):
        files.check(overwrite=False)
    files.table.write_text("done")
    other.write_text("{}")
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: is already there, finished.*--overwrite true"):
        files.check(overwrite=False)
    with pytest.raises(InputError) as caught:
        files.check(overwrite=False, json_output=str(other))
    assert len(caught.value.problems) == 2 and "--json_output" in caught.value.problems[1]
    files.check(overwrite=True, json_output=str(other))
    assert files.table.read_text() == "done"
    assert len(list(tmp_path.iterdir())) == 4, "nothing is left of the check"
    files.unfinished.write_text("2 of 3 pictures have no answer yet")
    files.check(overwrite=False, json_output=str(other))


@pytest.mark.parametrize("name", ["vqa.csv", "vqa.train.csv", "vqa.jsonl", "vqa.run.json", "vqa.responses.jsonl"])
def test_no_file_of_a_data_set_stands_for_two_things(name, tmp_path):
    files = Files(tmp_path / "vqa.csv")
    with pytest.raises(InputError, match=r"--json_output .*: is a file of --output_path"):
        files.check(overwrite=True, json_output=str(tmp_path / name))


def test_the_catalogue_is_not_written_over(tmp_path):
    catalogue = tmp_path / "mine.jsonl"
    catalogue.write_text("{}")
    with pytest.raises(InputError, match=r"would write over .*mine\.jsonl, which it reads"):
        Files(tmp_path / "mine.csv").check(overwrite=True, inputs=[str(catalogue), None])
    with pytest.raises(InputError, match=r"would write over .*all\.json, which it reads"):
        Files(tmp_path / "vqa.csv").check(True, str(tmp_path / "all.json"), [str(tmp_path / "all.json")])


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "vqa.csv").mkdir()
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: is a folder; name a file"):
        Files(tmp_path / "vqa.csv").check(overwrite=True)


def test_a_folder_that_cannot_be_written_to_is_told_of_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: its folder cannot be written to: ") as caught:
        Files(tmp_path / "file" / "new" / "vqa.csv").check(overwrite=True)
    assert len(caught.value.problems) == 1

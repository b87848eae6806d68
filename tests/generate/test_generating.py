"""Arguments that do not fit together are refused before anything is read; tests of the script make whole data sets."""

import pytest

from blip2vqa.utils.errors import InputError
from helpers.data_sets import run


@pytest.mark.parametrize("argv, line", [
    ([], "--abo_dir: name the archive's folder, or another catalogue's table by --csv_path; one of them"),
    (["--csv_path", "x.csv"], "--image_dir: missing; name the folder of the pictures of x.csv"),
    (["--abo_dir", "ABO", "--num_questions", "0"], "--num_questions: 0 is out of range; it must be at least 1"),
    (["--abo_dir", "ABO", "--val_split", "0.5", "--test_split", "0.5"],
     "--val_split + test_split: 1.0 is out of range; it must be below 1"),
    (["--abo_dir", "ABO", "--output_path", "vqa.json"], "--output_path vqa.json: a table of another kind; name a .csv"),
    (["--abo_dir", "ABO", "--max_answer_share", "0"], "--max_answer_share: 0.0 is out of range; it must be above 0, at most 1"),
    (["--abo_dir", "ABO", "--output_path", "/dev/null/x/vqa.csv"],
     "--output_path /dev/null/x/vqa.csv: its folder cannot be written to: Not a directory"),
])  # fmt: skip
def test_wrong_arguments_are_one_line(argv, line):
    with pytest.raises(InputError) as caught:
        run(*argv)
    assert caught.value.problems == [line]

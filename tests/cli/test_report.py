"""The command `blip2vqa report`: what it is told, and what it says."""

import pytest

from blip2vqa.cli.report import main
from blip2vqa.utils.errors import InputError


def test_it_says_where_the_page_is(tmp_path, capsys):
    rows = "".join(f"{row}.png,what?,red,{'red' if row else 'blue'}\n" for row in range(3))
    (tmp_path / "mine.csv").write_text(f"image_name,question,answer,generated_answer\n{rows}")
    main([str(tmp_path / "mine.csv")])
    assert capsys.readouterr().out == f"Report: {tmp_path / 'mine.report.html'}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], r"RESULTS: missing"),
        (["absent.csv"], r"results absent\.csv: no such file or folder"),
        (["."], r"results \.: holds no predictions\.csv"),
        (["absent.csv", "--output_path", "page.txt"], r"--output_path page\.txt: .*\.html"),
        (["absent.csv", "--image_dirs", "x"], r"--image_dirs: .*--image_dir\b"),
    ],
)
def test_mistakes_are_one_line_each(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        main(argv)
    assert all("\n" not in problem for problem in error.value.problems)

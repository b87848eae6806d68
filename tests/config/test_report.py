"""What `blip2vqa report` takes: results by their place, the rest by flags."""

from blip2vqa.config.report import ReportArguments


def test_its_words_are_the_results():
    assert ReportArguments.words() == ["results"] == ReportArguments.needed()


def test_all_that_is_wrong_is_said_at_once():
    problems = ReportArguments(["absent.csv"], output_path="page.txt", question_types=",").check()
    assert len(problems) == 3 and problems[0].startswith("results absent.csv: no such file")

"""Predictions of other systems, matched to questions by their ids or row by row."""

import json

import pytest

from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.data.predictions import read_predictions
from blip2vqa.utils.errors import InputError


def example(image: str, question: str, question_id: str = "") -> Example:
    extra = {"question_id": question_id} if question_id else {}
    return Example(0, ImageSource(image), image, image, question, ("red",), "color", extra)


EXAMPLES = [example("a.jpg", "q1", "1"), example("b.jpg", "q2", "2"), example("b.jpg", "q3", "3")]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_official_results_are_matched_by_question_id(tmp_path):
    results = [{"question_id": 3, "answer": "c"}, {"question_id": 1, "answer": 2}, {"question_id": "2", "answer": ""}]
    assert read_predictions(write(tmp_path / "r.json", results), EXAMPLES) == ["2", "", "c"]


def test_official_results_that_do_not_match_say_how_many_and_which(tmp_path):
    results = [{"question_id": number, "answer": "x"} for number in (1, 1, *range(7, 17))]
    with pytest.raises(InputError) as error:
        read_predictions(write(tmp_path / "r.json", results), EXAMPLES)
    text = str(error.value)
    assert len(error.value.problems) == 3
    assert "1 question_id given more than once: 1" in text
    assert "2 question_id missing from the predictions: 2, 3" in text
    assert "10 question_id unknown to the table of questions: 7, 8, 9, 10, 11 …" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "broken JSON"),
        ([{"question_id": 1, "answer": "\ud83d"}], "entry 0 has answer"),
        ([{"question_id": [1], "answer": "red"}], "entry 0 has question_id"),
        ("[" * 100_000, "nested too deeply"),
        ({"1": "red"}, "must be a list"),
        ([{"question_id": 1}], "entry 0 is not an object"),
        ([{"question_id": 1, "answer": None}], "entry 0 has answer None"),
    ],
)
def test_malformed_results_are_refused(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read_predictions(write(tmp_path / "r.json", content), EXAMPLES)


def test_results_json_needs_question_ids_in_the_table(tmp_path):
    with pytest.raises(InputError, match="does not have"):
        read_predictions(write(tmp_path / "r.json", [{"question_id": 1, "answer": "x"}]), [example("a.jpg", "q1")])


def test_a_csv_is_read_row_by_row_and_checked(tmp_path):
    path = tmp_path / "p.csv"
    assert read_predictions(write(path, 'generated_answer,x\nNA,1\n007,2\n"",3\n'), EXAMPLES) == ["NA", "007", ""]
    named = "image_name,question,generated_answer\na.jpg,q1,x\nb.jpg,q2,y\nb.jpg,q3,z\n"
    assert read_predictions(write(path, "\ufeff" + named), EXAMPLES) == ["x", "y", "z"]
    with pytest.raises(InputError, match=r"1 rows are of other questions.*b.jpg, q9 for b.jpg, q3"):
        read_predictions(write(path, named.replace("q3", "q9")), EXAMPLES)
    with pytest.raises(InputError, match="no column generated_answer; it has answer"):
        read_predictions(write(path, "answer\nx\n"), EXAMPLES)
    with pytest.raises(InputError, match="2 rows for 3 questions"):
        read_predictions(write(path, "generated_answer\nx\ny\n"), EXAMPLES)
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "absent.csv", EXAMPLES)


def test_a_csv_with_question_ids_is_matched_by_them(tmp_path):
    path = write(tmp_path / "p.csv", "question_id,generated_answer\n3,c\n1,a\n2,b\n")
    assert read_predictions(path, EXAMPLES) == ["a", "b", "c"]


def test_a_csv_of_the_whole_table_serves_the_examples_that_are_left(tmp_path):
    path = write(
        tmp_path / "p.csv", "image_name,question,generated_answer\nbad.jpg,q1,-\na.jpg,q1,x\nb.jpg,q2,y\nb.jpg,q2,z\n"
    )
    examples = [example("a.jpg", "q1"), example("b.jpg", "q2"), example("b.jpg", "q2")]
    assert read_predictions(path, examples) == ["x", "y", "z"]
    with pytest.raises(InputError, match=r"1 questions are not among them: c\.jpg, q1"):
        read_predictions(path, [*examples[:2], example("c.jpg", "q1")])


def test_tables_of_others(tmp_path):
    """Their columns' names, and their folders of the same pictures."""
    rows = "img_path,question,true_answer,predicted_answer\n/kaggle/x/a.jpg,q1,r,x\nz\\b.jpg,q2,r,y\nz/b.jpg,q3,r,z\n"
    path = write(tmp_path / "p.csv", rows)
    assert read_predictions(path, EXAMPLES) == ["x", "y", "z"]
    with pytest.raises(InputError, match="1 rows are of other questions"):
        read_predictions(write(path, path.read_text().replace("x/a.jpg", "x/c.jpg")), EXAMPLES)
    two = write(tmp_path / "two.csv", "pred,response\nx,1\ny,2\nz,3\n")
    with pytest.raises(InputError, match=r"pred and response may each be .*--prediction_column"):
        read_predictions(two, EXAMPLES)
    assert read_predictions(two, EXAMPLES, ColumnNames(prediction="response")) == ["1", "2", "3"]
    listed = [{"question_id": one.extra["question_id"], "answer": "red", "prediction": "x"} for one in EXAMPLES]
    assert read_predictions(write(tmp_path / "p.json", listed), EXAMPLES) == ["x"] * 3
    assert read_predictions(tmp_path / "p.json", EXAMPLES, ColumnNames(prediction="answer")) == ["red"] * 3
    lines = "\n".join(map(json.dumps, listed))
    assert read_predictions(write(tmp_path / "p.jsonl", lines), EXAMPLES) == ["x"] * 3


def test_rows_in_another_order_are_matched_where_none_are_alike(tmp_path):
    rows = "image_name,question,prediction\nb.jpg,q3,c\na.jpg,q1,a\nb.jpg,q2,b\n"
    examples = [example(one.image_name, one.question) for one in EXAMPLES]
    assert read_predictions(write(tmp_path / "r.csv", rows), examples) == ["a", "b", "c"]
    with pytest.raises(InputError, match="out of order"):
        read_predictions(write(tmp_path / "r.csv", rows.replace("q3", "q2")), examples)

"""The table of predictions: killed, resumed, refused, and never overwritten; predictions of other systems read back."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.data.prediction_table import PredictionsTable
from blip2vqa.data.predictions import read_predictions
from blip2vqa.data.readers import to_csv
from blip2vqa.utils.errors import InputError

RUN = {"model": "tiny", "adapter": None, "prompt": "Question: {question} Answer:", "decoding": {"num_beams": 1}}
AWKWARD = ["007", "None", "NA", "", 'say "hi", twice', "two\nlines", "a\rb", "  blanks ", "é—日本", "1e5", "nan"]


@pytest.fixture
def table() -> pd.DataFrame:
    """Rows as the user's spreadsheet numbers them, the header being row 1."""
    return pd.DataFrame(
        {"image_name": ["a.jpg", "b.jpg", "c.jpg"], "question": ["q1", "q2", "q3"], "sku": ["007", "None", "NA"]},
        index=[2, 3, 4],
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "RESULTS.csv"


def result(row: int, answer: str, confidence: float | None, status: str = "ok") -> dict:
    return {"row": row, "answer": answer, "confidence": confidence, "status": status}


def read_csv(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


# Writing


def test_results_follow_the_input_columns_in_input_order(table, path):
    predictions = PredictionsTable(path, table, RUN)
    predictions.add([result(3, "blue", 0.5), result(2, "red", 0.123456789)])
    predictions.add([result(4, "", None, "bad image: truncated")])
    assert predictions.done == {2, 3}
    assert not path.exists()
    written = predictions.finish()
    expected = table.reset_index(drop=True).assign(
        generated_answer=["red", "blue", ""], confidence=["0.123457", "0.500000", ""],
        status=["ok", "ok", "bad image: truncated"],
    )  # fmt: skip
    pd.testing.assert_frame_equal(read_csv(path), expected)
    pd.testing.assert_frame_equal(written, expected)
    assert [file.name for file in path.parent.iterdir()] == ["RESULTS.csv"]


def test_every_text_comes_back_as_it_was(path):
    table = pd.DataFrame({"question": AWKWARD, 'a "column", quoted': AWKWARD[::-1]})
    predictions = PredictionsTable(path, table, RUN)
    predictions.add(result(row, text, float("nan")) for row, text in enumerate(AWKWARD))
    predictions.finish()
    expected = table.assign(generated_answer=AWKWARD, confidence="", status="ok")
    pd.testing.assert_frame_equal(read_csv(path), expected)


def test_csv_quotes_only_what_needs_it():
    assert to_csv(pd.DataFrame({"a": ["1", "x,y"], "b": ["2", ""]})) == 'a,b\n1,2\n"x,y",\n'


def test_columns_named_as_the_results_are_kept_under_another_name(table, path, caplog):
    predictions = PredictionsTable(path, table.assign(status=["new", "old", "old"], adapter="power"), RUN)
    assert "input_status" in caplog.text and "input_adapter" in caplog.text
    predictions.add(result(row, "red", 1.0) for row in table.index)
    predictions.finish()
    renamed = ["input_status", "input_adapter"]
    assert list(read_csv(path)) == [*table, *renamed, "generated_answer", "confidence", "status"]
    assert read_csv(path)["input_status"].tolist() == ["new", "old", "old"]
    assert read_csv(path)["input_adapter"].tolist() == ["power"] * 3
    with pytest.raises(InputError, match="input_status"):
        PredictionsTable(path, table.assign(status="", input_status=""), RUN, overwrite=True)


def test_finishing_with_rows_missing_is_a_mistake_and_writes_nothing(table, path):
    predictions = PredictionsTable(path, table, RUN)
    predictions.add([result(2, "red", 1.0)])
    with pytest.raises(ValueError, match=r"2 rows .*\[3, 4\]"):
        predictions.finish()
    assert not path.exists()


# Interrupted and resumed


def test_resuming_skips_what_is_done_and_tries_bad_rows_again(table, path):
    first = PredictionsTable(path, table, RUN)
    first.add([result(2, "red", 0.9), result(3, "", None, "bad image: missing")])
    first.close()
    second = PredictionsTable(path, table, dict(reversed(RUN.items())))
    assert second.done == {2}
    second.add([result(3, "blue", 0.8), result(4, "pink", 0.7)])
    second.finish()
    assert read_csv(path)["generated_answer"].tolist() == ["red", "blue", "pink"]
    assert read_csv(path)["status"].tolist() == ["ok"] * 3


@pytest.mark.parametrize("torn", ['{"row": 3, "answer": "bl', '{"row": 3', "{", '{"row":3,"answer":"é'])
def test_a_torn_last_line_is_dropped(table, path, torn):
    first = PredictionsTable(path, table, RUN)
    first.add([result(2, "red", 0.9)])
    first.close()
    whole = first.journal_path.read_bytes()
    first.journal_path.write_bytes(whole + torn.encode()[:-1])
    second = PredictionsTable(path, table, RUN)
    assert second.done == {2}
    assert first.journal_path.read_bytes() == whole
    second.add([result(3, "blue", 0.8), result(4, "pink", 0.7)])
    second.close()
    assert PredictionsTable(path, table, RUN).done == {2, 3, 4}


def test_a_journal_torn_in_its_first_line_starts_anew(table, path):
    first = PredictionsTable(path, table, RUN)
    first.close()
    first.journal_path.write_bytes(first.journal_path.read_bytes()[:20])
    assert PredictionsTable(path, table, RUN).done == set()
    assert json.loads(first.journal_path.read_text())["run"]["model"] == "tiny"


def test_a_killed_process_leaves_a_journal_that_goes_on(table, path, tmp_path):
    script = """
        import os, signal, sys
        import pandas as pd
        from blip2vqa.data.prediction_table import PredictionsTable
        predictions = PredictionsTable(sys.argv[1], pd.read_pickle(sys.argv[2]), {"model": "tiny"})
        predictions.add({"row": row, "answer": "red", "confidence": 0.9, "status": "ok"} for row in (2, 3))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    table.to_pickle(tmp_path / "table.pickle")
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path / "table.pickle")]
    killed = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert PredictionsTable(path, table, {"model": "tiny"}).done == {2, 3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "{question}"}, "prompt was 'Question: {question} Answer:', is '{question}'"),
        ({"decoding": {"num_beams": 5}}, "decoding was {'num_beams': 1}, is {'num_beams': 5}"),
        ({"adapter": "OUT"}, "adapter was None, is 'OUT'"),
    ],
)
def test_a_journal_of_other_settings_is_refused(table, path, change, said):
    PredictionsTable(path, table, RUN).close()
    with pytest.raises(InputError) as error:
        PredictionsTable(path, table, RUN | change)
    assert said in str(error.value) and "--overwrite" in str(error.value) and "table" not in str(error.value)


def test_a_journal_of_another_table_is_refused_and_overwrite_starts_anew(table, path):
    first = PredictionsTable(path, table, RUN)
    first.add([result(2, "red", 0.9)])
    first.close()
    for other in (table.iloc[::-1], table.iloc[:2], table.assign(sku="x"), table.rename(columns={"sku": "id"})):
        with pytest.raises(InputError, match=r"another table.*--overwrite"):
            PredictionsTable(path, other, RUN)
    assert PredictionsTable(path, table, RUN).done == {2}
    assert PredictionsTable(path, table.assign(sku="x"), RUN, overwrite=True).done == set()


ENTRY = {"row": 2, "answer": "x", "confidence": 0.5, "status": "ok"}
DAMAGED = [
    {"row": [2]}, {"row": "2"}, {"answer": None}, {"answer": "\ud83d"}, {"confidence": 10**400}, {"confidence": "x"},
    {"confidence": float("nan")}, {"status": 1}, {"ranked": 3}, {"adapter": ["a"]},
]  # fmt: skip


def test_a_damaged_journal_is_refused(table, path):
    first = PredictionsTable(path, table, RUN)
    first.add([result(2, "red", 0.9), result(3, "red", 0.9)])
    first.close()
    header, _, last = first.journal_path.read_text().splitlines()
    texts = [f"{header}\nrubbish\n{last}\n", "[1]\n", f"{header}\n{header}\n", f"{header}\n{'[' * 100_000}\n"]
    texts += ['{"run": 1, "overwrite": true}\n', *(f"{header}\n{json.dumps(ENTRY | change)}\n" for change in DAMAGED)]
    for text in texts:
        first.journal_path.write_text(text)
        with pytest.raises(InputError, match=r"damaged.*--overwrite"):
            PredictionsTable(path, table, RUN)


# Nothing finished is overwritten


def test_a_finished_output_is_refused_and_stays_until_a_new_one_is_whole(table, path):
    def finish(predictions, answer):
        predictions.add(result(row, answer, 1.0) for row in table.index if row not in predictions.done)
        predictions.finish()

    finish(PredictionsTable(path, table, RUN), "red")
    with pytest.raises(InputError, match=r"already there.*--overwrite"):
        PredictionsTable(path, table, RUN)
    again = PredictionsTable(path, table, RUN, overwrite=True)
    again.add([result(2, "blue", 1.0)])
    again.close()  # interrupted: the old output is untouched, and the new run goes on without --overwrite
    assert read_csv(path)["generated_answer"].tolist() == ["red"] * 3
    resumed = PredictionsTable(path, table, RUN)
    assert resumed.done == {2}
    finish(resumed, "blue")
    assert read_csv(path)["generated_answer"].tolist() == ["blue"] * 3


def test_a_foreign_file_and_a_folder_in_the_way_are_refused(table, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("precious")
    with pytest.raises(InputError, match="already there"):
        PredictionsTable(file, table, RUN)
    assert file.read_text() == "precious"
    meanwhile = tmp_path / "meanwhile.csv"
    predictions = PredictionsTable(meanwhile, table, RUN)
    predictions.add(result(row, "red", 1.0) for row in table.index)
    meanwhile.write_text("precious")
    with pytest.raises(InputError, match="already there"):
        predictions.finish()
    assert meanwhile.read_text() == "precious"
    with pytest.raises(InputError, match="folder"):
        PredictionsTable(tmp_path, table, RUN, overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        PredictionsTable(file / "RESULTS.csv", table, RUN)


def test_what_was_written_can_be_scored(table, path):
    predictions = PredictionsTable(path, table, RUN)
    predictions.add(result(row, text, 1.0) for row, text in zip(table.index, ["x", "", "None"], strict=True))
    predictions.finish()
    examples = [
        Example(0, ImageSource(name), name, name, question, ("red",), "color", {})
        for name, question in zip(table.image_name, table.question, strict=True)
    ]
    assert read_predictions(path, examples) == ["x", "", "None"]


def test_official_results_need_an_id_of_its_own_for_each_row(table, tmp_path):
    path = tmp_path / "out.json"
    with pytest.raises(InputError, match=r"question_id.*the first '3'.*write a .csv"):
        PredictionsTable(path, table.assign(question_id=["7", "", "3"]), RUN)
    predictions = PredictionsTable(path, table.assign(question_id=["7", "", "x1"], status="mine"), RUN)
    predictions.add([result(2, "red", 1.0), result(3, "", None, "bad image: truncated"), result(4, "é", 1.0)])
    predictions.finish()
    given = [
        {"question_id": 7, "answer": "red"},
        {"question_id": 3, "answer": ""},
        {"question_id": "x1", "answer": "é"},
    ]
    assert json.loads(path.read_text()) == given

"""Tables in every format, and everything wrong with them named in one go."""

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blip2vqa.data import readers
from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.examples import load_examples
from blip2vqa.data.table_checks import Table
from blip2vqa.data.tables import load_table
from blip2vqa.utils.errors import InputError, raise_all

HEADER = "image_name,question,answer\n"
PACKED = gzip.compress((HEADER + "".join(f"{row}.png,what is {row * row}?,x\n" for row in range(99))).encode())


def read_table(path: str, annotations: str | None = None, *, require_answers: bool) -> Table:
    table, problems = load_table(path, annotations, require_answers=require_answers)
    raise_all(problems)
    return table


def problems(path: str, annotations: str | None = None, require_answers: bool = True) -> list[str]:
    with pytest.raises(InputError) as raised:
        read_table(path, annotations, require_answers=require_answers)
    assert all("\n" not in problem for problem in raised.value.problems)
    return raised.value.problems


def cells(path: str, **options) -> list[list[str]]:
    return read_table(path, require_answers=True, **options).frame.to_numpy().tolist()


# Text tables


def test_every_cell_stays_the_text_it_was(write):
    words = ["None", "NA", "null", "nan", "1", "1.0", "01", "yes", "True", " red "]
    table = read_table(write("t.csv", HEADER + "".join(f"a.png,q,{word}\n" for word in words)), require_answers=True)
    assert table.frame["answer"].tolist() == words
    assert table.answers == [(word,) for word in words]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings(write, delimiter, encoding):
    text = 'image_name,question,answer\na.png,größer?,"x,y;z\tw"\n'.replace(",", delimiter)
    expected = "x,y;z\tw".replace(",", delimiter)
    assert cells(write("t.csv", text.encode(encoding))) == [["a.png", "größer?", expected]]


def test_latin_1_is_read_and_said(write, caplog):
    path = write("t.csv", (HEADER + "a.png,größer?,naïve “x”\n").encode("cp1252"))
    assert cells(path) == [["a.png", "größer?", "naïve “x”"]]
    assert "is not UTF-8" in caplog.text and path in caplog.text


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_quoted_newlines_blank_lines_and_row_numbers(write, newline):
    text = 'image_name,question,answer\n\na.png,"two\nlines ""q""",x\n,,\n  \nb.png,q,y\n'
    table = read_table(write("t.csv", "\n" + text.replace("\n", newline)), require_answers=True)
    assert table.frame["question"].tolist() == [f'two{newline}lines "q"', "q"]
    assert table.frame.index.tolist() == [4, 7]  # as a spreadsheet numbers them


def test_headers_are_stripped_and_own_columns_pass_through(write):
    text = "Split, IMAGE_NAME ,Question,Answer,,My Column\ntrain,a.png,q,x,,1.50\n"
    frame = read_table(write("t.csv", text), require_answers=True).frame
    assert list(frame) == ["Split", "image_name", "question", "answer", "column_5", "My Column"]
    assert frame["My Column"].tolist() == ["1.50"]


def test_gzipped_csv(write):
    assert cells(write("t.csv.gz", gzip.compress((HEADER + "a.png,q,x\n").encode()))) == [["a.png", "q", "x"]]


def test_jsonl_with_several_answers(write):
    records = [
        {"image_name": "a.png", "question": "q", "answers": ["red", "blue", "blue"], "n": 1.50, "flag": True},
        {"image_name": "b.png", "question": "line\u2028break", "answer": 2, "answers": [{"answer": "two"}], "n": None},
        {"image_name": "c.png", "question": "q", "answers": ["b", "a"]},
        {"image_name": "d.png", "question": "q", "answer": "only one"},
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    table = read_table(write("t.jsonl", "\ufeff" + "\r\n\r\n".join(lines).replace("1.5", "1.50")), require_answers=True)
    assert table.answers == [("red", "blue", "blue"), ("two",), ("b", "a"), ("only one",)]
    assert table.frame["answer"].tolist() == ["blue", "2", "b", "only one"]
    assert table.frame["n"].tolist() == ["1.50", "", "", ""]
    assert table.frame.index.tolist() == [1, 3, 5, 7]


def test_json_list(write):
    path = write("t.json", json.dumps([{"image_name": "a.png", "question": "q", "answers": ["b", "a", "a"]}]))
    table = read_table(path, require_answers=True)
    assert table.frame["answer"].tolist() == ["a"]
    assert table.answers == [("b", "a", "a")]


def test_answers_may_be_absent_when_not_required(write):
    table = read_table(write("t.csv", "image_name,question\na.png,q\n"), require_answers=False)
    assert table.answers == [()] and "answer" not in table.frame
    table = read_table(write("t.csv", HEADER + "a.png,q,\nb.png,q,x\n"), require_answers=False)
    assert table.answers == [(), ("x",)]


def test_a_column_that_may_be_answers_stops_no_table_that_needs_none(write, caplog):
    rows = [{"image": "a.png", "question": "q", "label": {"ids": ["x"]}}]
    table = read_table(write("t.json", json.dumps(rows)), require_answers=False)
    assert table.answers == [()] and "the column label holds no answers: it is left alone" in caplog.text
    assert "row 1: label is an object" in problems(write("t.json", json.dumps(rows)))[0]
    table = read_table(write("t.csv", "image,question,gt,target\na.png,q,x,y\n"), require_answers=False)
    assert table.answers == [()] and "gt and target may each be the answers' column" in caplog.text


def test_an_answer_column_of_its_own_name(write):
    path = write("t.csv", "image_name,question,answer,said\na.png,q,x,\"['y', 'y', 'z']\"\n")
    table, found = load_table(path, None, require_answers=True, columns=ColumnNames(answer="said"))
    assert (table.answers, found) == ([("y", "y", "z")], [])
    _, found = load_table(path, None, require_answers=True, columns=ColumnNames(question="asked"))
    assert found == [
        f"{path}: --question_column asked: no such column; its columns are image_name, question, answer, said"
    ]


def test_answers_that_only_begin_like_a_list_are_texts_and_said(write, caplog):
    table = read_table(write("t.csv", HEADER + "a.png,q,[sic] yes\n"), require_answers=True)
    assert table.answers == [("[sic] yes",)]
    assert "row 2: answer begins like a list and is none" in caplog.text


# The official VQA pair


def vqa_pair(**questions):
    ids = [101, 102]
    questions = {
        "data_subtype": "val2014",
        "questions": [{"image_id": 42, "question": f"Is it {id}?", "question_id": id} for id in ids],
    } | questions
    annotations = {
        "annotations": [
            {
                "question_id": id,
                "multiple_choice_answer": "yes",
                "question_type": "is it",
                "answer_type": "yes/no",
                "answers": [{"answer": "yes", "answer_id": n} for n in range(9)] + [{"answer": "no", "answer_id": 10}],
            }
            for id in reversed(ids)
        ]
    }
    return questions, annotations


@pytest.mark.parametrize(
    ("subtype", "prefix"), [("val2014", "COCO_val2014_"), ("test-dev2015", "COCO_test2015_"), ("", "")]
)
def test_official_vqa_pair(write, subtype, prefix):
    questions, annotations = vqa_pair(data_subtype=subtype)
    compressed = write("q.json.gz", gzip.compress(json.dumps(questions).encode()))
    table = read_table(compressed, write("a.json", json.dumps(annotations)), require_answers=True)
    assert table.frame.to_dict("records")[1] == {
        "image_name": f"{prefix}000000000042.jpg",
        "question": "Is it 102?",
        "question_id": "102",
        "answer": "yes",
        "annotator_question_type": "is it",
        "answer_type": "yes/no",
    }
    assert table.answers == [("yes",) * 9 + ("no",)] * 2


def test_annotations_that_do_not_belong(write):
    questions, annotations = vqa_pair()
    path = write("q.json", json.dumps(questions))
    assert "annotations_path" in problems(path)[0]
    assert "no such file" in problems(path, path + "x")[0]
    assert "annotations_path" in problems(write("t.csv", HEADER + "a.png,q,x\n"), path)[0]
    assert "annotations_path" in problems(write("l.json", "[]"), path)[0]
    assert "not an official VQA annotations file" in problems(path, path)[0]

    one = {"annotations": annotations["annotations"][:1]}
    (problem,) = problems(path, write("a.json", json.dumps(one)))
    assert "no annotation for 1 of 2 questions" in problem and "question_id 101" in problem
    other = json.dumps(annotations).replace('"question_id": 10', '"question_id": 99')
    assert "belong to another file" in problems(path, write("a.json", other))[0]


# datasets folders and Hub ids


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


def test_saved_dataset_with_its_own_pictures(datasets, tmp_path, image_dir):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "answers": datasets.List({"answer": datasets.Value("string")}),
            "kind": datasets.ClassLabel(names=["odd", "even"]),
            "n": datasets.Value("int64"),
        }
    )
    files = [str(Path(image_dir, name)) for name in ("0.png", "1.png", "0.png")]
    columns = {"image": files, "question": ["q"] * 3, "answers": [[{"answer": "x"}, {"answer": "y"}]] * 3}
    dataset = datasets.Dataset.from_dict(columns | {"kind": [0, 1, 0], "n": [1, 2, 3]}, features=features)
    dataset.save_to_disk(str(tmp_path / "one"))
    examples, _ = load_examples(str(tmp_path / "one"), None)
    assert [example.image_name for example in examples] == ["0.png", "1.png", "0.png"]
    assert [example.row for example in examples] == [1, 2, 3]
    assert examples[0].digest == examples[2].digest != examples[1].digest
    assert examples[1].image.read_bytes() == Path(image_dir, "1.png").read_bytes()
    assert examples[1].answers == ("x", "y")
    assert examples[1].extra["kind"] == "even" and examples[1].extra["n"] == "2"

    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert "say which split: train, test" in problems(str(tmp_path / "two"))[0]
    assert "no split 'val'" in problems(f"{tmp_path}/two:val")[0]
    assert len(read_table(f"{tmp_path}/two:test", require_answers=True).frame) == 1


def test_data_folders_keep_cells_as_text(datasets, tmp_path):
    for name in ("tables", "pictures"):
        (tmp_path / name).mkdir()
    rows = "a.png,q,01\na.png,q,None\n"
    (tmp_path / "tables" / "train.csv").write_text(HEADER + rows)
    table = read_table(str(tmp_path / "tables"), require_answers=True)
    assert table.frame["answer"].tolist() == ["01", "None"]

    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "metadata.csv").write_text("file_name,question,answer\na.png,q,01\n")
    (example,), _ = load_examples(str(tmp_path / "pictures"), None)
    assert (example.image_name, example.answer) == ("a.png", "01")


def test_nothing_there_and_nothing_reachable(datasets, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "cannot be read as a datasets folder" in problems(str(tmp_path / "empty"))[0]
    assert "cannot be loaded from the Hub" in problems("nobody/nothing:train")[0]
    assert "no such file or folder" in problems("nothing")[0]


def test_pictures_under_any_name_and_as_bytes(datasets, tmp_path, image_dir):
    pictures = [Path(image_dir, name).read_bytes() for name in ("0.png", "1.png")]
    texts = {"question": ["q"] * 2, "answers": [["x", "y"], ["z"]]}
    stored = {
        "named": datasets.Dataset.from_dict({"photo_of_it": pictures} | texts).cast_column(
            "photo_of_it", datasets.Image()
        ),
        "bytes": datasets.Dataset.from_dict({"jpg": pictures} | texts),
        "both": datasets.Dataset.from_dict({"pic": [{"bytes": one, "path": "a/b.png"} for one in pictures]} | texts),
    }
    for name, dataset in stored.items():
        dataset.save_to_disk(str(tmp_path / name))
        dataset.to_parquet(tmp_path / f"{name}.parquet")
        for path in (tmp_path / name, tmp_path / f"{name}.parquet"):
            examples, _ = load_examples(str(path), None, progress=False)
            assert [one.image.read_bytes() for one in examples] == pictures
            assert [one.answers for one in examples] == [("x", "y"), ("z",)]
            assert [one.image_name for one in examples][:1] == ["b.png" if name == "both" else "image 1"]
    two = stored["bytes"].add_column("mask", pictures[::-1])
    two.save_to_disk(str(tmp_path / "two"))
    assert "jpg and mask hold pictures; say which by --image_column" in problems(str(tmp_path / "two"))[0]
    examples, _ = load_examples(str(tmp_path / "two"), None, columns=ColumnNames(image="mask"), progress=False)
    assert [one.image.read_bytes() for one in examples] == pictures[::-1]


def test_answers_of_a_dataset_that_are_none(datasets, tmp_path, image_dir):
    for name, answers in (("flag", [True, False]), ("object", [{"a": 1}, {"a": 2}]), ("deep", [[["x"]], [["y"]]])):
        columns = {"image_name": ["0.png", "1.png"], "question": ["q", "q"], "answer": answers}
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / f"{name}.parquet")
        assert "rows 1, 2: answer is" in problems(str(tmp_path / f"{name}.parquet"))[0]


def test_excel_needs_openpyxl(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert problems(write("t.xlsx", b"PK\x03\x04")) == [
        f"{write('t.xlsx', b'PK')}: reading .xlsx needs a library: pip install openpyxl"
    ]


def test_excel(tmp_path):
    pytest.importorskip("openpyxl")
    path = str(tmp_path / "t.xlsx")
    rows = [["Image", "question", "answer", "n"], ["a.png", "q", 2, 1.5], [None] * 4, ["b.png", "q", "None", None]]
    pd.DataFrame(rows).to_excel(path, header=False, index=False)
    table = read_table(path, require_answers=True)
    assert table.frame.to_numpy().tolist() == [["a.png", "q", "2", "1.5"], ["b.png", "q", "None", ""]]
    assert table.frame.index.tolist() == [2, 4]
    Path(path).write_bytes(Path(path).read_bytes()[:200])
    assert "not a readable Excel file" in problems(path)[0]


@pytest.mark.parametrize("before", [[], [[None] * 4, [None] * 4]])
def test_excel_blank_cells_and_sheets(tmp_path, before, caplog):
    pytest.importorskip("openpyxl")
    rows = [*before, [None, "image", "question", "answer"], [None, "a.png", "q", 2.0], *[[" "] * 4] * 3]
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        pd.DataFrame([[" "]]).to_excel(book, sheet_name="blank", header=False, index=False)
        pd.DataFrame(rows).to_excel(book, sheet_name="data", header=False, index=False)
    table = read_table(str(tmp_path / "t.xlsx"), require_answers=True)
    assert table.frame.to_dict("records") == [{"image": "a.png", "question": "q", "answer": "2"}]
    assert table.frame.index.tolist() == [len(before) + 2]
    assert "the sheet data is read, and blank are not" in caplog.text


def test_packed_tables_have_limits(datasets, tmp_path, monkeypatch):
    pytest.importorskip("openpyxl")
    monkeypatch.setattr(readers, "SMALL", 100_000)
    pd.DataFrame([["image", "question", "answer"], *[["a.png", "q", "x"]] * 2000]).to_excel(
        tmp_path / "t.xlsx", header=False, index=False
    )
    monkeypatch.setattr(readers, "MAX_RATIO", 2)
    assert "at most 100,000 are read" in problems(str(tmp_path / "t.xlsx"))[0]
    rows = pa.table({"image": ["a.png"] * 500, "question": ["q" * 5000] * 500, "answer": ["x"] * 500})
    pq.write_table(rows, tmp_path / "t.parquet")  # a few kB: the word is written once
    assert "more than 100,000 bytes when it is unpacked" in problems(str(tmp_path / "t.parquet"))[0]
    pq.write_table(rows[:0], tmp_path / "t.parquet")
    assert problems(str(tmp_path / "t.parquet")) == [f"{tmp_path}/t.parquet: no rows"]
    pq.write_table(pa.table({f"c{number}": ["x"] for number in range(1001)}), tmp_path / "t.parquet")
    assert "1,001 columns" in problems(str(tmp_path / "t.parquet"))[0]


@pytest.mark.parametrize("kind", [pa.binary(), pa.null()])
def test_places_of_pictures_count_from_the_tables_folder(tmp_path, image_dir, kind, monkeypatch):
    (tmp_path / "set").mkdir()
    shutil.copy(Path(image_dir, "0.png"), tmp_path / "set" / "own.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "here.png")
    monkeypatch.chdir(tmp_path)
    paths = ["own.png", "1.png", "here.png", None]
    pictures = pa.StructArray.from_arrays([pa.nulls(4, kind), pa.array(paths)], ["bytes", "path"])
    columns = {"image": pictures, "question": ["q"] * 4, "answer": ["x"] * 4}
    pq.write_table(pa.table(columns), tmp_path / "set" / "t.parquet")
    examples, bad = load_examples("set/t.parquet", image_dir, on_bad_image="skip", progress=False)
    assert [example.image_name for example in examples] == ["own.png", "1.png"]
    assert [one.reason for one in bad] == [
        "no file here.png, neither beside the table nor in image_dir",
        "no image in this row",
    ]


def test_the_longer_of_two_names_is_taken(write):
    rows = [{"file_name": f"{n}.png", "file_path": f"a/{n}.png", "question": "q", "answer": "x"} for n in range(2)]
    assert read_table(write("t.json", json.dumps(rows)), require_answers=True).image == "file_path"
    rows[1]["file_path"] = "b.png"
    assert "may each be the images' column" in problems(write("t.json", json.dumps(rows)))[0]


def test_a_column_text_beside_answers_may_hold_the_questions(write):
    assert "--question_column text" in problems(write("t.csv", "image,text,answer\na.png,q,x\n"))[-1]


def test_an_empty_separator_is_refused(write):
    _, found = load_table(
        write("t.csv", HEADER + "a,q,x\n"), None, require_answers=True, columns=ColumnNames(separator="")
    )
    assert found[0].startswith("--cell_separator: empty")


# Bad input


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", "", "the file is empty"),
        ("t.csv", "\n \n", "the file is empty"),
        ("t.csv", HEADER, "no rows"),
        ("t.csv", HEADER + ",,\n\n", "no rows"),
        ("t.json", "[]", "no rows"),
        ("t.csv", b"PK\x03\x04\0\0\0", "not a text file"),
        ("t.ods", b"PK\x03\x04\0\0\0", "unknown table format '.ods'"),
        ("t.parquet", b"PAR1\0\0\0", "not a readable Parquet file"),
        ("t.csv.gz", b"not gzip", "cannot be read"),
        ("t.csv.gz", PACKED[:-20], "cut off or damaged"),
        ("t.csv.gz", PACKED[:12] + b"\xff" * 9 + PACKED[20:], "cut off or damaged"),
        ("t.csv.gz", PACKED[:-8] + b"\1" * 8, "CRC check failed"),
        ("t.CSV.GZ", gzip.compress(bytes(70_000_000), 1), "more than 64,000,000 bytes when it is unpacked"),
        ("t.csv", HEADER.strip() + ",x" * 5000 + "\na.png,q,x\n", "5,003 columns; at most 1,000 are read"),
        ("t.csv", HEADER + "\n" * 7_000_000 + "a.png,q,x", "7,000,001 rows of 3 columns; at most 20,000,000 cells"),
        ("t.jsonl", "".join(f'{{"k{row}": 1}}\n' for row in range(3000)), "3,000 columns; at most 1,000 are read"),
        ("t.json", json.dumps([{"image_name": "a", "x": 0}]).replace("0", "[" * 900 + "]" * 900), "no column question"),
        ("t.csv", HEADER + "a.png,q,x\na.png,what, then?,x\n", 'row 3: more cells than the 3 of the header'),
        ("t.csv", HEADER + "a.png,q,x\n\na.png,\"q,x\na.png,q,x\n", "quotation mark opened in row 4 is never closed"),
        ("t.csv", "image_name,question,answer,Answer\na,b,c,d\n", "column answer stands there more than once"),
        ("t.csv", HEADER + "a.png,,x\nb.png,q,x\nc.png, ,x\n", "empty question in rows 2, 4;"),
        ("t.csv", HEADER + "a.png,q,\nb.png,q,x\n", "empty answer in row 2;"),
        ("t.csv", HEADER + "a.png,q,x\n,q,x\n", "empty image_name in row 3;"),
        ("t.csv", HEADER + "a.png,q,\nb.png,q,\n", "column answer is empty in all 2 rows"),
        ("t.jsonl", '{"image_name": "a"}\n{"image_name": \n[1]\n', "lines 2, 3: not a JSON object"),
        ("t.json", '[{"image_name": "a"},\n}]', "broken JSON at line 2, column 1"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.json", '{"a": 1}', "neither a list of objects nor an official VQA file"),
        ("t.json", '{"questions": [{"question": "q"}]}', "every question needs question_id, image_id"),
    ],
)  # fmt: skip
def test_bad_tables(write, name, content, expected):
    assert any(expected in problem for problem in problems(write(name, content)))


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("t.jsonl", '{"image_name": "a", "question": "q", "answer": "x"}\n\n{"image_name": "a", "question": "\\ud83d", '
         '"answer": "x"}', "row 3, column question"),
        ("t.json", '[{"image_name": "a", "question": "q", "answers": ["x", "\\udc00"]}]', "row 1, column answers"),
        ("t.json", '[{"image_name": "a", "question": "q", "answer": "x", "extra": {"k": ["\\ud83d"]}}]', "row 1, column extra"),
        ("t.json", '[{"image_name": "a", "question": "q", "answer": "x", "b\\ud83d": 1}]', "column b\ud83d"),
        ("t.json", '{"questions": [{"question_id": 1, "image_id": 1, "question": "\\ud83d"}]}', "row 1, column question"),
    ],
)  # fmt: skip
def test_half_a_character_is_named_by_its_row(write, name, content, where):
    path = write(name, content)
    assert any(f"{path}: {where}: half of a surrogate pair" in problem for problem in problems(path))


def test_half_a_character_in_official_annotations(write):
    asked, given = vqa_pair()
    given["annotations"][0]["answers"][0]["answer"] = "\ud83d"
    (problem,) = problems(write("q.json", json.dumps(asked)), write("a.json", json.dumps(given)))
    assert "row 2, column answers: half of a surrogate pair" in problem


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    (problem,) = problems(str(tmp_path / "t.csv"))
    assert "a pipe, a socket or a device" in problem


def test_pictures_of_a_datasets_folder_stay_inside_it(datasets, tmp_path):
    (tmp_path / "set").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "set" / "own.png")
    held = {"bytes": (tmp_path / "secret.png").read_bytes(), "path": "../elsewhere.png"}
    places = [held, *({"bytes": None, "path": str(tmp_path / name)} for name in ("set/own.png", "set/../secret.png"))]
    places += [{"bytes": None, "path": "/etc/passwd"}, {"bytes": None, "path": "../secret.png"}]
    features = datasets.Features({"image": datasets.Image(decode=False), "question": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": places, "question": ["q"] * 5}, features)
    about = {"huggingface": json.dumps({"info": {"features": {**features.to_dict(), "image": {"_type": "Image"}}}})}
    pq.write_table(rows.data.table.replace_schema_metadata(about), tmp_path / "set" / "train.parquet")
    (problem,) = problems(str(tmp_path / "set"), require_answers=False)
    assert "rows 3, 4, 5: the picture is a file outside its folder" in problem


def test_rows_of_a_saved_data_set_stay_inside_it(datasets, tmp_path):
    datasets.Dataset.from_dict({"image_name": ["a"], "question": ["q"]}).save_to_disk(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    state = json.loads((tmp_path / "two" / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../one/" + state["_data_files"][0]["filename"]
    (tmp_path / "two" / "state.json").write_text(json.dumps(state))
    (problem,) = problems(str(tmp_path / "two"), require_answers=False)
    assert "outside its folder" in problem


def test_the_first_ten_rows_are_named_and_the_rest_counted(write):
    (problem,) = problems(write("t.csv", HEADER + "a.png,q,\n" * 15 + "a.png,q,x\n"))
    assert "rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 5 more" in problem


def test_missing_columns_name_those_there_and_the_flags(write):
    found = problems(write("t.csv", "Where,Qestion,said\na.png,,x\n"))
    assert len(found) == 3
    assert all("its columns are Where, Qestion, said" in problem for problem in found)
    for problem, kind in zip(found, ("image", "question", "answer"), strict=True):
        assert f"name it by --{kind}_column" in problem


def test_no_such_file(tmp_path):
    assert problems(f"{tmp_path}/t.csv") == [f"{tmp_path}/t.csv: no such file"]

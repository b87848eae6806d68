"""Published layouts are read as they are, and the line that says which was taken."""

import json

import pytest

from blip2vqa.data.captions import load_captions
from blip2vqa.data.layouts import JSON_LAYOUTS, TEXT_LAYOUTS
from blip2vqa.data.table_checks import Table
from blip2vqa.data.tables import load_table
from blip2vqa.utils.errors import InputError, raise_all

TEN = ["yes"] * 7 + ["no"] * 3
VIZWIZ = [
    {"image": "a.jpg", "question": "q?", "answers": [{"answer": one, "answer_confidence": "yes"} for one in TEN],
     "answer_type": "other", "answerable": 1},
]  # fmt: skip
TEXTVQA = {
    "dataset_name": "textvqa",
    "data": [{"question": "q?", "image_id": "00ab", "answers": TEN, "question_id": 3}],
}
AOKVQA = [
    {"split": "val", "image_id": 299207, "question_id": "x", "question": "q?", "choices": ["car", "bus"],
     "correct_choice_idx": 1, "direct_answers": TEN, "rationales": ["r"]},
]  # fmt: skip
GQA = {"07333408": {"imageId": "2375429", "question": "q?", "answer": "yes", "semantic": [{"operation": "select"}]}}
GENOME = [{"id": 10, "qas": [
    {"question": "q?", "answer": "Yes.", "image_id": 10, "qa_id": 5, "a_objects": [], "q_objects": []},
]}]  # fmt: skip
CLEVR = {"info": {}, "questions": [{"image_filename": "a.png", "question": "q?", "answer": "yes", "program": []}]}
DOCVQA = {
    "dataset_name": "docvqa",
    "data": [{"questionId": 1, "question": "q?", "image": "d/a.png", "answers": ["yes"]}],
}
BY_ID = {"1": {"image": "a.png", "question": "q?", "answer": "yes"}}
BY_COLUMN = {"image": ["a.png"], "question": ["q?"], "answer": ["yes"]}
PANDAS = {"image": {"0": "a.png"}, "question": {"0": "q?"}, "answer": {"0": "yes"}}


def read(path: str, **options) -> Table:
    table, problems = load_table(path, None, **{"require_answers": True} | options)
    raise_all(problems)
    return table


@pytest.mark.parametrize(
    ("content", "name", "image", "answers"),
    [
        (VIZWIZ, "VizWiz", "a.jpg", TEN),
        (TEXTVQA, "TextVQA", "00ab", TEN),
        (AOKVQA, "A-OKVQA", "000000299207.jpg", TEN),
        (GQA, "GQA", "2375429", ["yes"]),
        (GENOME, "Visual Genome's questions", "10", ["Yes."]),
        (CLEVR, "a list of objects inside an object", "a.png", ["yes"]),
        (DOCVQA, "a list of objects inside an object", "d/a.png", ["yes"]),
        (BY_ID, "objects by their id", "a.png", ["yes"]),
        (BY_COLUMN, "lists by column", "a.png", ["yes"]),
        (PANDAS, "lists by column", "a.png", ["yes"]),
    ],
)
def test_questions(write, capsys, content, name, image, answers):
    path = write("t.json", json.dumps(content))
    table = read(path)
    assert table.frame[table.image].tolist() == [image]
    assert table.frame[table.question].tolist() == ["q?"]
    assert table.answers == [tuple(answers)]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}: read as {name}")


def test_the_documented_table_is_read_without_a_word(write, capsys):
    read(write("t.csv", "image_name,question,answer\na.png,q,x\n"))
    assert capsys.readouterr().out == ""


def test_daquar(write):
    text = "what is on the desk in the image3 ?\nbook, cup\n\nhow many chairs are there in image12?\n2\nis image4 dark ?\nno\n"
    table = read(write("qa.txt", text))
    assert table.frame[["image_name", "question", "answer"]].to_numpy().tolist() == [
        ["image3", "what is on the desk?", "book, cup"],
        ["image12", "how many chairs are there?", "2"],
        ["image4", "is image4 dark ?", "no"],
    ]
    assert table.frame.index.tolist() == [1, 4, 6]


@pytest.mark.parametrize(("gone", "line"), [(3, 4), (4, 5), (0, 1), (23, 23)])
def test_daquar_without_a_line(write, gone, line):
    lines = [text for n in range(12) for text in (f"what is in the image{n} ?", "lamp")]
    del lines[gone]
    with pytest.raises(InputError, match=f"read as DAQUAR: line {line}: question and answer do not stand in turn"):
        read(write("qa.txt", "\n".join(lines)))


CAPTIONS = [("0.png", "one, two"), ("1.png", "three"), ("0.png", '"four"')]
COCO = {
    "info": {},
    "images": [{"id": 7, "file_name": "0.png"}, {"id": 8, "file_name": "1.png"}],
    "annotations": [
        {"image_id": {"0.png": 7, "1.png": 8}[name], "id": number, "caption": text}
        for number, (name, text) in enumerate(CAPTIONS)
    ],
}
FLICKR8K = "".join(f"{name}#{number}\t{text}\n" for number, (name, text) in enumerate(CAPTIONS))
FLICKR30K = "image_name| comment_number| comment\n0.png| 0| one, two\n1.png| 1   three\n" + '0.png| 2| "four"\n'


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("captions.json", json.dumps(COCO)),
        ("Flickr8k.token.txt", FLICKR8K),
        ("results_20130124.token", FLICKR8K),
        ("results.csv", FLICKR30K),
        (
            "hub.csv",
            'raw,sentids,split,filename\n"[""one, two""]",0,train,0.png\n"[""three""]",1,val,1.png\n'
            '"[""""""four""""""]",2,train,0.png\n'.replace('""""""four""""""', '""\\""four\\""""'),
        ),
        ("captions.txt", 'image,caption\n0.png,"one, two"\n1.png,three\n0.png,"""four"""\n'),
        ("diffusers.jsonl", "\n".join(json.dumps({"image": name, "text": text}) for name, text in CAPTIONS)),
    ],
)
def test_captions(write, image_dir, file, content):
    examples, _ = load_captions(write(file, content), image_dir, progress=False)
    assert [(example.image_name, example.answer) for example in examples] == CAPTIONS


def test_karpathys_split(write, image_dir):
    def image(number: int, split: str) -> dict:
        return {
            "filename": f"{number}.png",
            "split": split,
            "sentences": [{"raw": f"{split} 1"}, {"raw": f"{split} 2"}],
        }

    images = [image(0, "train"), image(1, "val"), image(2, "restval")]
    path = write("dataset.json", json.dumps({"dataset": "coco", "images": images}))

    def captions(path: str, **options) -> list[str]:
        return [one.answer for one in load_captions(path, image_dir, progress=False, **options)[0]]

    assert captions(path, split="train") == ["train 1", "train 2", "restval 1", "restval 2"]
    assert captions(path, split="val") == captions(f"{path}:val", split="train") == ["val 1", "val 2"]
    assert len(captions(path)) == 6
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        captions(f"{path}:test")


def test_captions_are_not_questions_and_the_reverse(write, image_dir):
    for content in (COCO, [{"image": "0.png", "text": "x"}]):
        with pytest.raises(InputError) as raised:
            read(write("t.json", json.dumps(content)))
        (problem,) = raised.value.problems
        assert "it looks like a table of captions" in problem and "--task caption" in problem
    with pytest.raises(InputError, match="a table of questions, which goes without --task caption"):
        load_captions(write("q.json", json.dumps(VIZWIZ)), image_dir, progress=False)


def test_annotations_alone_say_what_they_need(write):
    one = {"question_id": 1, "image_id": 2, "answers": [], "multiple_choice_answer": "yes"}
    with pytest.raises(InputError, match="this file as --annotations_path"):
        read(write("a.json", json.dumps({"annotations": [one]})))


@pytest.mark.parametrize("content", [COCO, TEXTVQA, AOKVQA, GQA, GENOME, CLEVR, BY_ID, BY_COLUMN, PANDAS, VIZWIZ])
@pytest.mark.parametrize("wrong", [None, 3, "x", True, [], {}, [None], [[]], {"a": None}])
def test_parts_of_another_kind_are_one_line(write, content, wrong):
    """Each value of a layout in turn is something else."""

    def changed(value):
        yield wrong
        if isinstance(value, dict):
            for key in value:
                yield from ({**value, key: one} for one in changed(value[key]))
        elif isinstance(value, list):
            for place in range(min(2, len(value))):
                yield from ([*value[:place], one, *value[place + 1 :]] for one in changed(value[place]))

    for number, one in enumerate(changed(content)):
        try:
            read(write(f"{number}.json", json.dumps(one)), require_answers=False)
        except InputError as error:
            assert all("\n" not in problem for problem in error.problems)


def test_every_layout_has_a_name_of_its_own():
    names = [layout.name for layout in JSON_LAYOUTS + TEXT_LAYOUTS]
    assert len(names) == len(set(names))


def test_restval_is_said_to_be_in_train(write):
    images = [{"filename": "0.png", "split": "restval", "sentences": [{"raw": "one"}]}]
    path = write("dataset_coco.json", json.dumps({"images": images}))
    with pytest.raises(InputError, match="it has train; restval is read as part of train"):
        read(f"{path}:restval", kind="caption")

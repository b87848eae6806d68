"""Configurations in JSON and in YAML: the same values, the same refusals."""

import json

import pytest

from blip2vqa.config.files import read_config, read_file
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.config.styles import read_style
from blip2vqa.inference.systems import read_systems
from blip2vqa.utils.errors import InputError

SYSTEMS = [{"name": "base", "base_model_id": "a"}, {"name": "b", "base_model_id": "a", "prompt": "{question}"}]
AS_JSON = """{
  "csv_path": "t.csv", "learning_rate": 1e-4, "eval_strategy": "no", "epochs": 2, "use_cpu": true, "question_types": "007",
  "answers": null, "report_to": ["none"], "lr_scheduler_kwargs": {"num_cycles": 2}, "prompt": "Q: {question} A:",
  "base_model_revision": "2026-01-01"
}"""
AS_YAML = """
csv_path: t.csv
learning_rate: 1e-4
eval_strategy: no        # no word of YAML 1.1's for false
epochs: 2
use_cpu: true
question_types: 007
answers:
report_to: [none]
lr_scheduler_kwargs: {num_cycles: 2}
prompt: "Q: {question} A:"
base_model_revision: 2026-01-01
"""


@pytest.mark.parametrize("name", ["c.yaml", "c.yml", "C.YAML"])
def test_yaml_means_what_json_means(write, name):
    assert read_config(write(name, AS_YAML)) == read_config(write("c.json", AS_JSON)) == json.loads(AS_JSON)


@pytest.mark.parametrize("content", [("c.json", AS_JSON), ("c.yaml", AS_YAML)], ids=["json", "yaml"])
def test_a_configuration_is_read_and_flags_stand_above(write, content):
    (_, data, *_, training), resolved = parse(FINETUNE_ARGUMENTS, "", [write(*content), "--epochs", "3"])
    assert (data.csv_path, data.question_types, data.prompt) == ("t.csv", "007", "Q: {question} A:")
    assert (training.learning_rate, training.eval_strategy, training.num_train_epochs) == (1e-4, "no", 3)
    assert training.lr_scheduler_kwargs == {"num_cycles": 2} and "answers" not in resolved


@pytest.mark.parametrize(
    ("as_json", "as_yaml", "message"),
    [
        ('{"seed": 1, "seed": 2}', "seed: 1\nseed: 2", "the key 'seed' stands there twice"),
        ('{"a": {"b": 1, "b": 2}}', "a: {b: 1, b: 2}", "the key 'b' stands there twice"),
        ("[1]", "- 1", "must hold one JSON object (YAML mapping)"),
        ("3", "3", "must hold one JSON object (YAML mapping)"),
        ('{"a": ', "a: [", "not readable as "),
        ('{1: "a"}', "1: a", "not readable as "),
        ('{"a": "\x00"}', "a: \x00", "not readable as "),
        (b'{"a": "\xff"}', b"a: \xff", "not readable as "),
        ("", "", ""),
    ],
)
def test_both_are_refused_alike(write, as_json, as_yaml, message):
    for name, content in (("c.json", as_json), ("c.yaml", as_yaml)):
        with pytest.raises(InputError) as caught:
            read_config(write(name, content))
        (problem,) = caught.value.problems
        assert f"{name}: " in problem and message in problem and len(problem.splitlines()) == 1


@pytest.mark.parametrize("ending", ["json", "yaml"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batchsize": 4}, "key batchsize: unknown; did you mean batch_size?"),
        ({"seed": 1.5}, "invalid int value: '1.5'"),
        ({"load_best_model_at_end": "perhaps"}, "Truthy value expected"),
        ({"dataset_name": "a", "csv_path": "b"}, "dataset_name and csv_path are the same option; keep one"),
    ],
)
def test_options_are_checked_alike(write, ending, values, message):
    text = json.dumps(values) if ending == "json" else "\n".join(f"{key}: {value}" for key, value in values.items())
    with pytest.raises(InputError) as caught:
        parse(FINETUNE_ARGUMENTS, "", [write(f"c.{ending}", text)])
    assert message in str(caught.value)


def test_no_such_file():
    for name in ("absent.json", "absent.yaml"):
        with pytest.raises(InputError, match=f"configuration {name}: no such file"):
            read_config(name)


@pytest.mark.parametrize("name", ["none.yaml", "none.json"])
def test_no_such_list_of_systems(name):
    with pytest.raises(InputError) as caught:
        read_systems(name)
    assert caught.value.problems == [f"--systems {name}: no such file"]


def test_a_folder_is_not_readable(tmp_path):
    (tmp_path / "c.yaml").mkdir()
    with pytest.raises(InputError, match=r"not readable as YAML: Is a directory$"):
        read_systems(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "a: 1\nb: [",
            "while parsing a flow node, expected the node content, but found '<stream end>' (line 2, column 5)",
        ),
        ("a: b: c", "mapping values are not allowed here (line 1, column 5)"),
        ("a: \x00", "unacceptable character #x0000: special characters are not allowed at position 3"),
    ],
)
def test_where_yaml_is_wrong(write, content, reason):
    with pytest.raises(InputError) as caught:
        read_config(write("c.yaml", content))
    assert caught.value.problems[0].endswith(f"c.yaml: not readable as YAML: {reason}")


def test_yaml_that_includes_itself_is_no_configuration(write):
    with pytest.raises(InputError):
        parse(FINETUNE_ARGUMENTS, "", [write("c.yaml", "seed: &a [*a]")])


def test_styles_and_systems_in_yaml(write):
    style = write("mine.yaml", "prompt: a view of\nnum_beams: 2\ntemperature: 5e-1\n")
    assert read_style(style) == {"prompt": "a view of", "num_beams": 2, "temperature": 0.5}
    with pytest.raises(InputError, match="num_beams is 'two'; it must be of type int"):
        read_style(write("mine.yml", "prompt: a\nnum_beams: two"))
    listed = "- name: base\n  base_model_id: a\n- {name: b, base_model_id: a, prompt: '{question}'}\n"
    as_yaml = read_systems(write("systems.yaml", listed))
    assert as_yaml == read_systems(write("systems.json", json.dumps(SYSTEMS)))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("c.yaml", "a: &a [1]\nb: " + "[" * 40 + "*a" + "]" * 40, "nested too deeply"),
        ("c.yaml", "a: &a [*a]", "nested too deeply"),
        ("c.yaml", 'a: "\\ud83d"', "half of a surrogate pair"),
        ("c.json", '{"a": "\\ud83d"}', "half of a surrogate pair"),
        ("c.json", "[" + "1," * 200_000 + "1]", "larger than"),
        ("c.yaml", "- a\n" * 100_000, "larger than"),
    ],
)
def test_files_without_measure_are_refused(write, name, content, reason):
    with pytest.raises(InputError, match=reason):
        read_file(write(name, content), "configuration")


def test_yaml_of_many_keys_takes_no_longer_each(write):
    assert len(read_file(write("c.yaml", "".join(f"k{key}: 1\n" for key in range(2000))), "configuration")) == 2000

"""Systems side by side: each answers as it does alone, and what they share is loaded and looked at once."""

import json
from collections import Counter

import pandas as pd
import pytest
from PIL import Image

from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.evaluation.verdict import BLIND
from blip2vqa.inference import answering, model_spec, systems
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter

PROMPT = "Q: {question} A:"
RESULTS = {"out.csv", "out.json", "out.png", "out.disagreements.csv", "out.answers.csv", "out.report.html"}


def arguments(drawn, out, **changes) -> InferenceArguments:
    given = {"csv_path": str(drawn[1]), "image_dir": str(drawn[0]), "output_path": str(out), "batch_size": 7}
    return InferenceArguments(**given | {"dtype": "float32", "bertscore_model": "none"} | changes)


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def entries(tiny_opt, tiny_t5, tmp_path_factory) -> list[dict]:
    """Two bases, two adapters of one of them, a prompt, a precision."""
    folder = tmp_path_factory.mktemp("adapters")
    opt, t5 = str(tiny_opt), str(tiny_t5)
    first = str(random_adapter(tiny_opt, folder / "first", 1, prompt="{question} A:", decoding={"max_new_tokens": 5}))
    second = str(random_adapter(tiny_opt, folder / "second", 2))
    return [
        {"name": "OPT", "base_model_id": opt, "quantization": "none"},
        {"name": "first", "lora_model_path": first, "quantization": "none"},
        {"name": "T5, [prompt]", "base_model_id": t5, "quantization": "none", "prompt": PROMPT},
        {"name": "second", "base_model_id": opt, "lora_model_path": second, "quantization": "none", "prompt": None},
        {"name": "OPT, prompt", "base_model_id": opt, "quantization": "none", "prompt": PROMPT},
        {"name": "first, 4 bits", "base_model_id": opt, "lora_model_path": first, "quantization": "4bit"},
    ]


@pytest.fixture(scope="module")
def compared(entries, drawn, tmp_path_factory):
    """The folder of a comparison, what it returned, the loads of language models, and the images that towers looked at."""
    from transformers import Blip2VisionModel

    folder = tmp_path_factory.mktemp("compared")
    (folder / "systems.json").write_text(json.dumps(entries))
    loads, looked, load, look = [], [], model_spec.load_base, Blip2VisionModel.forward

    def load_and_count(base, **kwargs):
        loads.append((base, kwargs["quantization"], "language_model" in kwargs["parts"]))
        return load(base, **kwargs)

    def look_and_count(self, pixel_values, **kwargs):
        looked.append(len(pixel_values))
        return look(self, pixel_values=pixel_values, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_spec, "load_base", load_and_count)
        patch.setattr(Blip2VisionModel, "forward", look_and_count)
        args = arguments(drawn, folder / "out.csv", systems=str(folder / "systems.json"))
        features = FeatureArguments(feature_cache=str(folder / "features"))
        done = systems.compare_systems(args, features)
    return folder, done, loads, looked


def test_all_files_are_written(compared, entries, drawn):
    folder, (result, written), *_ = compared
    assert {path.name for path in written} == RESULTS == {path.name for path in folder.glob("out.*")}
    names = [entry["name"] for entry in entries]
    assert [row["name"] for row in result["systems"]] == [*names, BLIND]
    assert json.loads((folder / "out.json").read_text()) == result
    assert read(folder / "out.csv")["name"].tolist() == [*names, BLIND]
    said, table = read(folder / "out.answers.csv"), read(drawn[1])
    assert list(said) == ["row", "image_name", "question", "answer", *names] and len(said) == 36
    assert said[list(table)].equals(table) and said["row"].tolist() == [str(row) for row in range(2, 38)]
    differing = read(folder / "out.disagreements.csv")
    assert 0 < len(differing) <= 36 and set(differing["row"]) <= set(said["row"])
    with Image.open(folder / "out.png") as chart:
        assert chart.format == "PNG" and chart.width > 800
    assert any("common batches" in note for note in result["notes"])


def test_each_answers_as_it_does_alone(compared, entries, drawn, tmp_path):
    said = read(compared[0] / "out.answers.csv")
    for number, entry in enumerate(entries):
        changes = {key: entry.get(key) for key in ("base_model_id", "quantization", "prompt")}
        changes["lora_model_path"] = [entry["lora_model_path"]] if "lora_model_path" in entry else None
        args = arguments(drawn, tmp_path / f"{number}.csv", **changes)
        metrics = answering.answer_table(args, FeatureArguments())
        alone = read(args.output_path)["generated_answer"]
        assert said[entry["name"]].tolist() == alone.tolist(), entry["name"]
        row = compared[1][0]["systems"][number]
        assert row["accuracy"] == next(iter(metrics.values()))["accuracy"]
    answers = [tuple(said[entry["name"]]) for entry in entries[:5]]
    assert len(set(answers)) == 5  # they are not alike


def test_what_systems_share_is_loaded_and_looked_at_once(compared, entries, tiny_opt, tiny_t5):
    _, (result, _), loads, looked = compared
    opt, t5 = str(tiny_opt), str(tiny_t5)
    whole = Counter((base, bits) for base, bits, language in loads if language)
    assert whole == {(opt, "none"): 1, (t5, "none"): 1, (opt, "4bit"): 1}
    assert sum(looked) == 2 * 12  # each base's towers look at each image once, whatever its precision and prompts
    rows = {row["name"]: row for row in result["systems"]}
    assert rows["OPT"]["seconds_per_question"] == rows["second"]["seconds_per_question"] > 0
    adapter = rows["first"]["trained_parameters"]
    assert adapter and rows["first"]["parameters"] == rows["OPT"]["parameters"] + adapter
    assert rows["first, 4 bits"]["quantization"] == "4bit" and rows["first"]["prompt"] == "{question} A:"
    assert rows["OPT"]["trained_parameters"] is None and rows["OPT"]["adapter"] is None


def test_a_table_without_answers(entries, drawn, write, tmp_path, capsys):
    from blip2vqa.reporting.systems import print_systems

    table = tmp_path / "questions.csv"
    read(drawn[1]).drop(columns="answer").to_csv(table, index=False)
    args = arguments((drawn[0], table), tmp_path / "out.csv", systems=write("s.json", json.dumps(entries[:2])))
    result, written = systems.compare_systems(args, FeatureArguments())
    assert all(row["accuracy"] is None for row in result["systems"])
    assert 0 <= result["agreement"]["OPT"]["first"] <= 1
    assert {path.name for path in written} == RESULTS and all(path.exists() for path in written)
    print_systems(result)
    assert "The table has no answers" in capsys.readouterr().out


@pytest.fixture
def problems(drawn, write, tmp_path, monkeypatch):
    """What is said of SYSTEMS.json, before any weight is loaded."""
    monkeypatch.setattr(model_spec, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))

    def problems(content, out="out.csv", **changes) -> list[str]:
        path = write("systems.json", content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError) as caught:
            args = arguments(drawn, tmp_path / out, **{"systems": path} | changes)
            systems.compare_systems(args, FeatureArguments())
        return caught.value.problems

    return problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"name": "a"},]', "not readable as JSON: "),
        ({"name": "a"}, 'must hold a list of objects, like [{"name": '),
        ([], "must hold a list of objects"),
        (["OPT"], "must hold a list of objects"),
        ([{"name": "a", "base": "x"}], "system a: base is no key of a system; known are name, base_model_id, "),
        ([{"name": "a", "base_model_id": 7}], "system a: base_model_id is 7; it must be text"),
        ([{"base_model_id": "BASE"}], "system 1: needs a name of its own"),
        ([{"name": BLIND, "base_model_id": "BASE"}], "needs a name of its own"),
        ([{"name": "a", "base_model_id": "BASE"}] * 2, "system a: the name is given twice; every system needs its own"),
        ([{"name": "a", "base_model_id": "BASE", "quantization": "2bit"}], "choose from auto, none, 8bit, 4bit"),
        ([{"name": "a", "base_model_id": "BASE", "prompt": "What?"}], "its prompt does not contain {question}"),
        (
            [{"name": "a", "base_model_id": "BASE", "lora_model_path": "nowhere"}],
            "system a: adapter nowhere: no such folder",
        ),
        ([{"name": "a", "lora_model_path": "nowhere"}], "system a: adapter nowhere: no such folder"),
        ([{"name": "a", "base_model_id": "nowhere"}], "system a: base model nowhere: no such folder"),
    ],
)
def test_what_is_wrong_is_one_line_under_its_name(content, message, problems, tiny_opt):
    content = content if isinstance(content, str) else json.dumps(content).replace("BASE", str(tiny_opt))
    (problem,) = problems(content)
    assert message in problem


def test_all_that_is_wrong_is_said_at_once(problems, tiny_opt, tiny_t5, tmp_path):
    opt = str(tiny_opt)
    other = str(random_adapter(tiny_t5, tmp_path / "other", 0))
    wrong = [
        {"name": "a", "base_model_id": opt, "lora_model_path": "nowhere"},
        {"name": "b", "base_model_id": opt, "lora_model_path": other},
        {"name": "c", "base_model_id": "absent"},
        {"name": "d", "base_model_id": "absent", "prompt": PROMPT},
    ]
    found = problems(wrong, num_beams=0)
    assert len(found) == 4 and found[0].startswith("--num_beams: 0")
    for name, part in (
        ("a", "nowhere: no such folder"),
        ("b", "does not fit base model"),
        ("c, d", "absent: no such folder"),
    ):
        assert any(line.startswith(f"system {name}: ") and part in line for line in found)


def test_an_adapter_for_captions_is_not_a_system(problems, tiny_opt, tmp_path):
    path = str(random_adapter(tiny_opt, tmp_path / "captions", 0, task="caption", prompt="a photo of"))
    (problem,) = problems([{"name": "a", "lora_model_path": path}])
    assert problem.startswith(f"system a: adapter {path}: its prompt, 'a photo of', has no {{question}}")


def test_nothing_is_overwritten(problems, tiny_opt, write, tmp_path):
    good = [{"name": "a", "base_model_id": str(tiny_opt)}]
    (problem,) = problems(good, out="systems.csv")  # whose scores would be systems.json
    assert "would replace" in problem and json.loads((tmp_path / "systems.json").read_text()) == good
    for name in ("out.csv", "out.answers.csv", "out.png"):
        write(name, "mine")
        (problem,) = problems(good)
        assert f"{name} is already there; name another, or --overwrite it" in problem
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_systems_bring_their_own_adapters_and_prompts(problems, tiny_opt, tmp_path):
    good = [{"name": "a", "base_model_id": str(tiny_opt)}]
    found = problems(good, lora_model_path=["x"], prompt=PROMPT, answers="list.txt")
    assert [line.split(":")[0] for line in found] == ["--lora_model_path", "--prompt", "--answers"]
    assert all("does not go with --systems" in line for line in found)
    missing = str(tmp_path / "absent.json")
    (problem,) = problems(good, systems=missing)
    assert problem == f"--systems {missing}: no such file"


def test_flags_that_each_system_has_are_refused(problems, entries):
    for flag, value in (("quantization", "4bit"), ("lora_revision", "main"), ("base_model_revision", "main")):
        assert f"--{flag}: does not go with --systems" in "\n".join(problems(entries, **{flag: value}))


def test_a_system_may_be_called_like_a_column(tiny_opt, drawn, write, tmp_path):
    path = write("systems.json", json.dumps([{"name": "answer", "base_model_id": str(tiny_opt)}]))
    systems.compare_systems(arguments(drawn, tmp_path / "out.csv", systems=path), FeatureArguments())
    table = pd.read_csv(tmp_path / "out.answers.csv", dtype=str)
    assert "answer (said)" in table and table["answer"].tolist() == pd.read_csv(drawn[1], dtype=str)["answer"].tolist()

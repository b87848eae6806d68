"""Each question to the adapter of its type, types alone, and answers from a closed list."""

import json
from collections import Counter

import pandas as pd
import pytest

from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.inference import answering, generation, model_spec
from blip2vqa.inference.answering import metrics_path
from blip2vqa.training.checks import check
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.finetune_runs import make_run

ANSWERS = ["red", "green", "blue", "yellow", "yes", "no", "one"]


@pytest.fixture(scope="module")
def adapters(tiny_opt, tiny_t5, tmp_path_factory) -> dict[str, str]:
    """Random adapters by name: two with prompts of their own, one of other tools, one of another base."""
    folder = tmp_path_factory.mktemp("adapters")
    count = {"prompt": "{question} A number:", "decoding": {"max_new_tokens": 4}}
    made = {
        "count": random_adapter(tiny_opt, folder / "count", 1, **count),
        "color": random_adapter(tiny_opt, folder / "color", 2, prompt="Q: {question} A:", decoding={"num_beams": 2}),
        "default": random_adapter(tiny_opt, folder / "default", 3),
        "t5": random_adapter(tiny_t5, folder / "t5", 4),
    }
    return {name: str(path) for name, path in made.items()}


@pytest.fixture
def answer(drawn, tmp_path):
    def answer(name: str, *adapters: str, **changes) -> pd.DataFrame:
        out = tmp_path / f"{name}.csv"
        given = {"csv_path": str(drawn[1]), "image_dir": str(drawn[0]), "lora_model_path": list(adapters) or None}
        common = {"output_path": str(out), "dtype": "float32", "bertscore_model": "none", "batch_size": 5}
        answering.answer_table(InferenceArguments(**given | common | changes), FeatureArguments())
        return pd.read_csv(out, dtype=str, keep_default_na=False)

    return answer


def routes(adapters: dict[str, str], *names: str) -> list[str]:
    return [f"{name}={adapters[name]}" for name in names or ("count", "color", "default")]


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    numbers = ["confidence"]
    assert one.drop(columns=numbers).equals(other.drop(columns=numbers))
    assert one["confidence"].astype(float).tolist() == pytest.approx(
        other["confidence"].astype(float).tolist(), abs=2e-5
    )


# Routes


def test_each_answer_is_that_of_the_types_adapter_alone(answer, adapters, capsys):
    routed = answer("routed", *routes(adapters))
    output = capsys.readouterr().out
    assert Counter(routed["adapter"]) == {"count": 12, "color": 12, "default": 12}
    asked = {"count": "How many", "color": "What color", "default": "Is the"}
    said = set()
    for name, beginning in asked.items():
        mine = routed[routed["adapter"] == name]
        assert mine["question"].str.startswith(beginning).all()
        assert f"{adapters[name]}, 12 questions" in output
        alone = answer(name, adapters[name])
        same(mine.drop(columns="adapter"), alone.loc[mine.index])
        said.add(tuple(alone["generated_answer"]))
    assert len(said) == 3  # the adapters are not alike
    assert all(prompt in output for prompt in ("{question} A number:", "Q: {question} A:", "2 beams"))


def test_a_prompt_that_is_asked_for_goes_to_all(answer, adapters, capsys):
    answer("prompted", *routes(adapters), prompt="{question}")
    assert "number:" not in capsys.readouterr().out


def test_an_interrupted_table_keeps_its_routes(answer, adapters, tmp_path, monkeypatch):
    whole = answer("whole", *routes(adapters))
    say, calls = generation.answer_with_kv_cache, []

    def stop_at_fourth(*args, **kwargs):
        calls.append(len(args[3]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return say(*args, **kwargs)

    monkeypatch.setattr(generation, "answer_with_kv_cache", stop_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        answer("out", *routes(adapters))
    before = sum(calls[:3])
    begun = json.loads((tmp_path / "out.csv.partial").read_text().splitlines()[0])["run"]
    assert [*begun["adapters"]] == [*begun["prompts"]] == ["count", "color", "default"]
    changed = [*routes(adapters, "count", "color"), f"default={adapters['color']}"]
    with pytest.raises(InputError, match="adapters was"):
        answer("out", *changed)
    calls[:] = [0] * 10  # never the fourth again
    same(answer("out", *routes(adapters)), whole)
    assert sum(calls) == 36 - before
    assert not (tmp_path / "out.csv.partial").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["count=count", "color=color"], "for questions of type yes/no (12 questions); add default=ADAPTER for them"),
        (["size=count", "default=color"], "no question is of type size; the table has color, count, yes/no"),
        (["count=count", "count=color"], "count is given twice; keep one"),
        (["count=count", "color"], "with several adapters each is NAME=ADAPTER"),
        (["count=count", "default="], "with several adapters each is NAME=ADAPTER"),
        (["count=count", "default=t5"], "adapters that answer together need one base"),
        (["count=count", "default=nowhere"], "adapter nowhere: no such folder"),
    ],
)
def test_wrong_routes_are_one_line_before_the_weights(given, message, answer, adapters, monkeypatch):
    monkeypatch.setattr(model_spec, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    paths = [f"{name}{sign}{adapters.get(path, path)}" for name, sign, path in (item.partition("=") for item in given)]
    with pytest.raises(InputError) as caught:
        answer("wrong", *paths)
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0]


def test_an_adapter_for_captions_is_not_asked_questions(answer, adapters, tiny_opt, tmp_path):
    path = str(random_adapter(tiny_opt, tmp_path / "captions", 5, task="caption", prompt="a photo of"))
    with pytest.raises(InputError, match=r"its prompt, 'a photo of', has no \{question\}: it writes captions"):
        answer("captions", f"count={path}", f"default={adapters['default']}")
    assert len(answer("asked", path, prompt="{question}", question_types="count")) == 12


# Types alone


def test_types_alone_are_answered(answer, tiny_opt, tmp_path):
    table = answer("types", base_model_id=str(tiny_opt), question_types="count, yes/no")
    assert len(table) == 24 and not table["question"].str.startswith("What").any()
    assert set(table["status"]) == {"ok"} and list(table)[:3] == ["image_name", "question", "answer"]
    metrics = json.loads(metrics_path(tmp_path / "types.csv").read_text())
    assert set(metrics["base"]["by_question_type"]) == {"count", "yes/no"}


def test_an_unknown_type_names_those_that_there_are(answer, tiny_opt, drawn, tmp_path):
    message = "has no question of type size; it has color, count, yes/no"
    with pytest.raises(InputError, match=message):
        answer("types", base_model_id=str(tiny_opt), question_types="count,size")
    with pytest.raises(InputError, match=message):
        check(make_run(tiny_opt, drawn, tmp_path / "run", "--question_types", "size"))
    with pytest.raises(InputError, match="names no type; known by rule are"):
        answer("types", base_model_id=str(tiny_opt), question_types=" , ")


# Closed lists


def test_the_tables_answers_are_the_only_ones(tiny_opt, drawn, tmp_path, answer, capsys):
    """Trained for four steps, a random base would say anything."""
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--answers", "table", "--max_steps", "4", "--eval_strategy", "no")
    finetune(run)
    assert "7 to choose from" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "run" / "blip2vqa.json").read_text())
    assert sorted(manifest["answers"]) == sorted(ANSWERS)
    predicted = pd.read_csv(tmp_path / "run" / "predictions.csv", dtype=str)
    assert set(predicted["generated_answer"]) | set(predicted["base_answer"]) <= set(ANSWERS)
    table = answer("told", str(tmp_path / "run"))
    assert set(table["generated_answer"]) <= set(ANSWERS)
    ranked = [[name for name, _ in json.loads(cell)] for cell in table["ranked_answers"]]
    assert all(
        names[0] == said and set(names) <= set(ANSWERS)
        for names, said in zip(ranked, table["generated_answer"], strict=True)
    )
    (tmp_path / "two.txt").write_text("red\none\n")
    assert set(answer("fewer", str(tmp_path / "run"), answers=str(tmp_path / "two.txt"))["generated_answer"]) <= {
        "red",
        "one",
    }


def test_going_on_with_other_routes_is_refused(answer, adapters, drawn, tmp_path, monkeypatch):
    """The answers so far are those of other adapters."""
    table = pd.read_csv(drawn[1], dtype=str)
    table["one"], table["two"] = ["count", "color"] * (len(table) // 2), ["color", "count"] * (len(table) // 2)
    table.to_csv(tmp_path / "typed.csv", index=False)
    given = {"csv_path": str(tmp_path / "typed.csv")}
    monkeypatch.setattr(answering, "answer_by_batch", interrupted(answering.answer_by_batch))
    with pytest.raises(KeyboardInterrupt):
        answer("out", *routes(adapters), **given, question_type_column="one")
    monkeypatch.undo()
    with pytest.raises(InputError, match="routes was"):
        answer("out", *routes(adapters), **given, question_type_column="two")


def interrupted(batches):
    def stop(*args, **kwargs):
        yield next(batches(*args, **kwargs))
        raise KeyboardInterrupt

    return stop


def test_a_type_of_the_rule_may_be_absent(answer, adapters, tiny_opt, caplog):
    """Presets name more types than every table has; a misspelt one is another matter."""
    assert len(answer("some", base_model_id=str(tiny_opt), question_types="count,material")) == 12
    assert "has no question of type material" in caplog.text
    with pytest.raises(InputError, match="has no question of type material; it has color, count, yes/no"):
        answer("none", base_model_id=str(tiny_opt), question_types="material")
    table = answer("routed", f"material={adapters['color']}", f"default={adapters['count']}")
    assert set(table["adapter"]) == {"default"}

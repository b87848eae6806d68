"""Captions in styles on the embedded base: three adapters learn their wordings and name what is in the picture."""

import csv
import json
import sys

import pytest
import torch

from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.config.styles import known_styles, read_style, style_file
from blip2vqa.data.captions import group_by_image
from blip2vqa.training.checks import check
from blip2vqa.training.recipe import finetune
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import adapter_of, make_run
from helpers.paths import ROOT
from helpers.tiny_families import make_vilt

sys.path.append(str(ROOT / "assets"))
from make_captions import follows_style, objects_in

QUICKSTART = ROOT / "assets" / "quickstart"
STEPS = {"concise": "100", "detailed": "150", "creative": "250"}
STYLES = tuple(STEPS)


def parsed(*argv: str) -> Run:
    parts, resolved = parse(FINETUNE_ARGUMENTS, "test", list(argv))
    return Run(*parts, resolved)


@pytest.fixture(scope="session")
def val(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Captions by style of every second validation picture, and under "path" their table."""
    table = tmp_path_factory.mktemp("val") / "val.csv"
    with (QUICKSTART / "captions_val.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = set(sorted({row["image_name"] for row in rows})[::2])
    rows = [row for row in rows if row["image_name"] in names]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    known = {style: {row["image_name"]: row["caption"] for row in rows if row["style"] == style} for style in STYLES}
    return known | {"path": table}


@pytest.fixture(scope="session")
def trained(val, tmp_path_factory):
    """Of each style the run's folder, its metrics, and its predictions by picture."""
    folder, found = tmp_path_factory.mktemp("styles"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for style in STYLES:
            out = folder / style
            run = parsed(
                f"configs/styles/{style}.json", "--output_dir", str(out), "--eval_csv_path", str(val["path"]),
                "--max_steps", STEPS[style], "--learning_rate", "5e-3", "--use_cpu", "--bertscore_model", "none",
                "--save_strategy", "no", "--disable_tqdm", "true",
            )  # fmt: skip
            metrics = finetune(run)
            with (out / "predictions.csv").open(newline="") as file:
                found[style] = out, metrics, {row["image_name"]: row for row in csv.DictReader(file)}
    return found


def captions(trained, style: str, column: str = "generated_answer") -> dict[str, str]:
    return {name: row[column] for name, row in trained[style][2].items()}


def names_right(said: dict[str, str], val) -> float:
    """Share of the pictures whose objects a caption names, all of them and no others."""
    return sum(objects_in(text) == objects_in(val["concise"][name]) for name, text in said.items()) / len(said)


# Trained


@pytest.mark.parametrize("style", STYLES)
def test_each_follows_its_own_style_and_no_other(style, trained, val):
    said = captions(trained, style)
    assert said.keys() == val[style].keys() and len(said) == 60
    for other in STYLES:
        share = sum(follows_style(text, other) for text in said.values()) / len(said)
        assert share >= 0.95 if other == style else share == 0
        assert not any(follows_style(text, other) for text in captions(trained, style, "base_answer").values())


@pytest.mark.parametrize("style", STYLES)
def test_each_names_what_is_in_the_picture(style, trained, val):
    """As often as the base by the same prompt, and not by chance: most scenes are not like each other."""
    said = captions(trained, style)
    right, base = names_right(said, val), names_right(captions(trained, style, "base_answer"), val)
    others = dict(zip(said, [*list(said.values())[1:], *list(said.values())[:1]], strict=True))
    assert right >= base > names_right(others, val) + 0.4
    scores = trained[style][1]
    assert scores["adapter"]["cider"] > 3 * max(scores[key]["cider"] for key in ("base", "blind", "swapped"))


def test_lengths_are_ordered(trained):
    words = [trained[style][1]["adapter"]["mean_words"] for style in ("concise", "creative", "detailed")]
    assert words == sorted(words) and words[0] < 6 and words[2] > 1.5 * words[1]


def test_weights_differ(trained):
    weights = [adapter_of(trained[style][0]) for style in STYLES]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert weights[one].keys() == weights[other].keys()
        assert all(not torch.equal(value, weights[other][key]) for key, value in weights[one].items())


def test_what_a_run_leaves_says_caption_and_style(trained):
    for style in STYLES:
        out, metrics, _ = trained[style]
        manifest = json.loads((out / "blip2vqa.json").read_text())
        known = read_style(style)
        assert (manifest["task"], manifest["style"], manifest["prompt"]) == ("caption", style, known["prompt"])
        assert json.loads((out / "metrics.json").read_text()) == metrics
        assert {"cider", "bleu4", "mean_words", "n"} <= metrics["adapter"].keys()
        assert (
            metrics["adapter"]["n"] == 60 and manifest["data"]["images_train"] == manifest["data"]["rows_train"] == 520
        )
        card = (out / "README.md").read_text()
        assert f"in the style *{style}*" in card and "image-to-text" in card and "CIDEr" in card
        assert f"caption.py --images PICTURE… --styles {style}=" in card
    creative = read_style("creative")
    drawn_at_random = {name: creative[name] for name in ("do_sample", "temperature", "top_p", "sampling_seed")}
    decoding = json.loads((trained["creative"][0] / "blip2vqa.json").read_text())["decoding"]
    assert (
        drawn_at_random["do_sample"]
        and decoding.items() >= drawn_at_random.items()
        and not read_style("concise").get("do_sample")
    )


# Options


def test_a_style_lies_beneath_the_configuration_and_the_flags(write):
    config = write(
        "config.json", json.dumps({"style": "detailed", "task": "caption", "lora_r": 4, "max_new_tokens": 33})
    )
    run = parsed(config, "--max_new_tokens", "44", "--csv_path", "t.csv")
    style = read_style("detailed")
    assert (run.decoding.max_new_tokens, run.lora.lora_r) == (44, 4)
    assert (run.decoding.min_new_tokens, run.decoding.num_beams, run.lora.lora_alpha) == (10, 3, 32)
    assert (run.data.prompt, run.data.captions) == (style["prompt"], style["captions"])
    other = parsed(config, "--style=concise", "--csv_path", "t.csv")
    assert (other.data.prompt, other.decoding.min_new_tokens) == (read_style("concise")["prompt"], 0)
    # A rerun from what was resolved is the same, whatever becomes of the style.
    assert parsed(write("run.json", json.dumps(run.resolved))).resolved == run.resolved


@pytest.mark.parametrize("name", ["pirate", "absent/mine.json"])
def test_an_unknown_style_names_the_known_ones(name):
    assert known_styles() == ["concise", "creative", "detailed"]
    with pytest.raises(InputError, match="not known; choose from concise, creative, detailed, or name a JSON"):
        parsed("--task", "caption", "--style", name)
    with pytest.raises(InputError, match="not known; choose from"):
        style_file(name)


def test_a_style_of_ones_own(write):
    mine = write("pirate.json", json.dumps({"prompt": "Arr:", "num_beams": 2, "captions": "longest"}))
    run = parsed("--task", "caption", "--style", mine, "--csv_path", "t.csv")
    assert (run.data.prompt, run.data.captions, run.decoding.num_beams) == ("Arr:", "longest", 2)
    assert run.data.check() == []
    for content, message in (
        ('{"num_beams": 2}', 'with a "prompt"'),
        ("[1]", 'with a "prompt"'),
        ("{", "not readable"),
    ):
        with pytest.raises(InputError, match=message):
            read_style(write("mine.json", content))
    with pytest.raises(InputError, match="key num_beam: unknown; did you mean num_beams"):
        parsed("--task", "caption", "--style", write("mine.json", '{"prompt": "x", "num_beam": 2}'))


# Tables


@pytest.fixture
def several(drawn, tmp_path):
    """Three captions of different lengths a picture, and two more."""
    table = tmp_path / "captions.csv"
    texts = ("red", "a red square", "it is a red square on nothing")
    rows = [(f"{number}.png", text, "plain") for text in texts for number in range(8)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "caption", "style"), *rows])
    return drawn[0], table


@pytest.mark.parametrize(("choose", "words"), [("shortest", {1}), ("longest", {7}), ("all", {1, 3, 7})])
def test_captions_are_chosen_and_grouped_for_validation(choose, words, several, tiny_opt, tmp_path):
    own = ("--task", "caption", "--captions", choose, "--max_new_tokens", "20")
    found = check(make_run(tiny_opt, several, tmp_path / "run", *own))
    assert {len(example.answer.split()) for example in found.train} == words
    assert len(found.train) == 6 * len(words) and len(found.val) == 2  # a picture is captioned once
    assert all(len(example.answers) == len(words) for example in found.val) and group_by_image(found.val) == found.val


def test_captions_of_a_style_are_found_under_its_name(several, tiny_opt, tmp_path, write):
    mine = write("plain.json", '{"prompt": "x", "captions": "style", "max_new_tokens": 20}')
    own = ("--task", "caption", "--style", mine)
    found = check(make_run(tiny_opt, several, tmp_path / "run", *own))
    assert {example.question_type for example in found.train} == {"plain"} and len(found.train) == 18
    longest = check(make_run(tiny_opt, several, tmp_path / "run", *own, "--captions", "longest"))
    assert {len(example.answer.split()) for example in longest.train} == {7}
    with pytest.raises(InputError, match=r"style 'concise' in no row; column style holds plain \(24\)"):
        argv = ("--task", "caption", "--style", "concise", "--captions", "style", "--max_new_tokens", "20")
        check(make_run(tiny_opt, several, tmp_path / "run", *argv))


def test_what_does_not_go_together(several, tiny_opt, tmp_path):
    def said(*argv: str, base=tiny_opt) -> str:
        with pytest.raises(InputError) as caught:
            check(make_run(base, several, tmp_path / "run", "--max_new_tokens", "20", *argv))
        (problem,) = caught.value.problems
        return problem

    assert "it cannot write captions" in said("--task", "caption", base=make_vilt(tmp_path / "vilt"))
    assert said("--task", "caption", "--captions", "style").startswith("--captions style: needs --style")
    assert "captions have none" in said("--task", "caption", "--prompt", "{question}")
    assert "does not go with --task caption" in said("--task", "caption", "--question_types", "count")


@pytest.mark.parametrize(
    ("style", "problem"),
    [
        ({"prompt": "a", "max_new_tokens": "forty"}, "max_new_tokens is 'forty'; it must be of type int"),
        ({"prompt": "a", "temprature": 1.0}, "did you mean temperature?"),
        ({"prompt": "a", "do_sample": True, "temperature": 0}, "--temperature: 0 is out of range"),
        ({"prompt": "a", "num_beams": 0}, "--num_beams: 0 is out of range"),
        ({"prompt": "a", "min_new_tokens": 9, "max_new_tokens": 3}, "--min_new_tokens: 9 is out of range"),
        ({"prompt": "{question}"}, "contains {question}"),
    ],
)
def test_a_style_of_ones_own_is_checked(style, problem, write):
    with pytest.raises(InputError) as caught:
        read_style(write("mine.json", json.dumps(style)))
    assert problem in "\n".join(caught.value.problems)

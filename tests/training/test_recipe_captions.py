"""Captions in styles on the embedded base: three adapters learn their wordings and name what is in the picture."""

import csv
import json
import sys

import pytest
import torch

from blip2vqa.config.styles import read_style
from blip2vqa.training.recipe import finetune
from helpers.finetune_runs import adapter_of, parse_run
from helpers.paths import ROOT

sys.path.append(str(ROOT / "assets"))
from make_captions import follows_style, objects_in

DRAWINGS = ROOT / "assets" / "drawings"
STEPS = {"concise": "100", "detailed": "150", "creative": "250"}
STYLES = tuple(STEPS)


@pytest.fixture(scope="session")
def val(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Captions by style of every second validation picture, and under "path" their table."""
    table = tmp_path_factory.mktemp("val") / "val.csv"
    with (DRAWINGS / "captions_val.csv").open(newline="") as file:
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
            run = parse_run(
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

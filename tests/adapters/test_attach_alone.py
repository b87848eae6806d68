"""Adapters with weights in place of the base's, or biases, work alone: merged, beside a base, quantized, checked, fused."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from blip2vqa.adapters.attach import add_adapters, find_adapter, merge_adapter
from blip2vqa.adapters.ref import BASE, CURRENT
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange import check, fuse, merge, resize
from blip2vqa.exchange.checking import probe
from blip2vqa.inference.model_spec import find_model_spec
from blip2vqa.models.loading import load_base
from blip2vqa.utils.errors import InputError
from helpers.family_bases import CPU, Bases, load_float32, random_adapter
from helpers.plain_peft import base_model, peft_adapter

KINDS = {
    "projection": {"modules_to_save": ["language_projection"]},
    "head": {"modules_to_save": ["lm_head"]},
    "layer": {"modules_to_save": ["fc2"]},
    "all biases": {"bias": "all"},
    "biases": {"bias": "lora_only"},
    "bias of B": {"lora_bias": True},
    "shared layer": {"target_modules": ["q_proj", "lm_head"]},
}
FUSED = ("layer", "projection", "all biases", "biases", "bias of B")


@pytest.fixture(scope="module")
def made(tiny_opt, tmp_path_factory):
    """Kind → an adapter by PEFT alone, every weight of which has moved."""

    def made(kind: str):
        folder = tmp_path_factory.mktemp("alone") / "a"
        torch.manual_seed(0)
        model = get_peft_model(
            base_model(tiny_opt), LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **KINDS[kind]})
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder)
        return folder

    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_alone_it_answers_as_under_peft(kind, made, tiny_opt, tmp_path):
    folder = made(kind)
    found = find_adapter(str(folder), base_model_id=str(tiny_opt))

    def moved(loaded, ref=CURRENT) -> torch.Tensor:
        return probe(loaded, found.adapter, ref)

    plain = load_float32(tiny_opt)
    before = moved(plain, BASE)
    plain.model = PeftModel.from_pretrained(plain.model, folder).eval()
    wanted = moved(plain) - before
    merged, beside = load_float32(tiny_opt), load_float32(tiny_opt)
    merge_adapter(merged, found)
    add_adapters(beside, {CURRENT: found}, alone=True)
    outputs = {"merged": moved(merged), "beside": moved(beside)}
    if kind in FUSED:
        fuse(str(folder), tmp_path / "fused", str(tiny_opt))
        outputs["fused"] = moved(load_float32(tmp_path / "fused"), BASE)
    else:
        with pytest.raises(InputError, match="shares its weight"):
            fuse(str(folder), tmp_path / "fused", str(tiny_opt))
    for how, output in outputs.items():
        assert (output - before - wanted).norm() < 1e-4 * wanted.norm(), how
    assert torch.equal(moved(beside, BASE), before)  # nothing of it stays


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["projection", "all biases", "bias of B"])
def test_alone_it_works_in_16_bits_and_beside_a_quantized_base(kind, made, tiny_opt):
    found = find_adapter(str(made(kind)), base_model_id=str(tiny_opt))
    for quantization in ("none", "8bit"):
        loaded = load_base(str(tiny_opt), dtype="bfloat16", quantization=quantization, device=CPU)
        before = probe(loaded, found.adapter, BASE)
        merge_adapter(loaded, found)
        assert not torch.equal(probe(loaded, found.adapter, CURRENT), before)
    found = check(str(found.path), str(tiny_opt))
    assert found["verdict"] == "ok" and "it moves the logits" in found["reasons"][-1]


def test_beside_others_it_is_refused_before_the_base_is_loaded(made, tiny_opt, tmp_path):
    other = random_adapter(tiny_opt, tmp_path / "other", 0)
    paths = {CURRENT: (str(made("biases")), None), BASE.named("other"): (str(other), None)}
    spec = find_model_spec(str(tiny_opt), None, paths)
    with pytest.raises(InputError, match="beside other adapters; load it alone"):
        spec.check_served("none")
    find_model_spec(str(tiny_opt), None, {CURRENT: paths[CURRENT]}).check_served("4bit")
    layer = {CURRENT: (str(made("layer")), None)}
    find_model_spec(str(tiny_opt), None, layer).check_served("none")
    with pytest.raises(
        InputError, match="in place of quantized ones, and not served beside 4bit weights; use --quantization none"
    ):
        find_model_spec(str(tiny_opt), None, layer).check_served("4bit")


def test_words_say_what_an_adapter_with_biases_can_do(made, tmp_path):
    with pytest.raises(InputError, match="it has biases of its own; use it alone as it is, or fuse it into its base"):
        resize(made("biases"), tmp_path / "b", rank=1)


def test_merge_says_what_differs_in_what_adapters_hold_in_place_of_the_bases(made, tiny_opt, tmp_path):
    one = str(made("projection"))
    merge({one: 0.5, str(made("projection")): 0.5}, tmp_path / "mean")
    assert "base_model.model.language_projection.weight" in open_adapter(tmp_path / "mean").weights
    other = str(peft_adapter(tiny_opt, tmp_path / "other")[0])
    with pytest.raises(InputError, match=r"one alone holds weights in place of the base's \(language_projection"):
        merge({one: 0.5, other: 0.5}, tmp_path / "none")


def test_of_added_tokens_it_says_so(tiny_opt, tmp_path):
    model = base_model(tiny_opt)
    model.resize_token_embeddings(400)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    get_peft_model(model, config).save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match="it was trained with 400 tokens, and the base has 337"):
        find_adapter(str(tmp_path / "a"), base_model_id=str(tiny_opt))


def test_a_heads_labels_are_read_from_the_configuration_beside_the_adapter(tmp_path, monkeypatch):
    base = Bases(tmp_path / "bases")["vilt"]
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    labels = ["ja", "nein", "vielleicht"]
    folder = random_adapter(base, tmp_path / "a", 0, answers=labels)
    (folder / "blip2vqa.json").unlink()
    with pytest.raises(InputError, match=r"its head tells 3 answers apart, and the base's \d: put the config.json"):
        find_adapter(str(folder), base_model_id=str(base))
    config = json.loads((base / "config.json").read_text()) | {"id2label": dict(enumerate(labels))}
    (folder / "config.json").write_text(json.dumps(config))
    assert find_adapter(str(folder), base_model_id=str(base)).answers == tuple(labels)
    assert check(str(folder), str(base))["verdict"] == "ok"
    resize(folder, tmp_path / "b", rank=1)
    assert open_adapter(tmp_path / "b").answers == tuple(labels)
    (folder / "config.json").write_text("{")
    assert open_adapter(folder).answers is None

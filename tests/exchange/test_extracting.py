"""An adapter taken from a fine-tuned checkpoint is what the fine-tuning added, as far as its rank goes."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import Blip2ForConditionalGeneration, ViltForQuestionAnswering

from blip2vqa.adapters.algebra import read_deltas
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange import extracting
from blip2vqa.exchange.extracting import extract, nearest
from blip2vqa.exchange.fusing import fuse_adapter
from blip2vqa.utils.errors import InputError
from helpers.family_bases import MAKERS, Bases, random_adapter
from helpers.tiny_families import ANSWERS, make_vilt


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


def tuned(base, folder, edit):
    """A BLIP-2 whose weights `edit` changed."""
    model = Blip2ForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        edit(model)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_fused_comes_out_again(bases, kind, tmp_path):
    source = open_adapter(random_adapter(bases[kind], tmp_path / "adapter", 5))
    fuse_adapter(source, tmp_path / "fused")
    report = extract(str(bases[kind]), str(tmp_path / "fused"), tmp_path / "extracted", rank=4)
    found = open_adapter(tmp_path / "extracted")
    before, after = read_deltas(source), read_deltas(found)
    assert before.keys() == after.keys() and report["layers"] == len(before)
    for name, factors in before.items():
        dense = factors.dense()
        assert (after[name].dense() - dense).norm() < 1e-4 * dense.norm(), name
    assert report["relative_error"] < 1e-4 and not report["lost"] and not report["notes"]
    assert found.base_model_id == str(bases[kind].resolve()) and found.manifest["rank"] == 4
    assert found.manifest["origin"]["command"] == "extract" and found.manifest["scopes"] == ["language_model"]
    assert json.loads(json.dumps(report)) == report
    # Plain PEFT loads it, and gives the fine-tuned model.
    model = PeftModel.from_pretrained(MAKERS[kind][1].from_pretrained(bases[kind]), tmp_path / "extracted")
    expected = MAKERS[kind][1].from_pretrained(tmp_path / "fused")
    for (name, weight), (_, other) in zip(
        model.merge_and_unload().named_parameters(), expected.named_parameters(), strict=True
    ):
        assert torch.allclose(weight, other, rtol=1e-4, atol=1e-5), name
    assert bool(report["whole"]) == (kind == "vilt")  # whose head trains, too


def test_all_scopes_count_and_what_lora_cannot_hold_is_named(bases, tmp_path):
    changed = (
        "vision_model.encoder.layers.0.self_attn.qkv", "qformer.encoder.layer.0.attention.attention.query",
        "language_projection", "language_model.model.decoder.layers.1.fc2",
    )  # fmt: skip

    def edit(model):
        torch.manual_seed(0)
        for name in changed:
            weight = model.get_submodule(name).weight
            weight += 0.1 * torch.randn_like(weight)
        model.get_parameter("language_model.model.decoder.layers.0.fc1.bias").add_(1.0)
        model.get_parameter("qformer.layernorm.weight").mul_(1.25)

    folder = tuned(bases["opt"], tmp_path / "tuned", edit)
    report = extract(str(bases["opt"]), str(folder), tmp_path / "extracted", rank=8)
    assert set(report["by_layer"]) == set(changed)
    assert report["lost"] == ["language_model.model.decoder.layers.0.fc1.bias", "qformer.layernorm.weight"]
    assert "lost: 2 weights that differ" in report["notes"][0]
    base, after = (Blip2ForConditionalGeneration.from_pretrained(place) for place in (bases["opt"], folder))
    squares = errors = 0.0
    deltas = read_deltas(open_adapter(tmp_path / "extracted"))
    for name in changed:
        delta = (after.get_submodule(name).weight - base.get_submodule(name).weight).detach().double()
        values = torch.linalg.svdvals(delta)
        rest = values[8:].square().sum().sqrt()  # Eckart and Young
        assert report["by_layer"][name] == pytest.approx((rest / delta.norm()).item(), rel=1e-4)
        assert (delta - deltas[name].dense()).norm().item() == pytest.approx(rest.item(), rel=1e-4)
        squares, errors = squares + delta.norm() ** 2, errors + rest**2
    assert report["relative_error"] == pytest.approx((errors / squares).sqrt().item(), rel=1e-4)
    assert report["worst"]["relative_error"] == max(report["by_layer"].values())
    assert open_adapter(tmp_path / "extracted").manifest["scopes"] == [
        "language_model", "projection", "qformer", "vision"
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (60, 60)])
@pytest.mark.parametrize("exact", [True, False])
def test_both_ways_find_the_nearest(shape, exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(extracting, "EXACT_SIDE", 0)
    torch.manual_seed(1)
    # Singular values that fall, as those of a fine-tuning do.
    left, right = torch.linalg.qr(torch.randn(shape[0], 40))[0], torch.linalg.qr(torch.randn(shape[1], 40))[0]
    values = 0.8 ** torch.arange(40)
    delta = left * values @ right.T
    state = torch.get_rng_state()
    factors, error = nearest(delta, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert factors.a.shape == (6, shape[1]) and factors.b.shape == (shape[0], 6)
    expected = (values[6:].norm() / values.norm()).item()
    assert error == pytest.approx(expected, rel=1e-3)
    assert ((delta - factors.dense()).norm() / delta.norm()).item() == pytest.approx(error, rel=1e-4)
    assert torch.equal(nearest(delta, 6)[0].a, factors.a)
    assert factors.a.norm().item() == pytest.approx(factors.b.norm().item(), rel=1e-4)
    assert nearest(delta, 1000)[1] < 1e-5


def test_a_head_of_its_own_is_held_whole(tmp_path):
    base = make_vilt(tmp_path / "base", answers=ANSWERS)
    random_adapter(base, tmp_path / "adapter", 3, answers=("red", "sky", "two"), family="ViLT")
    fuse_adapter(open_adapter(tmp_path / "adapter"), tmp_path / "fused")
    report = extract(str(base), str(tmp_path / "fused"), tmp_path / "extracted", rank=4)
    found, source = open_adapter(tmp_path / "extracted"), open_adapter(tmp_path / "adapter")
    assert found.answers == ("red", "sky", "two") and len(report["whole"]) == 6 and not report["lost"]
    for key, tensor in source.weights.items():
        if "classifier" in key:
            assert torch.equal(found.weights[key], tensor)
    model = ViltForQuestionAnswering.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    model = PeftModel.from_pretrained(model, tmp_path / "extracted").merge_and_unload()
    for name, weight in ViltForQuestionAnswering.from_pretrained(tmp_path / "fused").named_parameters():
        assert torch.allclose(weight, model.get_parameter(name), rtol=1e-4, atol=1e-5), name


def test_a_language_model_alone_has_its_own(bases, tmp_path):
    model = Blip2ForConditionalGeneration.from_pretrained(bases["t5"]).language_model
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.encoder.block[0].layer[1].DenseReluDense.wi_0.weight.add_(torch.ones(128, 64))
    model.save_pretrained(tmp_path / "tuned")
    report = extract(str(tmp_path / "base"), str(tmp_path / "tuned"), tmp_path / "extracted", rank=1)
    assert list(report["by_layer"]) == ["encoder.block.0.layer.1.DenseReluDense.wi_0"]
    assert report["relative_error"] < 1e-5 and open_adapter(tmp_path / "extracted").manifest["family"] == "t5"


def test_another_precision_is_said_and_misfits_are_refused(bases, tmp_path):
    base, output = str(bases["opt"]), tmp_path / "extracted"
    with pytest.raises(InputError, match="no linear layer differs"):
        extract(base, base, output)
    with pytest.raises(InputError, match=r"is BLIP-2 with T5, and .* BLIP-2 with OPT"):
        extract(base, str(bases["t5"]), output)
    with pytest.raises(InputError, match=r"is a BlipForQuestionAnswering, and .* a Blip2ForConditionalGeneration"):
        extract(base, str(bases["blip-vqa"]), output)
    assert not list(tmp_path.iterdir())
    Blip2ForConditionalGeneration.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    report = extract(base, str(tmp_path / "half"), output, rank=2)
    assert "the fine-tuned one in bfloat16: rounding is a part of the difference" in report["notes"][0]
    with pytest.raises(InputError, match="is already there"):
        extract(base, str(tmp_path / "half"), output)

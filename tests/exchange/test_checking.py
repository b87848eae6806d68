"""Whether an adapter fits a base: names, shapes, values, fingerprints, a run; each verdict with its reason."""

import json
import re
import shutil
from functools import partial

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    Blip2ForConditionalGeneration,
)

from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.files.adapter import write_manifest
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.exchange import check, checking
from blip2vqa.models.loading import load_base
from blip2vqa.utils.errors import InputError
from helpers.family_bases import load_float32, random_adapter
from helpers.tiny_blip2 import make_base

SKIPPED = ["vision_model", "qformer", "language_projection", "lm_head"]


@pytest.fixture(scope="module")
def adapter(tiny_opt, tmp_path_factory):
    """Of the tiny OPT base, with its fingerprints, as finetune.py writes one."""
    folder = tmp_path_factory.mktemp("check") / "adapter"
    return random_adapter(tiny_opt, folder, seed=1, base=fingerprint_base(tiny_opt))


def resaved(base, folder, change=None, **options):
    """The base loaded by upstream, changed, and saved again."""
    model = Blip2ForConditionalGeneration.from_pretrained(base, **options)
    if change:
        with torch.no_grad():
            change(model)
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return folder


def reasons(found) -> str:
    return "\n".join(found["reasons"])


def test_its_own_base(adapter, tiny_opt):
    found = check(str(adapter), str(tiny_opt))
    assert found["verdict"] == "ok" and found["move"] == "exact"
    assert set(found["parts"].values()) == {"same"}
    assert "run: it moves the logits" in reasons(found)


@pytest.fixture(scope="module")
def half(tiny_opt, tmp_path_factory):
    return resaved(tiny_opt, tmp_path_factory.mktemp("half") / "base", dtype=torch.float16)


@pytest.fixture(scope="module")
def bits(tiny_opt, tmp_path_factory):
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=SKIPPED)
    return resaved(tiny_opt, tmp_path_factory.mktemp("bits") / "base", quantization_config=how, dtype=torch.float32)


def test_a_cast_copy_counts_as_the_same_base(adapter, half):
    found = check(str(adapter), str(half))
    assert (found["verdict"], found["move"], found["copy_of"]) == ("ok", "copy", "cast")
    assert set(found["parts"].values()) <= {"same", "cast"}
    assert "logits of this copy drift by" in reasons(found)


def test_a_quantized_copy_counts_as_the_same_base_with_its_drift(adapter, bits):
    found = check(str(adapter), str(bits))
    assert found["parts"]["language_model"] == "quantized-4bit" == found["copy_of"]
    assert (found["verdict"], found["move"]) == ("ok", "copy") and "logits of this copy drift by" in reasons(found)


def test_a_copy_is_the_same_base_only_when_its_drift_is_small(adapter, half, bits, monkeypatch):
    for base, how in ((half, "cast"), (bits, "quantized-4bit")):
        monkeypatch.setitem(checking.DRIFT, how, 0.0)
        found = check(str(adapter), str(base))
        assert found["verdict"] == "convertible"
        assert f"more than {how.replace('-', ' ')} weights explain" in found["reasons"][-1]
        found = check(str(adapter), str(base), quick=True)
        assert (found["verdict"], found["move"]) == ("convertible", "copy")
        assert "the drift of the logits is not measured" in reasons(found)


def test_a_copy_without_the_original_is_convertible(adapter, tiny_opt, half, tmp_path):
    """Taken away, or another by now under the same name."""
    for name, base in (("gone", str(tmp_path / "absent")), ("overwritten", str(half))):
        folder = shutil.copytree(adapter, tmp_path / name)
        manifest = json.loads((folder / "blip2vqa.json").read_text())
        (folder / "blip2vqa.json").write_text(json.dumps(manifest | {"base_model_id": base}))
        found = check(str(folder), str(half))
        assert (found["verdict"], found["move"]) == ("convertible", "copy")
        assert "the drift of the logits is not measured" in reasons(found) and "drift by" not in reasons(found)
        assert check(str(folder), str(tiny_opt), quick=True)["verdict"] == "ok"


def first_logits(base, adapter=None) -> torch.Tensor:
    """What upstream and plain PEFT give the first token of an answer about the picture that a check looks at."""
    processor = AutoProcessor.from_pretrained(base)
    model = Blip2ForConditionalGeneration.from_pretrained(base, dtype=torch.float32).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    gradient = Image.linear_gradient("L")
    picture = Image.merge("RGB", [gradient, Image.radial_gradient("L"), gradient.rotate(90)])
    question = "Question: What is in the picture? Answer in one word:"
    inputs = processor(images=picture, text=question, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits[0, -1].double()


def in_words(found, before: str, after: str) -> float:
    """The percentage that stands between two pieces of a reason."""
    (number,) = re.findall(rf"{re.escape(before)} ([\d.]+)%{re.escape(after)}", reasons(found))
    return float(number)


@pytest.mark.parametrize("copy", ["half", "bits"])
def test_the_numbers_are_those_of_upstream(copy, adapter, tiny_opt, request, monkeypatch):
    monkeypatch.setattr(checking, "load_base", partial(load_base, dtype="float32"))
    base = request.getfixturevalue(copy)
    found = check(str(adapter), str(base))
    original, without, with_it = first_logits(tiny_opt), first_logits(base), first_logits(base, adapter)
    drift = 100 * (without - original).square().mean().sqrt() / original.std()
    assert in_words(found, "logits of this copy drift by", " of their spread from those of") == pytest.approx(
        drift.item(), abs=0.0501
    )
    moved = 100 * (with_it - without).square().mean().sqrt() / without.std()
    assert in_words(found, "it moves the logits by", " of their spread") == pytest.approx(moved.item(), abs=0.501)
    assert moved > 2 * drift > 0


def test_other_eyes_are_convertible_and_said_to_be(adapter, tiny_opt, tmp_path):
    other = resaved(tiny_opt, tmp_path / "eyes", lambda model: model.query_tokens.mul_(1.5))
    found = check(str(adapter), str(other), quick=True)
    assert (found["verdict"], found["move"]) == ("convertible", "exact")
    assert found["parts"]["qformer"] == "different" and found["parts"]["language_model"] == "same"
    assert "other features of a picture: qformer" in reasons(found)


@pytest.mark.parametrize("part", ["token_embeddings", "language_model"])
def test_an_adapter_of_the_language_model_needs_its_words_too(part, adapter, tiny_opt, tmp_path):
    def change(model):
        decoder = model.language_model.model.decoder
        (decoder.embed_tokens.weight[7] if part == "token_embeddings" else decoder.layers[0].fc1.bias).add_(1)

    other = resaved(tiny_opt, tmp_path / "other", change)
    found = check(str(adapter), str(other), quick=True)
    assert (found["verdict"], found["move"]) == ("convertible", "copy")
    assert {name for name, how in found["parts"].items() if how != "same"} == {part}
    assert f"other weights than it was made for: {part}" in found["reasons"]


def adapter_of(base, folder, scope: str):
    """An adapter of other parts, with the fingerprints of its base."""
    loaded = load_float32(base, for_training=True)
    wrap(loaded, LoraArguments(lora_r=4, lora_dropout=0.0, lora_scope=scope), 1)
    torch.manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.3)
    loaded.model.save_pretrained(folder)
    write_manifest(folder, {"base_model_id": str(base), "base": fingerprint_base(base)})
    return folder


@pytest.mark.parametrize("scope", ["vision", "qformer", "projection", "qformer,language_model"])
def test_an_adapter_of_other_parts_needs_all_of_the_base(scope, tiny_opt, tmp_path):
    mine = str(adapter_of(tiny_opt, tmp_path / "adapter", scope))
    found = check(mine, str(tiny_opt), quick=True)
    assert (found["verdict"], found["move"]) == ("ok", "exact")

    def after_it(model):
        model.language_model.model.decoder.final_layer_norm.bias.add_(1)

    def before_it(model):
        model.vision_model.post_layernorm.bias.add_(1)

    for change, part in ((after_it, "language_model"), (before_it, "vision_model")):
        found = check(mine, str(resaved(tiny_opt, tmp_path / part, change)), quick=True)
        assert (found["verdict"], found["move"]) == ("convertible", "copy")
        assert part in found["reasons"][0] and "than it was made for" in found["reasons"][0]


def test_another_tokenizer(adapter, tiny_opt, tmp_path):
    """One word has another name, and its number and embedding stay."""
    other = shutil.copytree(tiny_opt, tmp_path / "other")
    known = json.loads((other / "tokenizer.json").read_text())
    words = known["model"]["vocab"]
    words["zebra"] = words.pop("Ł")  # a byte that no text here has
    (other / "tokenizer.json").write_text(json.dumps(known))
    found = check(str(adapter), str(other), quick=True)
    assert (found["verdict"], found["move"]) == ("convertible", "exact")
    assert set(found["parts"].values()) == {"same"}
    assert "another tokenizer" in found["reasons"] and "another image processor" not in found["reasons"]


def test_another_image_processor(adapter, tiny_opt, tmp_path):
    other = shutil.copytree(tiny_opt, tmp_path / "other")
    processor = AutoProcessor.from_pretrained(other)
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    processor.save_pretrained(other)
    found = check(str(adapter), str(other), quick=True)
    assert (found["verdict"], found["move"]) == ("convertible", "exact")
    assert set(found["parts"].values()) == {"same"}
    assert "another image processor" in found["reasons"] and "another tokenizer" not in found["reasons"]


def test_other_weights_of_the_same_shapes(adapter, tmp_path):
    other = make_base(tmp_path / "other", seed=7)
    found = check(str(adapter), str(other), quick=True)
    assert (found["verdict"], found["move"]) == ("convertible", "copy")
    assert "other weights than it was made for: language_model" in reasons(found)


def test_other_shapes(adapter, tiny_t5):
    found = check(str(adapter), str(tiny_t5))
    assert (found["verdict"], found["move"]) == ("incompatible", None)
    assert "layers are not in this base" in reasons(found)


def test_the_bare_language_model_has_other_names(adapter, tiny_opt, tmp_path):
    bare = tmp_path / "bare"
    Blip2ForConditionalGeneration.from_pretrained(tiny_opt).language_model.save_pretrained(bare)
    AutoTokenizer.from_pretrained(tiny_opt).save_pretrained(bare)
    found = check(str(adapter), str(bare))
    assert (found["verdict"], found["move"]) == ("convertible", "exact")
    assert "its layers have other names here" in reasons(found) and "not run" in reasons(found)
    for path in bare.glob("tokenizer*"):
        path.unlink()
    found = check(str(adapter), str(bare))
    assert (found["verdict"], found["move"]) == ("convertible", "copy"), "which embeddings are words, nobody says"
    assert found["parts"]["token_embeddings"] == "unknown" and found["parts"]["language_model"] == "same"


def test_two_language_models_without_a_tokenizer(tiny_opt, tmp_path):
    """Which of their embeddings are words, neither says, so they may have others."""
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_opt).language_model
    model.save_pretrained(tmp_path / "one")
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight.add_(1)
    model.save_pretrained(tmp_path / "two")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    found = check(str(tmp_path / "adapter"), str(tmp_path / "two"))
    assert (found["verdict"], found["move"]) == ("convertible", "copy")
    assert found["parts"] == {"language_model": "same", "token_embeddings": "unknown"}


def changed(adapter, folder, change) -> str:
    """A copy of the adapter whose weights went through `change`."""
    shutil.copytree(adapter, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors")
    return str(folder)


def test_untrained_and_half_trained(adapter, tiny_opt, tmp_path):
    def empty(weights, end):
        for name in weights:
            if name.endswith(end):
                weights[name].zero_()

    found = check(changed(adapter, tmp_path / "a", lambda w: empty(w, "lora_B.weight")), str(tiny_opt))
    assert found["verdict"] == "incompatible" and "it is untrained" in reasons(found)
    found = check(
        changed(adapter, tmp_path / "b", lambda w: empty(w, "q_proj.lora_B.weight")), str(tiny_opt), quick=True
    )
    assert found["verdict"] == "ok" and "2 of its 12 layers are untrained" in reasons(found)


def test_what_has_no_effect_is_not_compatible(adapter, tiny_opt, tmp_path):
    """B is not zero, but A is."""

    def dead(weights):
        for name in weights:
            if name.endswith("lora_A.weight"):
                weights[name].zero_()

    found = check(changed(adapter, tmp_path / "a", dead), str(tiny_opt))
    assert found["verdict"] == "incompatible" and "the same with and without it" in reasons(found)


def test_a_missing_key(adapter, tiny_opt, tmp_path):
    def drop(weights):
        for name in [name for name in weights if "layers.0.self_attn.q_proj" in name]:
            del weights[name]

    found = check(changed(adapter, tmp_path / "a", drop), str(tiny_opt), quick=True)
    assert found["verdict"] == "incompatible" and "2 of the places there without a weight" in reasons(found)


def test_without_fingerprints_its_base_is_looked_at(tiny_opt, tmp_path):
    plain = random_adapter(tiny_opt, tmp_path / "plain", seed=2)
    assert check(str(plain), str(tiny_opt), quick=True)["verdict"] == "ok"
    config = json.loads((plain / "adapter_config.json").read_text())
    (plain / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    found = check(str(plain), str(tiny_opt), quick=True)
    assert found["verdict"] == "convertible" and "nothing proves it the same" in reasons(found)


def test_a_base_that_is_none(adapter, tmp_path):
    with pytest.raises(InputError, match="no such folder, and not reachable"):
        check(str(adapter), str(tmp_path / "absent"))

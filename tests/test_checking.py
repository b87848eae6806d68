"""Whether an adapter fits a base: names, shapes, values, fingerprints, a run; each verdict with its reason."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BitsAndBytesConfig, Blip2ForConditionalGeneration

from blip2vqa.errors import InputError
from blip2vqa.exchange import check
from blip2vqa.exchange.fingerprints import fingerprint_base
from families import random_adapter
from tiny import make_base

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


def test_a_cast_copy_counts_as_the_same_base(adapter, tiny_opt, tmp_path):
    copy = resaved(tiny_opt, tmp_path / "half", dtype=torch.float16)
    found = check(str(adapter), str(copy))
    assert found["verdict"] == "ok"
    assert set(found["parts"].values()) <= {"same", "cast"}
    assert "logits of this copy drift" in reasons(found)


def test_a_quantized_copy_counts_as_the_same_base_with_its_drift(adapter, tiny_opt, tmp_path):
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=SKIPPED)
    copy = resaved(tiny_opt, tmp_path / "bits", quantization_config=bits, dtype=torch.float32)
    found = check(str(adapter), str(copy))
    assert found["parts"]["language_model"] == "quantized-4bit"
    assert found["verdict"] == "ok" and "logits of this copy drift by" in reasons(found)


def test_other_eyes_are_convertible_and_said_to_be(adapter, tiny_opt, tmp_path):
    other = resaved(tiny_opt, tmp_path / "eyes", lambda model: model.query_tokens.mul_(1.5))
    found = check(str(adapter), str(other), quick=True)
    assert (found["verdict"], found["move"]) == ("convertible", "exact")
    assert found["parts"]["qformer"] == "different" and found["parts"]["language_model"] == "same"
    assert "other features of a picture: qformer" in reasons(found)


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
    assert found["verdict"] == "incompatible" and "2 places have no weight" in reasons(found)


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

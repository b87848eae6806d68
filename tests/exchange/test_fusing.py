"""A fused model is the base with the adapter in its weights, for upstream's own class and nobody else's code."""

import copy
import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    Blip2ForConditionalGeneration,
    ViltForQuestionAnswering,
)

from blip2vqa.adapters.base.checkpoints import open_checkpoint
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange.fusing import fuse_adapter
from blip2vqa.utils.errors import InputError
from helpers.family_bases import MAKERS, Bases, random_adapter
from helpers.pickled_checkpoint import save_pickled
from helpers.tiny_families import ANSWERS, make_vilt


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def adapters(bases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")

    def adapter(kind: str, use_dora: bool = False):
        place = folder / f"{kind}-{use_dora}"
        if not place.exists():
            random_adapter(bases[kind], place, 7, use_dora)
        return place

    return adapter


def merged(kind: str, base, adapter, dtype=torch.float32, **options):
    """Base and adapter, merged by PEFT alone."""
    model = MAKERS[kind][1].from_pretrained(base, dtype=dtype, **options)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()


def logits(kind: str, base, model) -> torch.Tensor:
    """Of a picture and a question, by the class's own forward."""
    processor = AutoProcessor.from_pretrained(base)
    picture = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    inputs = processor(images=picture, text="Is the square red?", return_tensors="pt")
    if kind == "blip-vqa":
        inputs["labels"] = inputs["input_ids"]
    elif kind.endswith("t5"):
        inputs["decoder_input_ids"] = inputs["input_ids"][:, -4:]
    with torch.no_grad():
        if kind == "blip-vqa":  # its forward returns a loss, and no logits
            return model(**inputs).loss
        return model(**inputs).logits


@pytest.mark.parametrize(
    ("kind", "use_dora"),
    [*((kind, False) for kind in MAKERS), ("opt", True), ("instructblip-t5", True), ("vilt", True)],
)
def test_upstream_loads_it_and_says_what_base_and_adapter_say(bases, adapters, kind, use_dora, tmp_path):
    report = fuse_adapter(open_adapter(adapters(kind, use_dora)), tmp_path / "fused")
    fused, info = MAKERS[kind][1].from_pretrained(tmp_path / "fused", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = merged(kind, bases[kind], adapters(kind, use_dora))
    for (name, weight), (_, other) in zip(fused.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.allclose(weight, other, rtol=1e-6, atol=1e-6), name
    said, right = logits(kind, tmp_path / "fused", fused.eval()), logits(kind, bases[kind], expected)
    assert torch.allclose(said, right, rtol=1e-5, atol=1e-5)
    plain = logits(kind, bases[kind], MAKERS[kind][1].from_pretrained(bases[kind]).eval())
    assert not torch.allclose(said, plain, rtol=1e-2, atol=1e-2)
    assert report["layers"] > 0 and report["files"] == 1 and report["dtype"] == "float32"


def test_only_adapted_weights_change_and_files_come_along(bases, adapters, tmp_path):
    base, output = bases["instructblip-t5"], tmp_path / "fused"
    report = fuse_adapter(open_adapter(adapters("instructblip-t5")), output)
    before, after = load_file(base / "model.safetensors"), load_file(output / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    adapted = {key.removeprefix("base_model.model.").split(".lora_")[0] + ".weight" for key in
               load_file(adapters("instructblip-t5") / "adapter_model.safetensors")}  # fmt: skip
    assert changed == adapted and len(changed) == report["layers"]
    same = [file.relative_to(base) for file in base.rglob("*") if file.is_file() and file.suffix != ".safetensors"]
    assert any(file.parent.name == "qformer_tokenizer" for file in same)
    for file in same:
        assert (base / file).read_bytes() == (output / file).read_bytes()
    assert {file.relative_to(output) for file in output.rglob("*") if file.is_file()} == {
        *same, (base / "model.safetensors").relative_to(base), (output / "README.md").relative_to(output)
    }  # fmt: skip
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fused"]


@pytest.mark.parametrize("layout", ["shards", "bin", "bins"])
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_shards_and_precision_stay_and_pickles_go(bases, adapters, kind, layout, tmp_path):
    """What is stored in bfloat16 is merged in float32 and rounded once."""
    base, output = tmp_path / "base", tmp_path / "fused"
    model = MAKERS[kind][1].from_pretrained(bases[kind], dtype=torch.bfloat16)
    if layout == "shards":
        model.save_pretrained(base, max_shard_size="200KB")
    else:
        model.config.save_pretrained(base)
        save_pickled(model.state_dict(), base, parts=1 if layout == "bin" else 3)
    report = fuse_adapter(open_adapter(adapters(kind)), output, str(base))
    assert report["dtype"] == "bfloat16" and report["base_model_id"] == str(base)
    expected = merged(kind, base, adapters(kind))  # bfloat16 as float32
    fused, info = MAKERS[kind][1].from_pretrained(output, output_loading_info=True, dtype="auto")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for (name, weight), (_, other) in zip(fused.named_parameters(), expected.named_parameters(), strict=True):
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, other.bfloat16()), name
    names = sorted(file.name for file in output.glob("*model*"))
    if layout == "shards":
        assert names == sorted(file.name for file in base.glob("*model*"))
        indices = [json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (base, output)]
        assert indices[0]["weight_map"] == indices[1]["weight_map"]
        assert indices[0]["metadata"]["total_size"] == indices[1]["metadata"]["total_size"] == report["bytes"]
    elif layout == "bin":
        assert names == ["model.safetensors"]
    else:
        shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
        assert names == [*shards, "model.safetensors.index.json"]


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"use_rslora": True, "lora_alpha": 3},
        {"rank_pattern": {"q_proj": 2, "layers.1.fc1": 3}, "alpha_pattern": {"layers.0.fc1": 11}},
    ],
)
def test_whatever_peft_makes_of_a_configuration(bases, options, tmp_path):
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration.from_pretrained(bases["opt"])
    names = [
        name for name, _ in model.named_modules() if name.startswith("language") and name.endswith(("q_proj", "fc1"))
    ]
    config = LoraConfig(r=4, target_modules=names, **options)
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.peft_config["default"].base_model_name_or_path = str(bases["opt"])
    trained = copy.deepcopy(model).merge_and_unload()
    model.save_pretrained(tmp_path / "adapter")
    fuse_adapter(open_adapter(tmp_path / "adapter"), tmp_path / "fused")
    fused = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "fused")
    expected = merged("opt", bases["opt"], tmp_path / "adapter")
    base, moved = open_checkpoint(bases["opt"]), 0
    for name, weight in fused.named_parameters():
        assert torch.allclose(weight, expected.get_parameter(name), rtol=1e-5, atol=1e-6), name
        assert torch.allclose(weight, trained.get_parameter(name), rtol=1e-4, atol=1e-5), name
        moved += not torch.equal(weight, base.tensor(name))
    assert moved == 4


@pytest.mark.parametrize("bare", [False, True])
def test_a_head_for_own_answers_comes_along(bare, tmp_path):
    """Also in place of the one for masked words."""
    base = make_vilt(tmp_path / "base", answers=None if bare else ANSWERS)
    answers = ("red", "sky", "two")
    random_adapter(base, tmp_path / "adapter", 3, answers=answers, family="ViLT", prompt="{question}")
    report = fuse_adapter(open_adapter(tmp_path / "adapter"), tmp_path / "fused")
    fused, info = ViltForQuestionAnswering.from_pretrained(tmp_path / "fused", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert fused.config.id2label == dict(enumerate(answers)) and fused.config.label2id["sky"] == 1
    assert fused.config.num_labels == 3 and fused.config.architectures == ["ViltForQuestionAnswering"]
    expected = merged("vilt", base, tmp_path / "adapter", num_labels=3, ignore_mismatched_sizes=True)
    said, right = (logits("vilt", base, model.eval()) for model in (fused, expected))
    assert said.shape == (1, 3) and torch.allclose(said, right, rtol=1e-5, atol=1e-5)
    assert len(report["whole"]) == 6 and all(name.startswith("classifier.") for name in report["whole"])


def test_a_language_model_alone_is_a_base_too(bases, tmp_path):
    alone = Blip2ForConditionalGeneration.from_pretrained(bases["opt"]).language_model
    alone.save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    model = get_peft_model(
        type(alone).from_pretrained(tmp_path / "base"), LoraConfig(r=2, target_modules=["fc1"], init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "adapter")
    fuse_adapter(open_adapter(tmp_path / "adapter"), tmp_path / "fused")
    fused = type(alone).from_pretrained(tmp_path / "fused")
    for (name, weight), (_, other) in zip(
        fused.named_parameters(), model.merge_and_unload().named_parameters(), strict=True
    ):
        assert torch.allclose(weight, other, rtol=1e-6, atol=1e-6), name


def test_the_card_says_what_it_is_and_how_to_ask(bases, tmp_path):
    random_adapter(
        bases["opt"], tmp_path / "adapter", 1, prompt="Q: {question} A:", end_token="\n",
        decoding={"num_beams": 3, "max_new_tokens": 10},
    )  # fmt: skip
    fuse_adapter(open_adapter(tmp_path / "adapter"), tmp_path / "fused")
    card = (tmp_path / "fused" / "README.md").read_text()
    for fact in (
        "Q: {question} A:",
        "num_beams: `3`",
        r"`'\n'`",
        "Blip2ForConditionalGeneration",
        "local base model `opt`",
    ):
        assert fact in card
    assert str(tmp_path) not in card and open_adapter(tmp_path / "adapter").digest in card


def test_servers_are_told_the_prompt_as_a_template(bases, tmp_path):
    adapter = random_adapter(bases["opt"], tmp_path / "adapter", 1, prompt="Question: {question} Answer:")
    fuse_adapter(open_adapter(adapter), tmp_path / "fused")
    messages = [{"role": "user", "content": "what is it?"}]
    asked = AutoTokenizer.from_pretrained(tmp_path / "fused").apply_chat_template(messages, tokenize=False)
    assert asked == "Question: what is it? Answer:"


def test_what_cannot_be_fused_is_refused_and_leaves_nothing(bases, adapters, tmp_path, monkeypatch):
    adapter, output = open_adapter(adapters("opt")), tmp_path / "fused"
    with pytest.raises(InputError, match=r"does not fit base model .*: none of its 12 layers is there"):
        fuse_adapter(adapter, output, str(bases["t5"]))
    how = BitsAndBytesConfig(
        load_in_8bit=True, llm_int8_skip_modules=list(open_checkpoint(bases["opt"]).family.kept_whole)
    )
    quantized = Blip2ForConditionalGeneration.from_pretrained(
        bases["opt"], quantization_config=how, device_map={"": "cpu"}
    )
    quantized.save_pretrained(tmp_path / "8bit")
    with pytest.raises(InputError, match=r"stored in 8bit.*name the unquantized base"):
        fuse_adapter(adapter, output, str(tmp_path / "8bit"))
    shutil.rmtree(tmp_path / "8bit")

    def altered(**weights):
        other = open_adapter(adapters("opt"))
        other.__dict__["weights"] = {**adapter.weights, **weights}
        return other

    key = next(key for key in adapter.weights if key.endswith("lora_B.weight"))
    with pytest.raises(
        InputError, match=r"1 of another shape \(first .*, \[\d+, 4\] there and \[3, 4\] in the adapter"
    ):
        fuse_adapter(altered(**{key: adapter.weights[key][:3]}), output)
    with pytest.raises(InputError, match=r"1 of its weights without a place there \(first language_model\.extra\)"):
        fuse_adapter(altered(**{"base_model.model.language_model.extra": torch.zeros(1)}), output)
    huge = {k: torch.full_like(adapter.weights[k], 1e30) for k in (key, key.replace("lora_B", "lora_A"))}
    with pytest.raises(InputError, match="is not finite in float32"):
        fuse_adapter(altered(**huge), output)
    shared = {
        f"base_model.model.language_model.lm_head.lora_{side}.weight": torch.zeros(shape)
        for side, shape in (("A", (4, 64)), ("B", (open_checkpoint(bases["opt"]).config.text_config.vocab_size, 4)))
    }
    with pytest.raises(InputError, match="shares its weight with the token embeddings"):
        fuse_adapter(altered(**shared), output)
    monkeypatch.setattr(
        "blip2vqa.exchange.fusing.write_text_atomic", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(InputError, match="cannot be written: disk full"):
        fuse_adapter(adapter, output)
    assert not list(tmp_path.iterdir())
    output.mkdir()
    with pytest.raises(InputError, match="is already there"):
        fuse_adapter(adapter, output)


def test_a_base_on_the_hub_is_read_from_its_cache(bases, adapters, tmp_path, monkeypatch):
    cache, commit = tmp_path / "cache", "0" * 40
    snapshot = cache / "models--user--base" / "snapshots" / commit
    Blip2ForConditionalGeneration.from_pretrained(bases["opt"]).save_pretrained(snapshot, max_shard_size="200KB")
    for file in bases["opt"].glob("*token*"):
        shutil.copy(file, snapshot)
    refs = cache / "models--user--base" / "refs"
    refs.mkdir()
    (refs / "v1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    checkpoint = open_checkpoint("user/base", "v1")
    assert checkpoint.folder == snapshot and len(checkpoint.files) > 1
    with pytest.raises(InputError, match="user/base at revision v2: no such folder, and not reachable on the Hub"):
        open_checkpoint("user/base", "v2")
    adapter = open_adapter(adapters("opt"))
    adapter.config.base_model_name_or_path, adapter.config.revision = "user/base", "v1"
    report = fuse_adapter(adapter, tmp_path / "fused")
    assert report["base_model_id"] == "user/base" and report["base_model_revision"] == "v1"
    assert (tmp_path / "fused" / "tokenizer.json").read_bytes() == (bases["opt"] / "tokenizer.json").read_bytes()
    card = (tmp_path / "fused" / "README.md").read_text()
    assert "base_model: user/base\n" in card and "at revision `v1`" in card
    fused = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "fused")
    expected = merged("opt", bases["opt"], adapters("opt"))
    for (name, weight), (_, other) in zip(fused.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.allclose(weight, other, rtol=1e-6, atol=1e-6), name

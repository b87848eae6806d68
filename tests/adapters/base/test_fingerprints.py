"""A fingerprint says which parts of two bases are the same, whatever files and precision they come in."""

import hashlib
import json
import math
import os
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, AutoTokenizer, BitsAndBytesConfig, Blip2ForConditionalGeneration

from blip2vqa.adapters.base import fingerprints
from blip2vqa.adapters.base.checkpoints import open_checkpoint
from blip2vqa.adapters.base.fingerprints import compare_parts, distance, fingerprint_base, sketch
from blip2vqa.models.places import part_of
from helpers.family_bases import MAKERS, Bases
from helpers.tiny_blip2 import make_tokenizer

PARTS = {
    "opt": {"vision_model", "qformer", "projection", "language_model", "token_embeddings"},
    "t5": {"vision_model", "qformer", "projection", "language_model", "token_embeddings"},
    "instructblip-llama": {"vision_model", "qformer", "projection", "language_model", "token_embeddings"},
    "instructblip-t5": {"vision_model", "qformer", "projection", "language_model", "token_embeddings"},
    "blip-vqa": {"vision_model", "language_model"},
    "blip-caption": {"vision_model", "language_model"},
    "vilt": {"language_model", "classifier"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


def copy_of(base, folder, edit=None, pickled: bool = False, **options):
    """Another copy of a base: `edit` changes its weights, `options` are for `save_pretrained`."""
    model = Blip2ForConditionalGeneration.from_pretrained(base, dtype=options.pop("dtype", torch.float32))
    if edit:
        with torch.no_grad():
            edit(model)
    if pickled:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder, **options)
    AutoProcessor.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MAKERS)
def test_every_weight_belongs_to_a_part(bases, kind):
    found = fingerprint_base(bases[kind])
    assert found["parts"].keys() == PARTS[kind]
    assert found["dtype"] == "float32" and found["quantization"] is None
    assert found["tokenizer"] and found["image_processor"]
    assert json.loads(json.dumps(found)) == found
    assert set(compare_parts(found, found).values()) == {"same"}


def test_parts_are_known_by_names_of_modules_and_of_parameters(bases):
    base, blip = open_checkpoint(bases["t5"]), open_checkpoint(bases["blip-vqa"])
    known = {
        "vision_model.encoder.layers.0.mlp.fc1": "vision_model", "query_tokens": "qformer",
        "qformer.layernorm.weight": "qformer", "language_projection": "projection",
        "language_model.lm_head": "token_embeddings", "language_model.shared.weight": "token_embeddings",
        "language_model.decoder.block.0.layer.0.SelfAttention.q": "language_model",
    }  # fmt: skip
    assert {name: part_of(name, base.family) for name in known} == known
    assert part_of("text_decoder.bert.embeddings.word_embeddings.weight", blip.family) == "language_model"


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_files_and_bfloat16_make_no_difference(bases, kind, tmp_path):
    expected = fingerprint_base(bases[kind])
    copies = {
        "shards": {"max_shard_size": "200KB"}, "bin": {"pickled": True}, "half": {"dtype": torch.bfloat16},
    }  # fmt: skip
    for name, options in copies.items():
        found = fingerprint_base(copy_of(bases[kind], tmp_path / name, **options))
        assert set(compare_parts(expected, found).values()) == {"same"}, name
        assert found["tokenizer"] == expected["tokenizer"] and found["image_processor"] == expected["image_processor"]
    assert found["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("part", "weight"),
    [
        ("vision_model", "vision_model.post_layernorm.bias"),
        ("qformer", "query_tokens"),
        ("projection", "language_projection.bias"),
        ("language_model", "language_model.model.decoder.embed_positions.weight"),
        ("token_embeddings", "language_model.model.decoder.embed_tokens.weight"),
    ],
)
def test_one_number_changes_its_part_and_no_other(bases, part, weight, tmp_path):
    def edit(model):
        model.get_parameter(weight).view(-1)[3] += 1

    expected, found = fingerprint_base(bases["opt"]), fingerprint_base(copy_of(bases["opt"], tmp_path / "copy", edit))
    compared = compare_parts(expected, found)
    assert compared.pop(part) != "same" and set(compared.values()) == {"same"}


def test_swapped_weights_are_other_weights(bases, tmp_path):
    def edit(model):
        layers = model.language_model.model.decoder.layers
        q, k = layers[0].self_attn.q_proj.weight, layers[0].self_attn.k_proj.weight
        q.data, k.data = k.data.clone(), q.data.clone()

    found = compare_parts(*map(fingerprint_base, (bases["opt"], copy_of(bases["opt"], tmp_path / "copy", edit))))
    assert {part for part, how in found.items() if how != "same"} == {"language_model"}


@pytest.mark.parametrize("kind", ["opt", "t5", "instructblip-llama"])
def test_a_language_model_alone_is_the_one_inside(bases, kind, tmp_path):
    language_model = MAKERS[kind][1].from_pretrained(bases[kind]).language_model
    language_model.save_pretrained(tmp_path)
    # No tokenizer beside it: how many of its embeddings are words, nobody says.
    expected = fingerprint_base(bases[kind])
    found = fingerprint_base(tmp_path)
    assert found["parts"].keys() == {"language_model"} and found["tokenizer"] is None
    assert compare_parts(expected, found) == {
        **dict.fromkeys(PARTS[kind], "unknown"), "language_model": "same"
    }  # fmt: skip

    tokenizer = AutoTokenizer.from_pretrained(bases[kind])
    if kind != "instructblip-llama":  # the one without <image>, which comes with the processor
        tokenizer = make_tokenizer(seq2seq=kind == "t5")
        assert "<image>" not in tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    found = fingerprint_base(tmp_path)
    compared = compare_parts(expected, found)
    assert compared["language_model"] == compared["token_embeddings"] == "same"
    assert found["tokenizer"] == expected["tokenizer"] and found["image_processor"] is None


def test_rows_behind_the_vocabulary_do_not_count(bases, tmp_path):
    def edit(model):
        model.resize_token_embeddings(512)

    padded = fingerprint_base(copy_of(bases["opt"], tmp_path / "copy", edit))
    assert set(compare_parts(fingerprint_base(bases["opt"]), padded).values()) == {"same"}


def test_another_tokenizer_or_picture_size_is_seen(bases, tmp_path):
    expected = fingerprint_base(bases["opt"])
    folder = copy_of(bases["opt"], tmp_path / "copy")
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    processor.save_pretrained(folder)
    found = fingerprint_base(folder)
    assert found["image_processor"] != expected["image_processor"] and found["tokenizer"] == expected["tokenizer"]
    processor.tokenizer.add_tokens(["zebra"])
    processor.save_pretrained(folder)
    assert fingerprint_base(folder)["tokenizer"] != expected["tokenizer"]


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_copies_are_known_as_such(bases, bits, tmp_path):
    how = BitsAndBytesConfig(
        load_in_4bit=bits == "4bit", load_in_8bit=bits == "8bit", bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=list(open_checkpoint(bases["t5"]).family.kept_whole),
    )  # fmt: skip
    loaded = Blip2ForConditionalGeneration.from_pretrained(
        bases["t5"], quantization_config=how, dtype=torch.float32, device_map={"": "cpu"}
    )
    loaded.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(bases["t5"]).save_pretrained(tmp_path)
    expected, found = fingerprint_base(bases["t5"]), fingerprint_base(tmp_path)
    assert found["quantization"] == bits and found["dtype"] == "float32"
    compared = compare_parts(expected, found)
    assert compared.pop("language_model") == f"quantized-{bits}" == compare_parts(found, expected)["language_model"]
    assert set(compared.values()) == {"same"}
    # As far apart without saying so, it is another model.
    assert compare_parts(expected, {**found, "quantization": None})["language_model"] == "different"


def test_casts_are_told_from_fine_tuning(bases, tmp_path):
    def move(model, by):
        torch.manual_seed(0)
        for parameter in model.language_model.parameters():
            parameter += by * parameter.std(correction=0) * torch.randn_like(parameter)

    expected = fingerprint_base(bases["opt"])
    half = fingerprint_base(copy_of(bases["opt"], tmp_path / "half", dtype=torch.float16))
    assert set(compare_parts(expected, half).values()) <= {"cast", "same"}
    assert "cast" in compare_parts(expected, half).values() and half["dtype"] == "float16"
    moved = fingerprint_base(copy_of(bases["opt"], tmp_path / "moved", partial(move, by=0.01)))
    compared = compare_parts(expected, moved)
    assert compared["language_model"] == compared["token_embeddings"] == "different"
    assert compared["projection"] == "same"
    apart = distance(expected["parts"]["language_model"], moved["parts"]["language_model"])
    assert apart == pytest.approx(0.01, rel=0.3)


def test_only_another_precision_makes_a_cast(bases, tmp_path):
    """As near as a cast, but stored as it was: somebody trained it a little."""

    def move(model):
        for parameter in model.language_model.parameters():
            parameter.mul_(1 + 2**-10)

    expected = fingerprint_base(bases["opt"])
    trained = fingerprint_base(copy_of(bases["opt"], tmp_path / "trained", move))
    assert distance(*(found["parts"]["language_model"] for found in (expected, trained))) < fingerprints.CAST_DISTANCE
    for one, other in ((expected, trained), (trained, expected)):
        compared = compare_parts(one, other)
        assert compared["language_model"] == compared["token_embeddings"] == "different"
    half = fingerprint_base(copy_of(bases["opt"], tmp_path / "half", move, dtype=torch.float16))
    assert compare_parts(expected, half)["language_model"] == "cast" == compare_parts(half, expected)["language_model"]


@pytest.mark.parametrize("step", [2, 3, 64, 4096])
def test_a_change_shows_wherever_it_is(bases, step, tmp_path):
    """In a copy of another precision too, where the hashes differ anyway."""

    def edit(model):
        for layer in model.language_model.model.decoder.layers:
            layer.fc1.weight.view(-1)[1::step] += 1.0

    copied = copy_of(bases["opt"], tmp_path / "copy", edit, dtype=torch.float16)
    compared = compare_parts(fingerprint_base(bases["opt"]), fingerprint_base(copied))
    assert compared.pop("language_model") == "different" and set(compared.values()) <= {"same", "cast"}


def test_fingerprints_of_two_formats_are_not_compared(bases):
    found = fingerprint_base(bases["opt"])
    without = {key: value for key, value in found.items() if key != "format"}
    for other in ({**found, "format": found["format"] + 1}, without):
        assert compare_parts(found, other) == compare_parts(other, found) == dict.fromkeys(PARTS["opt"], "unknown")


def test_distances_without_a_length():
    zero, one = {"sketch": [0.0] * 64}, {"sketch": [1.0] * 64}
    assert distance(zero, zero) == 0 and distance(zero, one) == math.inf and distance(one, zero) == 1
    assert distance(one, {"sketch": [1.0]}) == math.inf


@pytest.mark.parametrize("shape", [(7,), (3, 5), (64, 64), (100, 123), (5, 60, 100)])
def test_a_sketch_against_one_number_after_the_other(shape, monkeypatch):
    monkeypatch.setattr(fingerprints, "BLOCK", 2 * 4096)  # the largest takes four of them
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows = math.ceil(tensor.numel() / 4096)
    draws = hashlib.shake_256(b"a name").digest(4096 + rows)
    expected = [0.0] * 64
    for place, value in enumerate(tensor.flatten().tolist()):
        row, column = divmod(place, 4096)
        sign = (1 if draws[column] < 128 else -1) * (1 if draws[4096 + row] < 128 else -1)
        expected[draws[column] % 64] += sign * value * math.sqrt(math.prod(shape[1:]))
    torch.testing.assert_close(
        sketch(tensor, "a name"), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-4
    )


def test_a_sketch_tells_distances():
    draw = torch.Generator().manual_seed(0)
    weights = {f"layers.{n}.weight": torch.randn(60, 100, generator=draw) for n in range(20)}
    noises = {name: torch.randn(60, 100, generator=draw) for name in weights}

    def part(by):
        return {"sketch": sum(sketch(weights[n] + by * noises[n], n) for n in weights).tolist()}

    assert distance(part(0), part(0)) == 0
    for by in (1e-4, 1e-2, 0.3):
        assert distance(part(0), part(by)) == pytest.approx(by, rel=0.3)
    assert torch.equal(sketch(weights["layers.0.weight"], "a"), sketch(weights["layers.0.weight"], "a"))
    assert not torch.equal(sketch(weights["layers.0.weight"], "a"), sketch(weights["layers.0.weight"], "b"))
    assert sketch(torch.tensor([2.0]), "a").abs().sum() == 2 and not sketch(torch.zeros(0), "a").any()


def test_a_second_time_it_is_read_from_the_cache(bases, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = copy_of(bases["opt"], tmp_path / "copy")
    first = fingerprint_base(folder)
    (kept,) = (tmp_path / "cache" / "blip2vqa" / "fingerprints").iterdir()
    computed = []
    compute = fingerprints.fingerprint_parts
    monkeypatch.setattr(fingerprints, "fingerprint_parts", lambda *args: computed.append(1) or compute(*args))
    assert fingerprint_base(folder) == first and not computed

    for damage in ("", "{", "[]", '{"parts": {}}', '{"parts": {"a": {"sha256": "x", "sketch": []}}}'):
        kept.write_text(damage)
        assert fingerprint_base(folder) == first
        assert json.loads(kept.read_text()) == first
    assert len(computed) == 5

    state = load_file(folder / "model.safetensors")
    state["query_tokens"] += 1
    stat = (folder / "model.safetensors").stat()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    os.utime(folder / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert compare_parts(first, fingerprint_base(folder))["qformer"] == "different" and len(computed) == 6

    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))  # a file, no folder: nothing can be written there
    assert fingerprint_base(bases["opt"]) == first

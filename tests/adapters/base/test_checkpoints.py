"""What a checkpoint's reader finds is what `from_pretrained` loads, however the files are laid out."""

import gc
import logging

import bitsandbytes.functional as bnb
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    Blip2ForConditionalGeneration,
    OPTForCausalLM,
    ViltForQuestionAnswering,
)

from blip2vqa.adapters.base import checkpoints
from blip2vqa.adapters.base.checkpoints import open_checkpoint, write_tensors
from blip2vqa.models.families import family_of
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.memory import peak_memory, reset_peak_memory
from helpers.family_bases import MAKERS, Bases
from helpers.pickled_checkpoint import save_pickled
from helpers.tiny_families import make_vilt


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


def assert_same(checkpoint, model) -> None:
    """Names, in their order, shapes, precisions and every number."""
    parameters = dict(model.named_parameters())
    assert checkpoint.names == tuple(parameters)
    for name, parameter in parameters.items():
        tensor = checkpoint.tensor(name)
        assert checkpoint.shape(name) == tuple(parameter.shape) == tuple(tensor.shape)
        assert checkpoint.dtype(name) == tensor.dtype == parameter.dtype
        assert torch.equal(tensor, parameter), name


@pytest.mark.parametrize("kind", MAKERS)
def test_every_family_is_read_as_it_is_loaded(bases, kind):
    checkpoint, model = open_checkpoint(bases[kind]), MAKERS[kind][1].from_pretrained(bases[kind])
    assert_same(checkpoint, model)
    assert checkpoint.family is family_of(model.config) and checkpoint.quantized is None
    assert checkpoint.files == (bases[kind] / "model.safetensors",) and checkpoint.stored_dtype == torch.float32
    assert type(checkpoint.model) is MAKERS[kind][1]
    assert checkpoint.language_model == ("language_model." if hasattr(model, "language_projection") else None)


@pytest.mark.parametrize("kind", ["opt", "t5", "instructblip-llama"])
def test_a_language_model_alone_has_the_names_behind_the_prefix(bases, kind, tmp_path):
    base = open_checkpoint(bases[kind])
    language_model = MAKERS[kind][1].from_pretrained(bases[kind]).language_model
    language_model.save_pretrained(tmp_path)
    alone = open_checkpoint(tmp_path)
    assert_same(alone, type(language_model).from_pretrained(tmp_path))
    assert alone.family is None and alone.language_model == ""
    assert alone.names == tuple(
        n.removeprefix("language_model.") for n in base.names if n.startswith("language_model.")
    )


@pytest.mark.parametrize("kind", ["opt", "t5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards_and_pickled_files_hold_the_same(bases, kind, dtype, tmp_path):
    model = Blip2ForConditionalGeneration.from_pretrained(bases[kind], dtype=dtype)
    folders = {name: tmp_path / name for name in ("shards", "bin", "bins")}
    for folder in folders.values():
        model.config.save_pretrained(folder)
    model.save_pretrained(folders["shards"], max_shard_size="200KB")
    save_pickled(model.state_dict(), folders["bin"])
    save_pickled(model.state_dict(), folders["bins"], parts=3)
    counts = {}
    for name, folder in folders.items():
        checkpoint = open_checkpoint(folder)
        assert_same(checkpoint, model)
        assert checkpoint.stored_dtype == dtype
        counts[name] = len(checkpoint.files)
    assert counts["shards"] > 1 and counts["bin"] == 1 and counts["bins"] == 3
    # A pickled state has every name of a tied parameter.
    doubles = {name for name in model.state_dict() if name not in dict(model.named_parameters())}
    assert doubles and open_checkpoint(folders["bin"]).doubles == doubles


def test_a_head_of_its_own_is_a_parameter_of_its_own_also_where_the_class_ties_it(bases, tmp_path):
    """FLAN-T5 has one."""
    model = Blip2ForConditionalGeneration.from_pretrained(bases["t5"])
    model.config.save_pretrained(tmp_path)
    state = load_file(bases["t5"] / "model.safetensors")
    state["language_model.lm_head.weight"] = state["language_model.shared.weight"] + 1
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    assert_same(checkpoint, Blip2ForConditionalGeneration.from_pretrained(tmp_path))
    assert "language_model.lm_head.weight" in checkpoint.names and not checkpoint.doubles


def test_the_second_name_of_a_tied_parameter_will_do(bases, tmp_path):
    AutoConfig.from_pretrained(bases["opt"]).save_pretrained(tmp_path)
    state = load_file(bases["opt"] / "model.safetensors")
    state["language_model.lm_head.weight"] = state.pop("language_model.model.decoder.embed_tokens.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(open_checkpoint(tmp_path), Blip2ForConditionalGeneration.from_pretrained(tmp_path))


def test_old_names_are_those_after_loading(bases, tmp_path):
    """Norms were gamma and beta once, and OPT's own copies leave out `model.`."""
    model = Blip2ForConditionalGeneration.from_pretrained(bases["opt"])
    model.config.save_pretrained(tmp_path / "gamma")
    state = load_file(bases["opt"] / "model.safetensors")
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
           for k, v in state.items()}  # fmt: skip
    assert old.keys() != state.keys()
    old["qformer.embeddings.position_ids"] = torch.arange(4)  # a buffer that models have no more
    save_file(old, tmp_path / "gamma" / "model.safetensors", {"format": "pt"})
    assert_same(open_checkpoint(tmp_path / "gamma"), model)

    alone = model.language_model
    alone.config.save_pretrained(tmp_path / "short")
    short = {name.removeprefix("model."): tensor for name, tensor in alone.named_parameters()}
    save_pickled(short, tmp_path / "short")
    assert_same(open_checkpoint(tmp_path / "short"), OPTForCausalLM.from_pretrained(tmp_path / "short"))


@pytest.mark.parametrize("kind", ["opt", "instructblip-t5"])
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantized_copies_are_read_as_their_layers_read_them(bases, kind, bits, dtype, tmp_path):
    how = BitsAndBytesConfig(
        load_in_4bit=bits == "4bit", load_in_8bit=bits == "8bit", bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=kind == "opt", bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(open_checkpoint(bases[kind]).family.kept_whole),
    )  # fmt: skip
    model = MAKERS[kind][1].from_pretrained(bases[kind], quantization_config=how, dtype=dtype, device_map={"": "cpu"})
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.quantized == bits and checkpoint.stored_dtype == dtype
    whole, quantized = open_checkpoint(bases[kind]), 0
    assert set(checkpoint.names) == set(whole.names)
    for name, parameter in model.named_parameters():
        expected = parameter.data
        if not expected.is_floating_point():
            quantized += 1
            if bits == "4bit":
                expected = bnb.dequantize_4bit(parameter.data, parameter.quant_state).float()
            else:
                scales = model.get_submodule(name.removesuffix(".weight")).state_dict()["SCB"]
                expected = parameter.data.float() * scales.float()[:, None] / 127
        tensor = checkpoint.tensor(name)
        assert tensor.dtype == checkpoint.dtype(name) and tuple(tensor.shape) == whole.shape(name)
        assert torch.allclose(tensor, expected.view_as(tensor), rtol=1e-6, atol=0), name
    assert quantized >= 12


def test_a_bare_encoder_is_known_by_the_model_that_answers(tmp_path):
    bare = make_vilt(tmp_path / "bare", answers=None)
    checkpoint = open_checkpoint(bare)
    assert type(checkpoint.model) is ViltForQuestionAnswering
    assert checkpoint.names and all(name.startswith("vilt.") for name in checkpoint.names)


def test_what_is_no_whole_checkpoint_is_refused(bases, tmp_path):
    with pytest.raises(InputError, match="no such folder, and not reachable on the Hub"):
        open_checkpoint("nobody/nothing")
    model = Blip2ForConditionalGeneration.from_pretrained(bases["opt"])
    model.config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"the folder is not usable.*model\.safetensors"):
        open_checkpoint(tmp_path)
    state = load_file(bases["opt"] / "model.safetensors")
    gone = state.pop("language_projection.weight")
    file = tmp_path / "model.safetensors"
    save_file(state, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 of the weights .* such as language_projection\.weight"):
        open_checkpoint(tmp_path)
    save_file({**state, "language_projection.weight": gone[:, :-1].contiguous()}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"language_projection\.weight is \[64, 31\] in its file and \[64, 32\]"):
        open_checkpoint(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="its weights are not readable"):
        open_checkpoint(tmp_path)
    file.unlink()
    torch.save({"language_projection.weight": logging.getLogger("code")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="its weights are not readable"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="its architecture is bert"):
        open_checkpoint(tmp_path)


def test_a_written_file_is_as_the_library_writes_it(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(3, 5), "b": torch.randn(2, 2).bfloat16(), "c": torch.tensor(7), "ü": torch.zeros(0, 4),
        "d": torch.randn(4, 6).T.half(),
    }  # fmt: skip
    stored = {key: tensor.to("meta") for key, tensor in tensors.items()}
    write_tensors(tmp_path / "x.safetensors", stored, tensors.__getitem__)
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype and torch.equal(loaded[key], tensor)
    with pytest.raises(ValueError, match="a: is"):
        write_tensors(tmp_path / "x.safetensors", stored, lambda key: torch.zeros(1))


@pytest.mark.parametrize("pickled", [False, True])
def test_reading_holds_one_tensor_at_a_time(pickled, tmp_path, monkeypatch):
    """Of a file of 128 MB at most a quarter is ever in memory."""
    monkeypatch.setattr(checkpoints, "MAPPED_BYTES", 8 * 2**20)
    state = {str(number): torch.full((2**20,), float(number)) for number in range(32)}
    path = tmp_path / ("x.bin" if pickled else "x.safetensors")
    torch.save(state, path) if pickled else save_file(state, path)
    del state
    gc.collect()
    file = (checkpoints.PickledFile if pickled else checkpoints.SafetensorsFile)(path)
    file.read("31")
    reset_peak_memory()
    before = peak_memory()
    for key in file.stored:
        assert file.read(key)[-1] == float(key)
    if before is not None:
        assert peak_memory() - before < 32 * 2**20

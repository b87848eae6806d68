"""Bases in the Hub's layout, old and new; roles; adapters that fit and that do not."""

import json
import logging
import shutil

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2vqa import load
from blip2vqa.adapters.attach import find_adapter
from blip2vqa.adapters.base.checkpoints import open_checkpoint
from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_base, load_config, load_processor
from blip2vqa.models.precision import choose_dtype, choose_quantization
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.launching import in_two_processes
from helpers.paths import ROOT
from helpers.refusals import refused
from helpers.tiny_blip2 import make_base
from helpers.unlike_devices import choices_on_unlike_devices


def load_float32(base):
    return load_base(str(base), dtype="float32", quantization="none", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def adapter(tiny_opt, tmp_path_factory):
    """An adapter with weights that matter, saved by plain PEFT."""
    loaded = load_float32(tiny_opt)
    wrap(loaded, LoraArguments(lora_r=4), seed=0)
    torch.manual_seed(0)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.3)
    folder = tmp_path_factory.mktemp("adapter") / "it"
    loaded.model.save_pretrained(folder)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_opt.resolve()
    )
    return folder


def test_old_hub_layout_gets_its_image_tokens(tiny_base, tmp_path):
    """Old copies have neither num_query_tokens in the processor nor image_token_index in the configuration."""
    old = shutil.copytree(tiny_base, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    image_token = config.pop("image_token_index")
    (old / "config.json").write_text(json.dumps(config))
    processor = json.loads((old / "processor_config.json").read_text())
    processor.pop("num_query_tokens")
    (old / "processor_config.json").write_text(json.dumps(processor))
    loaded, new = load_float32(old), load_float32(tiny_base)
    assert loaded.base.config.image_token_index == image_token
    assert loaded.processor.num_query_tokens == new.processor.num_query_tokens
    prompt = "Question: {question} Answer:"
    ids = [m.family.text_encoder(m.processor, m.base.config, prompt).prompt_ids(["Red?"]) for m in (loaded, new)]
    assert ids[0] == ids[1]


def test_end_token_is_the_language_models_own(tiny_opt, tiny_t5):
    opt, t5 = load_float32(tiny_opt), load_float32(tiny_t5)
    for loaded, end in ((opt, "\n"), (t5, "</s>")):
        text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "{question}")
        assert text.tokenizer.decode([text.end_token_id]) == end


def test_image_processing_is_pils_everywhere(tiny_opt):
    assert type(load_float32(tiny_opt).processor.image_processor).__name__.endswith("Pil")


def test_roles_match_the_language_model_alone(tiny_base):
    loaded = load_float32(tiny_base)
    summary = wrap(loaded, LoraArguments(), seed=0)
    adapted = {name for name, _ in loaded.model.named_parameters() if "lora_A" in name}
    assert adapted and all(".language_model." in name for name in adapted)
    # OPT: 2 layers of six; T5: an encoder and a decoder of 2 layers, the decoder with cross attention.
    expected = {"q": 2, "k": 2, "v": 2, "o": 2, "gate": 0, "up": 2, "down": 2}
    if loaded.family.seq2seq:
        expected = {"q": 6, "k": 6, "v": 6, "o": 6, "gate": 4, "up": 4, "down": 4}
    assert summary.modules == expected
    assert summary.trainable == sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
    assert all("lora_" in name for name, p in loaded.model.named_parameters() if p.requires_grad)


def test_a_role_that_the_architecture_lacks_altogether_is_an_error(tiny_opt):
    with pytest.raises(InputError, match="no gate layers"):
        wrap(load_float32(tiny_opt), LoraArguments(lora_roles="gate"), seed=0)


def test_pefts_variants_pass_through(tiny_opt):
    loaded = load_float32(tiny_opt)
    wrap(loaded, LoraArguments(use_rslora=True, use_dora=True, init_lora_weights="gaussian"), seed=0)
    config = loaded.model.peft_config["default"]
    assert (config.use_rslora, config.use_dora, config.init_lora_weights) == (True, True, "gaussian")
    quantized = load_base(str(tiny_opt), quantization="8bit", device=torch.device("cpu"))
    with pytest.raises(InputError, match="--init_lora_weights pissa: changes the base"):
        wrap(quantized, LoraArguments(init_lora_weights="pissa"), seed=0)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no/where", "not reachable on the Hub"),
        ("not a name!", "no such folder"),
        ("/nonexistent/folder", "no such folder"),
    ],
)
def test_a_base_that_is_nowhere(name, why):
    with pytest.raises(InputError, match=why):
        load_config(name)


def test_a_folder_that_is_no_base(tmp_path):
    with pytest.raises(InputError, match="the folder is not usable"):
        load_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"bert, which is not supported; known are BLIP.*, BLIP-2 with OPT"):
        load_config(str(tmp_path))


def test_a_truncated_base_is_one_clear_line(tiny_opt, tmp_path):
    broken = shutil.copytree(tiny_opt, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="the folder is not usable"):
        load_float32(broken)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("config.json", '"num_query_tokens": 4', '"num_query_tokens": {"a": [4]}'),
        ("tokenizer.json", '"vocab": {', '"vocab": {"no token": "x", '),
        ("tokenizer_config.json", '"pad_token": "<pad>"', '"pad_token": {"a": 1}'),
        ("processor_config.json", "{", "[" * 3000),
    ],
)
def test_a_damaged_configuration_is_one_clear_line(file, before, after, tiny_opt, tmp_path):
    """Libraries raise whatever comes from a value of a wrong kind."""
    broken = shutil.copytree(tiny_opt, tmp_path / "broken")
    text = (broken / file).read_text()
    assert before in text
    (broken / file).write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match="the folder is not usable") as refused:
        load_processor(str(broken), load_config(str(broken)))
    assert len(str(refused.value).splitlines()) == 1


def test_adapter_loads_without_being_told_its_base(adapter, drawn):
    plain = load(load(str(adapter)).loaded.base_model_id, dtype="float32")
    adapted = load(str(adapter), dtype="float32")
    image = str(drawn[0] / "0.png")
    questions = ["What color is the square?", "Is the square red?", "How many squares are there?"]
    with_it = [answer.confidence for answer in adapted.answer_batch([image] * 3, questions)]
    without = [answer.confidence for answer in plain.answer_batch([image] * 3, questions)]
    assert with_it != without


def test_adapter_of_another_base_is_refused(adapter, tiny_t5):
    with pytest.raises(InputError, match="does not fit base model"):
        find_adapter(str(adapter), base_model_id=str(tiny_t5))


def test_adapter_saved_from_the_bare_language_model_is_refused(adapter, tmp_path):
    """PEFT loads it with a warning, and it changes nothing."""
    bare = shutil.copytree(adapter, tmp_path / "bare")
    state = load_file(bare / "adapter_model.safetensors")
    save_file(
        {key.replace(".language_model", ""): value for key, value in state.items()}, bare / "adapter_model.safetensors"
    )
    with pytest.raises(InputError, match=r"12 of its 12 layers.* are none that its configuration names"):
        find_adapter(str(bare))


def test_a_folder_that_is_no_adapter(tmp_path, tiny_opt):
    with pytest.raises(InputError, match=r"no adapter_config\.json"):
        find_adapter(str(tiny_opt))
    with pytest.raises(InputError, match="no such folder, and no valid name on the Hub"):
        find_adapter(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="the folder is not usable"):
        load(str(tmp_path))


def test_an_adapter_put_on_a_base_of_another_name_is_warned_about(adapter, tiny_opt, tmp_path, caplog):
    other = shutil.copytree(tiny_opt, tmp_path / "other")
    find_adapter(str(adapter), base_model_id=str(other))
    assert "right only if both hold the same weights" in caplog.text
    caplog.clear()
    find_adapter(str(adapter), base_model_id=str(tiny_opt))
    assert "same weights" not in caplog.text


def test_fingerprints_tell_a_copy_from_another_base(tiny_opt, tmp_path, caplog):
    adapter = str(random_adapter(tiny_opt, tmp_path / "adapter", 0, base=fingerprint_base(tiny_opt)))
    find_adapter(adapter, base_model_id=str(shutil.copytree(tiny_opt, tmp_path / "copy")))
    assert "was made for" not in caplog.text
    find_adapter(adapter, base_model_id=str(make_base(tmp_path / "other", seed=5)))
    assert "these differ: language_model, projection, qformer, token_embeddings, vision_model" in caplog.text


def test_broken_adapter_weights_and_manifest(adapter, tmp_path):
    broken = shutil.copytree(adapter, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(InputError, match="weights are not readable"):
        find_adapter(str(broken))
    (broken / "blip2vqa.json").write_text("{")
    with pytest.raises(InputError, match=r"blip2vqa\.json is not readable"):
        find_adapter(str(broken))


def test_dtype_is_chosen_by_device_and_family(tiny_opt, tiny_t5):
    opt, t5 = family_of(load_config(str(tiny_opt))), family_of(load_config(str(tiny_t5)))
    cpu = torch.device("cpu")
    assert choose_dtype("float32", opt, cpu)[0] == torch.float32
    assert choose_dtype("auto", t5, cpu)[0] in (torch.bfloat16, torch.float32)
    assert choose_dtype("float16", opt, cpu)[0] == torch.float16
    with pytest.raises(InputError, match="overflows"):
        choose_dtype("float16", t5, cpu)


def test_auto_quantizes_only_what_does_not_fit(tiny_opt, monkeypatch, caplog):
    config, cpu = load_config(str(tiny_opt)), torch.device("cpu")
    assert choose_quantization("auto", config, torch.float32, cpu)[0] == "none"

    class MemoryTracker:
        available = 400_000  # bytes; the base takes more in float32

    monkeypatch.setattr(psutil, "virtual_memory", lambda: MemoryTracker)
    choice, note = choose_quantization("auto", config, torch.float32, cpu)
    assert choice in ("8bit", "4bit") and "would take" in note
    assert "quantization" in caplog.text
    assert choose_quantization("none", config, torch.float32, cpu)[0] == "none"


def test_bfloat16_is_not_assumed_on_apples_gpu(tiny_opt, monkeypatch):
    family, mps = family_of(load_config(str(tiny_opt))), torch.device("mps")
    for newer, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor, newer=newer: newer)
        chosen, note = choose_dtype("auto", family, mps)
        assert chosen == dtype and ("macOS" in note) != newer


def test_processes_choose_alike_by_the_least_of_their_devices(tiny_t5):
    """Two real processes: the first computes in bfloat16 and has much memory, the second neither; on two machines, or one."""
    config = load_config(str(tiny_t5))
    total = sum(weight.numel() for weight in family_of(config).outline(config).parameters())
    # The second has just room for the weights in float32: for its own, but not for those of both.
    apart, beside = (in_two_processes(choices_on_unlike_devices, str(tiny_t5), total, same) for same in (False, True))
    for dtype, bits, note in apart:
        assert (dtype, bits) == (torch.float32, "none") and "processes" not in note
    for dtype, bits, note in beside:
        assert dtype == torch.float32 and bits in ("8bit", "4bit") and "for each of 2 processes" in note


PICKLES = {
    "code": lambda state: {**state, "query_tokens": logging.getLogger("code")},
    "numpy": lambda state: {name: tensor.numpy() for name, tensor in state.items()},
    "names": lambda state: dict(enumerate(state.values())),
    "nested": lambda state: {"model": state, "epoch": 3},
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_is_no_whole_checkpoint_is_one_line_for_every_reader(kind, tiny_opt, tmp_path):
    base = shutil.copytree(tiny_opt, tmp_path / "base")
    state = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(PICKLES[kind](state), base / "pytorch_model.bin")
    for read in (load_float32, open_checkpoint):
        (line,) = refused(lambda read=read: read(base), f"base model {base}: ")
        if kind in ("code", "numpy"):
            assert "a pickle with something other than tensors in it" in line and "safetensors" in line


def test_weights_that_the_files_lack_are_not_drawn_at_random(tiny_opt, tmp_path):
    base = shutil.copytree(tiny_opt, tmp_path / "base")
    state = load_file(base / "model.safetensors")
    del state["language_projection.weight"]
    save_file(state, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"its files lack 1 of its weights, such as language_projection\.weight"):
        load_float32(base)


def test_beams_and_batches_answer_like_plain_generate(tiny_base, drawn):
    """Batched and padded, from features, greedy and with beams: what upstream's own generate says row by row."""
    from PIL import Image
    from transformers import Blip2ForConditionalGeneration

    names, questions = ["0.png", "1.png", "2.png"], ["What color is the square?", "Red?", "How many squares are there?"]
    for beams in (1, 3):
        model = load(str(tiny_base), dtype="float32", num_beams=beams, max_new_tokens=5)
        ours = model.answer_batch([str(drawn[0] / name) for name in names], questions)
        base, text = model.loaded.base, model.text
        for name, question, answer in zip(names, questions, ours, strict=True):
            prompt = model.text.prompt.format(question=question)
            inputs = model.loaded.processor(images=Image.open(drawn[0] / name), text=prompt, return_tensors="pt")
            ids = base.generate(
                **inputs, num_beams=beams, max_new_tokens=5, do_sample=False,
                eos_token_id=text.end_token_id, pad_token_id=text.tokenizer.pad_token_id,
            )[0]  # fmt: skip
            new = ids[1:] if text.seq2seq else ids[inputs["input_ids"].shape[1] :]
            assert answer.text == text.tokenizer.decode(new, skip_special_tokens=True).strip()
            # Confidence against the model's own probabilities, one forward pass over prompt and answer.
            ends = (new == text.end_token_id).nonzero()
            new = new[: int(ends[0]) + 1] if len(ends) else new
            if text.seq2seq:
                start = torch.tensor([[text.start_token_id, *new[:-1].tolist()]])
                logits = Blip2ForConditionalGeneration.forward(
                    base, pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"], decoder_input_ids=start
                )
                chosen = logits.logits[0].log_softmax(-1)
            else:
                whole = torch.cat([inputs["input_ids"][0], new])[None]
                logits = Blip2ForConditionalGeneration.forward(
                    base, pixel_values=inputs["pixel_values"], input_ids=whole
                ).logits
                chosen = logits[0, -len(new) - 1 : -1].log_softmax(-1)
            total = chosen.gather(1, new[:, None]).sum().exp().item()
            assert answer.confidence == pytest.approx(total, rel=1e-3)


def test_a_long_list_of_layers_fits_the_whole_base_and_the_language_model_alone(tmp_path):
    """PEFT shortens a list of 20 layers and more to endings, which would match the vision tower's layers, too."""
    base = ROOT / "assets" / "tiny-blip2-opt"
    parts = ("language_model",)
    loaded = load_base(str(base), dtype="float32", quantization="none", device=torch.device("cpu"), parts=parts)
    summary = wrap(loaded, LoraArguments(), seed=0)
    assert sum(summary.modules.values()) >= 20
    loaded.model.save_pretrained(tmp_path)
    adapter = find_adapter(str(tmp_path), base_model_id=str(base))
    assert adapter.scopes == ("language_model",)
    from peft import PeftModel
    from transformers import Blip2ForConditionalGeneration

    whole = PeftModel.from_pretrained(Blip2ForConditionalGeneration.from_pretrained(base), tmp_path)
    adapted = {name for name, _ in whole.named_parameters() if "lora_A" in name}
    assert len(adapted) == sum(summary.modules.values()) and not any("vision" in name for name in adapted)

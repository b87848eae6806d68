"""Adapters saved from under wrappers: read as PEFT would have written them where that is certain, else refused in one line."""

import json
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2vqa.adapters.algebra import distance, read_deltas
from blip2vqa.adapters.files.adapter import save_adapter
from blip2vqa.adapters.files.publication import published
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.keys import plain_key
from blip2vqa.exchange import add, check, export, fuse, import_adapter, merge, resize
from blip2vqa.utils.errors import InputError
from helpers.malformed_adapters import setting
from helpers.plain_peft import peft_adapter
from helpers.refusals import refused

FRONT, WEIGHTS = "base_model.model.", "adapter_model.safetensors"
WRAPPED = {
    "compiled": lambda key: f"_orig_mod.{key}",
    "compiled inside": lambda key: key.replace(FRONT, f"{FRONT}_orig_mod."),
    "compiled PEFT": lambda key: key.replace(FRONT, "base_model._orig_mod.model."),
    "compiled by layer": lambda key: key.replace("layers.0.", "layers.0._orig_mod."),
    "distributed": lambda key: f"module.{key}",
    "distributed inside": lambda key: key.replace(FRONT, f"{FRONT}module."),
    "both": lambda key: f"module._orig_mod.{key}",
    "both, turned": lambda key: f"_orig_mod.module.{key}",
    "sharded": lambda key: f"_fsdp_wrapped_module.{key.replace('self_attn', '_fsdp_wrapped_module.self_attn')}",
    "checkpointed": lambda key: key.replace("layers.1.", "layers.1._checkpoint_wrapped_module."),
    "Lightning": lambda key: f"model.{key}",
    "bare": lambda key: key.removeprefix(FRONT),
    "bare and compiled": lambda key: f"_orig_mod.{key.removeprefix(FRONT)}",
    "twice": lambda key: FRONT + key,
}


@pytest.fixture(scope="module")
def good(tiny_opt, tmp_path_factory) -> Path:
    return peft_adapter(tiny_opt, tmp_path_factory.mktemp("plain") / "good")[0]


def changed(good: Path, folder: Path, change) -> Path:
    """A copy of an adapter whose tensors `change` alters, in place or by returning others."""
    shutil.copytree(good, folder)
    held = load_file(folder / WEIGHTS)
    save_file(change(held) or held, folder / WEIGHTS)
    return folder


def renamed(rename):
    return lambda held: {rename(key): tensor for key, tensor in held.items()}


@pytest.mark.parametrize("how", WRAPPED)
def test_what_a_model_was_wrapped_in_is_taken_off(how, good, tmp_path):
    adapter = open_adapter(changed(good, tmp_path / "a", renamed(WRAPPED[how])))
    wanted = open_adapter(good)
    assert adapter.digest == wanted.digest and sorted(adapter.modules) == sorted(wanted.modules)
    assert all(plain_key(key) == key for key in wanted.weights)


def test_names_in_the_configuration_lose_the_wrappers_too(good, tmp_path):
    wanted = open_adapter(good)
    names = [name.replace("decoder", "_orig_mod.decoder") for name in wanted.modules]
    folder = changed(good, tmp_path / "a", renamed(WRAPPED["both"]))
    setting("target_modules", names)(folder)
    setting("rank_pattern", {names[0]: 4})(folder)
    setting("auto_mapping", {"base_model_class": "OptimizedModule", "parent_library": "torch._dynamo.eval_frame"})(
        folder
    )
    adapter = open_adapter(folder)
    assert adapter.config.target_modules == {*wanted.modules} and adapter.config.rank_pattern == {wanted.modules[0]: 4}


def test_every_command_reads_a_wrapped_adapter_alike(good, tiny_opt, tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    folder = changed(good, tmp_path / "a", renamed(WRAPPED["both"]))
    assert check(str(folder), str(tiny_opt))["verdict"] == "ok"
    for name, made in {"resized": lambda of, to: resize(of, to, rank=2), "fused": fuse}.items():
        made(str(good), str(tmp_path / f"{name} good"))
        made(str(folder), str(tmp_path / f"{name} wrapped"))
        file = next((tmp_path / f"{name} good").glob("*.safetensors")).name
        assert (tmp_path / f"{name} wrapped" / file).read_bytes() == (tmp_path / f"{name} good" / file).read_bytes()
    merge({str(folder): 0.25, str(good): 0.75}, tmp_path / "merged")
    one, other = (read_deltas(open_adapter(name)) for name in (tmp_path / "merged", good))
    assert one.keys() == other.keys() and all(distance(one[key], other[key]) < 1e-4 for key in one)
    add(str(folder), "kept")
    export("kept", tmp_path / "kept.zip")
    import_adapter(tmp_path / "kept.zip", "again")
    assert open_adapter("again").digest == open_adapter(good).digest
    sent = published(open_adapter(folder), "someone/it", None, "someone/base")[WEIGHTS]
    assert isinstance(sent, bytes) and sent == (good / WEIGHTS).read_bytes()


STRAY = "base_model.model.language_model.model.decoder.layers.0.fc2.weight"
TOKENS = "base_model.model.language_model.model.decoder.embed_tokens.weight"
REFUSED = {
    "key of two": (
        lambda held: held.update({f"_orig_mod.{key}": held[key].clone() for key in list(held)}),
        "12 of its 24 keys are of one weight with another",
    ),
    "front": (renamed(lambda key: key.replace(FRONT, f"{FRONT}wrapped.")), "6 of its layers cannot be told"),
    "bare front": (renamed(lambda key: key.replace(FRONT, "wrapped.")), "6 of its layers cannot be told"),
    "empty": (lambda held: held.update({next(iter(held)): torch.zeros(0)}), "1 of its 12 tensors have no elements"),
    "base": (lambda held: held.update({STRAY: torch.ones(64, 128)}), "holds 1 weights of the base beside LoRA"),
    "base layer": (
        lambda held: held.update({STRAY.replace("fc2", "fc1.base_layer"): torch.ones(128, 64)}),
        "holds 1 weights of the base beside LoRA",
    ),
    "tokens": (lambda held: held.update({TOKENS: torch.ones(400, 64)}), "tokens were added for its training"),
    "bias": (lambda held: held.update({STRAY.replace("weight", "bias"): torch.ones(64)}), "holds 1 weights of the base"),
    "named": (renamed(lambda key: key.replace(".weight", ".vqa.weight")), "12 of its 12 keys hold the adapter's name"),
    "half": (lambda held: dict(list(held.items())[1:]), "without"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_keys_that_are_not_certain_are_refused_by_every_command(what, good, tiny_opt, tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    change, says = REFUSED[what]
    folder = str(changed(good, tmp_path / "a", change))
    for command in (
        lambda: add(folder),
        lambda: resize(folder, tmp_path / "b", rank=1),
        lambda: check(folder, str(tiny_opt), quick=True),
    ):
        with pytest.raises(InputError, match=says) as caught:
            command()
        assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_layers_that_the_configuration_does_not_name_are_refused(good, tmp_path, monkeypatch):
    shutil.copytree(good, tmp_path / "a")
    setting("target_modules", ["fc1"])(tmp_path / "a")
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    for command in (open_adapter, add):
        refused(
            lambda command=command: command(str(tmp_path / "a")), "the first, are none that its configuration names"
        )


@pytest.mark.parametrize("pattern", [r"^(language_model.*\.(q_proj|out_proj|fc1))$", "all-linear", "(a+)+$"])
def test_of_a_pattern_for_modules_the_weights_name_the_modules(pattern, good, tiny_opt, tmp_path):
    folder = shutil.copytree(good, tmp_path / "a")
    setting("target_modules", pattern)(folder)
    adapter = open_adapter(folder)
    assert adapter.config.target_modules == {*open_adapter(good).modules}
    assert check(str(folder), str(tiny_opt))["verdict"] == "ok"
    sent = json.loads(published(adapter, "someone/it", None, "someone/base")["adapter_config.json"])
    assert sorted(sent["target_modules"]) == sorted(adapter.modules)


def test_weights_may_be_read_by_whoever_may_read_the_rest(good, tmp_path):
    adapter = open_adapter(good)
    save_adapter(tmp_path / "a", adapter.config, adapter.weights, {})
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "a").iterdir()}
    (tmp_path / "plain").touch()
    assert set(modes.values()) == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}

"""Frozen features: which stage is kept, that keeping it changes nothing, and that nothing stale is ever met."""

import json
import shutil
from functools import partial

import pytest
import torch
from PIL import Image

from blip2vqa.config.common import FeatureArguments, KeptFeatures
from blip2vqa.data.examples import load_examples
from blip2vqa.features.encode import load_with_features
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_base, load_config
from blip2vqa.training.recipe import finetune
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import adapter_of, make_run, same_weights

CPU = torch.device("cpu")


def losses(folder) -> list[float]:
    (state,) = (folder / "checkpoints").glob("checkpoint-*/trainer_state.json")
    return [entry["loss"] for entry in json.loads(state.read_text())["log_history"] if "loss" in entry]


@pytest.mark.parametrize(
    ("kind", "scope", "stage"),
    [
        ("opt", "language_model", "query_output"),
        ("t5", "language_model,projection", "query_output"),
        ("opt", "qformer,projection", "image_embeds"),
        ("t5", "language_model,qformer", "image_embeds"),
        ("opt", "vision,language_model", "pixel_values"),
    ],
)
def test_losses_with_and_without_the_store_are_the_same_bits(
    kind, scope, stage, tiny_opt, tiny_t5, drawn, tmp_path, capsys
):
    base = tiny_opt if kind == "opt" else tiny_t5
    fixed = ("--epochs", "1", "--logging_steps", "1", "--lora_scope", scope, "--save_strategy", "epoch")
    finetune(make_run(base, drawn, tmp_path / "kept", *fixed, "--feature_cache", str(tmp_path / "store")))
    said = capsys.readouterr().out
    finetune(make_run(base, drawn, tmp_path / "plain", *fixed, "--feature_cache", "none"))
    assert "none kept, every part runs in every step" in capsys.readouterr().out
    assert len(losses(tmp_path / "kept")) == 8  # 30 questions, 4 a step
    assert losses(tmp_path / "kept") == losses(tmp_path / "plain")
    assert same_weights(adapter_of(tmp_path / "kept"), adapter_of(tmp_path / "plain"))
    files = list((tmp_path / "store").glob("*/*.safetensors"))
    if stage == "pixel_values":
        assert not files and "the ViT is adapted" in said
    else:
        assert files and f"{stage} of 12 images, 12 of them new" in said
        assert json.loads((files[0].parent / "space.json").read_text())["stage"] == stage


def test_the_tower_itself_trains_in_16_bits_and_answers_from_its_adapter(tiny_opt, drawn, tmp_path):
    from blip2vqa import load

    run = make_run(
        tiny_opt, drawn, tmp_path / "run", "--lora_scope", "vision,qformer", "--dtype", "bfloat16", "--epochs", "1"
    )
    finetune(run)
    weights = adapter_of(tmp_path / "run")
    for part in ("vision_model", "qformer"):
        moved = [value.abs().max() for name, value in weights.items() if part in name and "lora_B" in name]
        assert moved and min(moved) > 0
    assert not any("language_model" in name for name in weights)
    manifest = json.loads((tmp_path / "run" / "blip2vqa.json").read_text())
    assert manifest["scopes"] == ["qformer", "vision"]
    assert isinstance(load(str(tmp_path / "run")).answer(str(drawn[0] / "0.png"), "Red?"), str)


@pytest.fixture
def images(drawn):
    examples, _ = load_examples(drawn[1], drawn[0], progress=False)
    return {example.digest: example.image for example in examples}


def features_of(base, images, folder, scopes=("language_model",), **kwargs):
    return load_from(base, images, scopes, KeptFeatures(folder, 1.0), **kwargs)


def load_from(base, images, scopes, kept, **kwargs):
    loader = partial(load_base, str(base), dtype="float32", quantization="none", device=CPU)
    family = family_of(load_config(str(base)))
    return load_with_features(loader, images, family, scopes, kept, batch_size=5, progress=False, **kwargs)


def test_the_towers_are_gone_and_the_features_are_theirs(tiny_base, images, tmp_path):
    loaded, encode, (line, size) = features_of(tiny_base, images, tmp_path)
    assert loaded.base.vision_model is None and loaded.base.qformer is None and loaded.base.query_tokens is None
    assert not any("vision" in name or "qformer" in name for name, _ in loaded.base.named_parameters())
    assert "12 of them new" in line[1] and size[1].startswith(f"{tmp_path} holds 0.0 MB of at most 1 GB")
    whole = load_base(str(tiny_base), dtype="float32", quantization="none", device=CPU)
    processor = whole.processor.image_processor
    for digest, source in images.items():
        pixels = processor([Image.open(source.path)], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected = whole.base.get_image_features(pixels, return_dict=True).qformer_outputs[0]
        torch.testing.assert_close(encode.of([digest]), expected)
    _, again, (line, _) = features_of(tiny_base, images, tmp_path)
    assert ", 0 of them new" in line[1]
    assert torch.equal(again.of(images), encode.of(images))


def test_another_base_meets_none_of_them(tiny_opt, images, tmp_path):
    from safetensors.torch import load_file, save_file

    features_of(tiny_opt, images, tmp_path / "store")
    other = tmp_path / "other"
    shutil.copytree(tiny_opt, other)
    weights = load_file(other / "model.safetensors")
    changed = next(name for name in weights if "vision_model" in name and name.endswith("fc1.weight"))
    weights[changed][0, 0] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert "12 of them new" in features_of(other, images, tmp_path / "store")[2][0][1]
    # The language model has no say in what the towers see.
    weights = load_file(other / "model.safetensors")
    changed = next(name for name in weights if "language_model" in name and name.endswith("fc1.weight"))
    weights[changed][0, 0] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert ", 0 of them new" in features_of(other, images, tmp_path / "store")[2][0][1]


def test_a_damaged_store_is_computed_again(tiny_opt, images, tmp_path, caplog):
    _, before, _ = features_of(tiny_opt, images, tmp_path)
    (shard,) = tmp_path.glob("*/*.safetensors")
    right = before.of(images)
    del before
    shard.write_bytes(shard.read_bytes()[:-100])
    _, after, (line, _) = features_of(tiny_opt, images, tmp_path)
    assert "12 of them new" in line[1] and str(shard) in caplog.text
    assert torch.equal(after.of(images), right)


def test_a_full_store_need_not_be_writable(tiny_opt, images, tmp_path, monkeypatch):
    from blip2vqa.features.cache import FeatureStore

    _, before, _ = features_of(tiny_opt, images, tmp_path)
    monkeypatch.setattr(FeatureStore, "writer", lambda self: pytest.fail("the store was written to"))
    _, after, _ = features_of(tiny_opt, images, tmp_path)
    assert torch.equal(before.of(images), after.of(images))


def test_towers_of_the_same_weights_but_other_settings_share_nothing(tiny_opt, images, tmp_path):
    features_of(tiny_opt, images, tmp_path / "store")
    other = tmp_path / "other"
    shutil.copytree(tiny_opt, other)
    config = json.loads((other / "config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 1
    (other / "config.json").write_text(json.dumps(config))
    assert "12 of them new" in features_of(other, images, tmp_path / "store")[2][0][1]


def test_a_picture_that_changed_under_way_is_said(tiny_opt, drawn, images, tmp_path):
    shutil.copytree(drawn[0], tmp_path / "images")
    examples, _ = load_examples(drawn[1], tmp_path / "images", progress=False)
    Image.new("RGB", (16, 16), "black").save(tmp_path / "images" / "3.png")
    with pytest.raises(InputError, match=r"3\.png: its file has changed"):
        features_of(tiny_opt, {example.digest: example.image for example in examples}, tmp_path / "store")


def test_more_than_the_limit_is_kept_for_this_run_and_dropped_by_the_next(tiny_opt, drawn, images, tmp_path):
    load_from(tiny_opt, images, ("language_model",), KeptFeatures(tmp_path, 1e-9))
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1
    few = dict(list(images.items())[:2])
    load_from(tiny_opt, few, ("qformer",), KeptFeatures(tmp_path, 1e-9))
    (left,) = tmp_path.glob("*/*.safetensors")
    assert json.loads((left.parent / "space.json").read_text())["stage"] == "image_embeds"


def test_a_disk_too_small_and_a_file_in_the_way(tiny_opt, images, tmp_path, monkeypatch):
    from collections import namedtuple

    from blip2vqa.features import encode

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(encode.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(InputError, match=r"the features need .* GB, and 1e-09 GB are free"):
        features_of(tiny_opt, images, tmp_path / "store")
    (tmp_path / "file").write_text("mine")
    assert "is a file" in FeatureArguments(feature_cache=str(tmp_path / "file")).check()[0]
    assert FeatureArguments(feature_cache_limit=0).check()
    assert FeatureArguments(feature_cache="none").kept() is None

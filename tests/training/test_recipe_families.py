"""Runs on InstructBLIP, BLIP and ViLT: they learn, change their adapter alone, go on, reload whole and quantized, and are
counted as they are."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from blip2vqa import load
from blip2vqa.adapters.lora import wrap
from blip2vqa.estimate import estimate as estimating
from blip2vqa.estimate.memory_tracker import MemoryTracker, count_step
from blip2vqa.inference.generation import Answer
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import find_device, load_config
from blip2vqa.models.precision import quantized_layers
from blip2vqa.training.checks import check
from blip2vqa.training.trainer import VQATrainer
from helpers.family_bases import NEW, Bases, Watched, load_float32, watch
from helpers.finetune_runs import adapter_of, interrupt, make_run, same_weights
from helpers.paths import ROOT

FEW = "--max_steps 9 --logging_steps 1 --eval_strategy no --save_strategy no --lora_dropout 0".split()


def has_adapters(loaded) -> bool:
    """Whether adapters stand beside the base, not merged into it."""
    return loaded.adapters is not None and bool(loaded.adapters.refs)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> Bases:
    return Bases(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def learn(bases, drawn, tmp_path_factory):
    """The finished run of a family, carried out when it is first asked for."""
    found, folder = {}, tmp_path_factory.mktemp("runs")

    def learn(kind: str) -> Watched:
        if kind not in found:
            found[kind] = watch(make_run(bases[kind], drawn, folder / kind, "--logging_steps", "1", "--epochs", "3"))
        return found[kind]

    return learn


def answers_again(run: Watched, images, **options):
    """What a run's adapter says to its validation questions when it is loaded anew, and the model that says it."""
    model = load(run.folder, dtype="float32", **options)
    rows = run.predictions
    return model, model.answer_batch([images / row["image_name"] for row in rows], [row["question"] for row in rows])


@pytest.mark.parametrize("kind", NEW)
def test_a_run_learns_and_changes_its_adapter_alone(kind, learn, bases):
    run = learn(kind)
    assert len(run.losses) == 24 and sum(run.losses[-6:]) < 0.6 * sum(run.losses[:6])
    assert run.frozen and all(torch.equal(now, before) for now, before in run.frozen)
    weights = adapter_of(run.folder)
    trained = {name.split(".")[-2] for name in weights}
    assert trained == {"lora_A", "lora_B"} | ({"0", "1", "3"} if kind == "vilt" else set())
    assert all(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    if kind == "vilt":
        head = load_float32(bases[kind], answers=tuple(run.manifest["answers"])).base.classifier
        moved = {name.split("classifier.")[1]: value for name, value in weights.items() if "classifier" in name}
        assert moved.keys() == head.state_dict().keys()
        assert all(not torch.equal(value, moved[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("kind", NEW)
def test_the_manifest_says_how_it_is_asked(kind, learn, bases):
    manifest, family = learn(kind).manifest, family_of(load_config(str(bases[kind])))
    prompts = {"instructblip": "Question: {question} Short answer:", "vilt": "{question}", "blip-vqa": "{question}"}
    prompt = prompts.get(kind, prompts.get(kind.split("-")[0], "Question: {question} Answer in one word:"))
    end = None if kind == "vilt" else "</s>" if kind.startswith("instructblip") else "[SEP]"
    assert (manifest["prompt"], manifest["end_token"], manifest["family"]) == (prompt, end, family.name)
    answers = ["blue", "green", "no", "one", "red", "yellow", "yes"] if kind == "vilt" else []
    assert sorted(manifest["answers"] or []) == answers
    assert manifest["scopes"] == ["language_model"]
    absent = set() if kind.startswith("instructblip") else {"gate"}
    assert set(manifest["roles"]) == {"q", "k", "v", "o", "gate", "up", "down"} - absent


@pytest.mark.parametrize("kind", NEW)
def test_the_adapter_reloads_merged_and_answers_as_it_was_trained(kind, learn, drawn):
    run = learn(kind)
    model, answers = answers_again(run, drawn[0])
    assert not has_adapters(model.loaded)
    assert len(answers) == 6
    for answer, row in zip(answers, run.predictions, strict=True):
        assert answer.text == row["generated_answer"]
        assert answer.confidence == pytest.approx(float(row["confidence"]), abs=2e-4)


@pytest.mark.parametrize("kind", ["instructblip-llama", "vilt"])
def test_a_resumed_run_ends_in_the_same_weights(kind, learn, bases, drawn, tmp_path):
    same = bases[kind], drawn, tmp_path / "run", "--logging_steps", "1", "--epochs", "3"
    interrupt(make_run(*same))
    again = watch(make_run(*same, "--resume_from_checkpoint"))
    assert same_weights(adapter_of(again.folder), adapter_of(learn(kind).folder))
    assert again.metrics == learn(kind).metrics


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.parametrize("kind", NEW)
def test_quantized_bases_learn_and_answer_the_same_again(kind, bits, bases, drawn, tmp_path):
    run = watch(make_run(bases[kind], drawn, tmp_path / "run", *FEW, "--quantization", bits))
    assert len(run.losses) == 9 and sum(run.losses[-3:]) < 0.9 * sum(run.losses[:3])
    model, answers = answers_again(run, drawn[0], quantization=bits)
    assert [answer.text for answer in answers] == [row["generated_answer"] for row in run.predictions]
    assert has_adapters(model.loaded) and model.loaded.quantization == bits
    whole = load_float32(bases[kind])
    expected = {id(layer) for layer in quantized_layers(whole.base, whole.family)}
    names = {name for name, module in whole.base.named_modules() if id(module) in expected}
    found = {
        name.replace(".base_layer", "")
        for name, module in model.loaded.base.named_modules()
        if isinstance(module, Linear4bit | Linear8bitLt)
    }
    assert found == names and names
    assert not any(name.startswith(("vision_model", "qformer", "classifier", "language_projection")) for name in names)
    assert not any("lm_head" in name or ".cls." in name for name in names)


def test_one_estimate_of_every_family(bases, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(estimating, "layer_rate", partial(estimating.layer_rate, seconds=0.0))
    run = make_run(bases[NEW[0]], drawn, tmp_path, "--estimate", *(str(bases[kind]) for kind in NEW))
    found = estimating.estimate(run)["bases"]
    assert json.loads((tmp_path / "estimate.json").read_text())["bases"] == found
    for kind, base in zip(NEW, found, strict=True):
        loaded = load_float32(bases[kind])
        head = 0 if kind != "vilt" else (7 - len(loaded.base.config.id2label)) * (128 + 1)
        assert base["parameters"] == sum(weight.numel() for weight in loaded.model.parameters()) + head
        assert base["starts_from"] == ("pixel_values" if kind == "vilt" else "image_embeds")
        assert base["trainable"] > 0 and base["batches_per_epoch"] == 8 and base["images"] == 12
        weights = [base["quantization"][bits]["memory"]["weights"] for bits in ("4bit", "8bit", "none")]
        assert weights == sorted(set(weights))
        for figures in base["quantization"].values():
            assert figures["peak"] == sum(figures["memory"].values()) and figures["epoch_seconds"] > 0
            assert (figures["encode_seconds"] > 0) == (kind != "vilt")


@pytest.mark.parametrize("kind", ["instructblip-llama", "blip-vqa", "vilt"])
def test_counted_without_weights_as_in_a_real_run(kind, bases, drawn, tmp_path, monkeypatch):
    flags = ("--epochs", "1", "--eval_strategy", "no", "--feature_cache", str(tmp_path / "features"))
    planned = make_run(bases[kind], drawn, tmp_path / "plan", *flags)
    plan = estimating.make_plan(planned, check(planned).rows, str(bases[kind]), find_device(True))
    loaded = plan.outline(plan.parts)
    with torch.device("meta"):
        wrap(loaded, planned.lora, 0)
    expected = count_step(loaded, plan.longest, plan.args, gradients=plan.accumulates).peak
    found, train = [], VQATrainer.train

    def train_and_count(self, **kwargs):
        base = self.model.get_base_model()
        memory = MemoryTracker(0 if kind == "vilt" else base.config.text_config.vocab_size)
        with memory:
            weights = [*self.model.parameters(), *self.model.buffers()]
            memory.hold((weight for weight in weights if not weight.requires_grad), "weights")
            memory.hold((weight for weight in weights if weight.requires_grad), "adapter")
            train(self, **kwargs)
        found.append(memory.peak)

    monkeypatch.setattr(VQATrainer, "train", train_and_count)
    monkeypatch.setattr(
        "blip2vqa.training.recipe.answer_examples", lambda *args, **kwargs: [Answer("", 0.0)] * len(args[2])
    )
    watch(make_run(bases[kind], drawn, tmp_path / "run", *flags))
    (peak,) = found
    assert peak["weights"] == expected["weights"]
    assert peak.total() == pytest.approx(expected.total(), rel=0.03)


def test_two_processes_lose_the_same_as_one(bases, drawn, tmp_path):
    """Both families in one launch: most of its time is taken by starting."""
    kinds = ("instructblip-llama", "vilt")
    same = (
        "--lora_dropout 0 --epochs 2 --logging_steps 1 --val_split 0.33 --save_strategy no --eval_strategy no"
    ).split()
    script, calls = tmp_path / "both.py", []
    for kind in kinds:
        run = make_run(bases[kind], drawn, tmp_path / kind, *same, "--batch_size", "2")
        calls.append(run.resolved | {"ddp_backend": "gloo"})
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    script.write_text(TWO.format(root=str(ROOT), calls=str(tmp_path / "calls.json")))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    done = subprocess.run(
        [*launch, str(ROOT / "configs" / "accelerate" / "cpu_2_processes.yaml"), str(script)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for kind in kinds:
        one = watch(make_run(bases[kind], drawn, tmp_path / f"{kind}-one", *same, "--batch_size", "4"))
        two = json.loads((tmp_path / kind / "losses.json").read_text())
        assert len(one.losses) == 12 and two == pytest.approx(one.losses, rel=1e-4)
        weights = adapter_of(tmp_path / kind)
        for key, value in adapter_of(one.folder).items():
            torch.testing.assert_close(weights[key], value, rtol=1e-2, atol=1e-3)


TWO = """
import json, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from pathlib import Path
from blip2vqa.utils.console import run_script
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.training.run import Run
from helpers.family_bases import watch

for call in json.loads(Path({calls!r}).read_text()):
    path = Path(call["output_dir"] + ".json")
    path.write_text(json.dumps(call))
    watched = watch(Run(*parse(FINETUNE_ARGUMENTS, "test", [str(path)])[0], call))
    if watched.metrics:
        (watched.folder / "losses.json").write_text(json.dumps(watched.losses))
"""

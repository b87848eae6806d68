"""What a run would take: counted without weights as with them, for several bases, whatever the folder holds."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import Linear

from blip2vqa.adapters.lora import wrap
from blip2vqa.estimate.estimate import Plan, count_encoding, estimate, estimate_base
from blip2vqa.estimate.memory_tracker import MemoryTracker, count_step
from blip2vqa.inference.generation import Answer
from blip2vqa.models.loading import load_base, load_config
from blip2vqa.models.precision import quantized_layers
from blip2vqa.training.checks import check
from blip2vqa.training.recipe import finetune
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import make_run
from helpers.launching import run_script

CPU = torch.device("cpu")
LENGTHS = ["--tokens_per_row", "60", "--eval_strategy", "no"]


def make_plan(base, drawn, out, *flags) -> Plan:
    run = make_run(base, drawn, out, *LENGTHS, *flags)
    return Plan(run, check(run), str(base), load_config(str(base)), torch.float32, CPU)


def count(plan: Plan) -> MemoryTracker:
    """The training step on the longest batch."""
    loaded = plan.outline(plan.parts)
    with torch.device("meta"):
        wrap(loaded, plan.run.lora, 0)
    return count_step(loaded, plan.longest, plan.args, gradients=plan.accumulates)


@pytest.mark.parametrize(
    "kind, checkpointing, launched",
    [("opt", "false", "no"), ("opt", "true", "no"), ("t5", "false", "no"), ("opt", "false", "bf16")],
)
def test_counted_without_weights_as_in_a_real_run(
    request, drawn, tmp_path, monkeypatch, capsys, kind, checkpointing, launched
):
    """With autocast, too, which `accelerate launch` may ask for; whose layers compute is what the start block says."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    base = request.getfixturevalue(f"tiny_{kind}")
    flags = [
        "--epochs",
        "1",
        "--activation_checkpointing",
        checkpointing,
        "--feature_cache",
        str(tmp_path / "features"),
    ]
    expected = count(make_plan(base, drawn, tmp_path / "plan", *flags)).peak
    found, plain = [], []
    pefts = Linear.forward
    monkeypatch.setattr(Linear, "forward", lambda *args, **kwargs: plain.append(1) or pefts(*args, **kwargs))

    def train(self, **kwargs):
        memory = MemoryTracker(self.model.get_base_model().config.text_config.vocab_size)
        with memory:
            weights = list(self.model.parameters())
            memory.hold((weight for weight in weights if not weight.requires_grad), "weights")
            memory.hold((weight for weight in weights if weight.requires_grad), "adapter")
            original(self, **kwargs)
        found.append(memory.peak)

    original = VQATrainer.train
    monkeypatch.setattr(VQATrainer, "train", train)
    monkeypatch.setattr(
        "blip2vqa.training.recipe.answer_examples", lambda *args, **kwargs: [Answer("", 0.0)] * len(args[2])
    )
    finetune(make_run(base, drawn, tmp_path / "run", *LENGTHS, *flags))
    (peak,) = found
    assert peak["weights"] == expected["weights"]
    assert peak.total() == pytest.approx(expected.total(), rel=0.03)
    layers = {"opt": 12, "t5": 36}[kind]
    assert not plain and re.search(rf"LoRA layers: +{layers} fused\n", capsys.readouterr().out)


def test_more_at_once_takes_more_and_checkpointing_less(tiny_opt, drawn, tmp_path):
    few, many, kept, split = (
        count(make_plan(tiny_opt, drawn, tmp_path, *flags)).peak
        for flags in (
            ["--batch_size", "4"],
            ["--batch_size", "16"],
            ["--batch_size", "16", "--activation_checkpointing", "true"],
            ["--batch_size", "16", "--tokens_per_batch", "70"],
        )
    )
    assert few["activations"] * 2 < many["activations"]
    assert kept["activations"] < 0.8 * many["activations"]
    assert split["activations"] < 0.8 * many["activations"]
    assert few["weights"] == many["weights"] == kept["weights"]


def test_towers_count_where_they_run(tiny_opt, drawn, tmp_path):
    """Alone, before the language model comes, or with it in every step when nothing is kept."""
    apart = make_plan(tiny_opt, drawn, tmp_path)
    together = make_plan(tiny_opt, drawn, tmp_path, "--feature_cache", "none")
    towers = count_encoding(apart, 4)
    sizes = {
        name: weight.numel() * 4 for name, weight in load_base(str(tiny_opt), dtype="float32").model.named_parameters()
    }
    in_front = sum(size for name, size in sizes.items() if name.startswith(("vision_model", "qformer", "query_tokens")))
    assert towers.peak["weights"] == in_front
    assert count(apart).peak["weights"] == sum(sizes.values()) - in_front
    assert count(together).peak["weights"] == sum(sizes.values())
    more = count_encoding(apart, 8)
    assert more.peak["activations"] > 1.8 * towers.peak["activations"]


def test_processes_share_the_steps_and_the_images(tiny_opt, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("blip2vqa.estimate.estimate.layer_rate", lambda *args: 1e12)
    one, eight = (
        estimate_base(make_plan(tiny_opt, drawn, tmp_path, "--batch_size", "1", "--estimate", *processes), 0)
        for processes in ([], ["--processes", "8"])
    )
    assert eight["batches_per_epoch"] == math.ceil(one["batches_per_epoch"] / 8)
    times = [base["quantization"]["none"]["encode_seconds"] for base in (one, eight)]
    assert times[1] == pytest.approx(times[0] / 8)
    with pytest.raises(InputError, match="--processes: goes with --estimate"):
        make_plan(tiny_opt, drawn, tmp_path, "--processes", "8")


def test_quantized_layers_are_those_of_bitsandbytes(tiny_base, drawn, tmp_path):
    plan = make_plan(tiny_base, drawn, tmp_path)
    loaded = load_base(str(tiny_base), dtype="float32", quantization="4bit", parts=plan.parts)
    expected = [module for module in loaded.model.modules() if isinstance(module, Linear4bit)]
    layers = quantized_layers(plan.outline(plan.parts).base, plan.family)
    shapes = [tuple(layer.weight.shape) for layer in layers]
    assert expected and shapes == [(layer.out_features, layer.in_features) for layer in expected]


def test_adapter_rank_and_optimizer(tiny_opt, drawn, tmp_path):
    """At most a weight, its gradient and two states of the optimizer in 32 bits; without a gradient yet, three of them."""
    for rank in ("4", "8"):
        plan = make_plan(tiny_opt, drawn, tmp_path, "--lora_r", rank)
        loaded = plan.outline(plan.parts)
        with torch.device("meta"):
            trained = wrap(loaded, plan.run.lora, 0).trainable
        adapter = count(plan).peak["adapter"]
        assert 3 * 4 * trained <= adapter <= 4.1 * 4 * trained


def test_script_prints_and_writes_for_several_bases(tiny_opt, tiny_t5, drawn, tmp_path):
    images, table = drawn
    (tmp_path / "metrics.json").write_text("{}")  # a finished run's folder is not refused, nor changed
    done = run_script(
        "finetune.py", "--csv_path", table, "--image_dir", images, "--output_dir", tmp_path, "--dtype", "float32", *LENGTHS,
        "--base_model_id", "no/such-base", "--estimate", tiny_opt, tiny_t5,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "estimate.json"}
    result = json.loads((tmp_path / "estimate.json").read_text())
    opt, t5 = result["bases"]
    assert [opt["base_model_id"], t5["base_model_id"]] == [str(tiny_opt), str(tiny_t5)]
    assert opt["trainable"] == 28_672 and opt["parameters"] == load_base(str(tiny_opt)).model.num_parameters()
    for base in result["bases"]:
        assert f"{base['parameters']:,} parameters" in done.stdout
        sizes = [base["quantization"][kind]["memory"]["weights"] for kind in ("4bit", "8bit", "none")]
        assert sizes == sorted(set(sizes))
        for found in base["quantization"].values():
            assert found["peak"] == sum(found["memory"].values())
            assert found["encode_seconds"] > 0 < found["epoch_seconds"]
            assert found["fits"] == {"8": True, "12": True, "24": True, "80": True}
    assert done.stdout.count("8, 12, 24, 80 GB") == 6


def test_every_wrong_base_is_named(tiny_opt, drawn, tmp_path):
    run = make_run(tiny_opt, drawn, tmp_path, *LENGTHS, "--estimate", str(tiny_opt), "nowhere/1", "nowhere/2")
    with pytest.raises(InputError) as caught:
        estimate(run)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "base model nowhere/1",
        "base model nowhere/2",
    ]
    assert not (tmp_path / "estimate.json").exists()


def test_a_card_too_small_is_not_named(tiny_opt, drawn, tmp_path, monkeypatch):
    """Of a base a thousand times wider, counted as quickly: its weights exist nowhere."""
    plan = make_plan(tiny_opt, drawn, tmp_path)
    text = plan.config.text_config
    text.hidden_size = text.word_embed_proj_dim = 8192
    text.ffn_dim = 65536
    text.num_hidden_layers = 4  # 4 · (4 · 8192² + 2 · 8192 · 65536) weights of 4 bytes: 20 GiB, in 4 bits 4
    monkeypatch.setattr("blip2vqa.estimate.estimate.layer_rate", lambda *args: 1e12)
    found = estimate_base(replace(plan, config=plan.config), 0)["quantization"]
    plain, *quantized = (found[kind]["memory"]["activations"] for kind in ("none", "8bit", "4bit"))
    assert quantized[0] == quantized[1] == plain + 8192 * 65536 * 4  # one weight at a time in full width
    peaks = [found[kind]["peak"] for kind in ("4bit", "8bit", "none")]
    assert peaks == sorted(set(peaks))
    fits = {kind: [card for card, there in figures["fits"].items() if there] for kind, figures in found.items()}
    assert fits == {"none": ["24", "80"], "8bit": ["12", "24", "80"], "4bit": ["8", "12", "24", "80"]}

"""Estimate what a run would take on several bases, before any weight is loaded: parameters, peak memory and time.

Memory is counted, not guessed: a training step runs on the run's own longest batch, with tensors that have a shape and no
contents. Times are the counted operations, divided by the rate at which this device computes a layer of the base's size.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import psutil
import torch
from accelerate import PartialState
from torch._subclasses import FakeTensorMode

from blip2vqa.adapters.lora import wrap
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.config.roles import parse_scopes
from blip2vqa.estimate.memory_tracker import MemoryTracker, autocast, count_step, layer_rate, materialise
from blip2vqa.features.encode import DECODING_THREADS, stage_maker
from blip2vqa.models.attention import suit_training
from blip2vqa.models.families import family_of
from blip2vqa.models.family import LANGUAGE_MODEL, PIXELS, Family
from blip2vqa.models.loading import LoadedModel, find_device, load_config, load_processor, remove_dropout
from blip2vqa.models.precision import BYTES_PER_WEIGHT, choose_dtype, choose_quantization, quantized_layers
from blip2vqa.training.checks import check
from blip2vqa.training.data import Rows, RunData, build_run_data, count_images
from blip2vqa.training.micro_batches import split_by_tokens
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import make_batches, trainer_arguments
from blip2vqa.utils.errors import collect_errors, raise_all
from blip2vqa.utils.files import write_json_atomic
from blip2vqa.utils.formatting import percent

CARDS = (8, 12, 24, 80)  # GiB
CONTEXT = 2**29
"""Bytes of a card that CUDA and its libraries take."""
LATER = 0.2 * 2**30
"""Bytes of libraries that the first step on a CPU brings into memory."""
CUDA_SPARE = 0.05
"""Share that CUDA's allocator holds above the bytes of all tensors."""
CPU_SPARE = {"none": 0.3, "8bit": 0.65, "4bit": 0.65}
"""Share that glibc's allocator holds above the bytes of the tensors that come and go, by quantization."""
EFFICIENCY = 0.7
"""Share of a layer's rate that a whole step reaches."""
EFFICIENCIES = (0.4, 1.0)
"""The least and the most of that share, from base to base."""
SAMPLES = 3
"""Measurements of each rate; the slowest and the fastest bound the times."""
BUSY = 0.2
"""Share of all cores that other programs may use without a word."""
BATCHES = 64
"""Batches of an epoch, spread evenly over it, among which the longest is looked for."""
KINDS = ("weights", "adapter", "activations", "logits", "other")


@dataclass(frozen=True)
class _Shapes:
    """Features for the collator that have a shape and no contents."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        """Return features of so many images, [n, …], without contents."""
        return torch.empty(len(list(digests)), *self.shape, dtype=self.dtype, device="meta")

    def padded(self, digests: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return `pixel_values` without contents, and a `pixel_mask` of ones."""
        pixels = self.of(digests)
        # The mask decides how many patches there are.
        return {"pixel_values": pixels, "pixel_mask": torch.ones(len(pixels), *self.shape[1:], dtype=torch.long)}


@dataclass(frozen=True)
class Plan:
    """A run on one base, with everything but the weights."""

    run: Run
    data: RunData
    base_model_id: str
    config: object
    dtype: torch.dtype
    device: torch.device

    @property
    def family(self) -> Family:
        """The family of the base."""
        return family_of(self.config)

    @property
    def processes(self) -> int:
        """Those that share the work."""
        return self.run.model.processes or PartialState().num_processes

    @cached_property
    def args(self) -> FinetuneArguments:
        """The arguments that Trainer would get."""
        return trainer_arguments(self.run, self.dtype)

    @cached_property
    def stage(self) -> str:
        """The input that a training batch starts from."""
        stage, _ = self.family.last_frozen_stage(parse_scopes(self.run.lora.lora_scope))
        return stage if self.run.features.kept() else PIXELS

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts that are in memory during training."""
        return self.family.rest(self.stage)

    def outline(self, parts: tuple[str, ...]) -> LoadedModel:
        """Build the model that `load_base` would load with `parts`, unquantized and without contents."""
        config, family = copy.deepcopy(self.config), self.family
        remove_dropout(config)
        model = family.outline(config, parts, self.data.text.answers).to(self.dtype).requires_grad_(False).eval()
        if LANGUAGE_MODEL in parts:
            suit_training(model.language_model, self.device)
        return LoadedModel(model, None, family, self.base_model_id, None, self.device, self.dtype, "none", [])

    @cached_property
    def batches(self) -> list[list[dict[str, torch.Tensor]]]:
        """Up to `BATCHES` batches of the first epoch, as `VQATrainer` draws them and divides them into parts."""
        args, shape = self.args, self.family.stage(self.stage).shape(self.config)
        features = _Shapes(self.stage, shape, torch.float32 if self.stage == PIXELS else self.dtype)
        items, sampler, collate = make_batches(self.data, features, args)
        order, size = list(sampler), args.train_batch_size
        starts = range(0, len(order), size)
        drawn = [
            collate([items[index] for index in order[start : start + size]])
            for start in starts[:: math.ceil(len(starts) / BATCHES)]
        ]
        return [split_by_tokens(batch, args.tokens_per_batch) if args.tokens_per_batch else [batch] for batch in drawn]

    @cached_property
    def longest(self) -> dict[str, torch.Tensor]:
        """The part with most tokens, of those that are computed at once."""
        return max(
            (part for parts in self.batches for part in parts), key=lambda part: (_tokens(part), _supervised(part))
        )

    @cached_property
    def accumulates(self) -> bool:
        """Whether gradients of several parts add up to those of a step."""
        return self.args.gradient_accumulation_steps > 1 or any(len(parts) > 1 for parts in self.batches)


def _tokens(part: dict[str, torch.Tensor]) -> int:
    """Count the tokens of a batch, padding and the decoder's included."""
    return sum(part[name].numel() for name in ("input_ids", "decoder_input_ids") if name in part)


def _supervised(part: dict[str, torch.Tensor]) -> int:
    """Count the positions whose logits are computed."""
    return int(part["keep"].sum()) if "keep" in part else len(part["labels"])


def count_encoding(plan: Plan, images: int) -> MemoryTracker:
    """Count memory and operations of the frozen parts on `images` images at once."""
    loaded, memory = plan.outline(plan.family.stage(plan.stage).made_by), MemoryTracker()
    _, _, size = plan.family.stage(PIXELS).shape(plan.config)
    with FakeTensorMode(allow_non_fake_inputs=True), memory, torch.no_grad():
        materialise(loaded, memory)
        memory.peak = memory.live.copy()  # of the computation alone
        pixels = torch.empty(images, 3, size, size, dtype=plan.dtype, device=plan.device)
        stage_maker(loaded, plan.stage)(pixels)
    if plan.device.type == "cpu":  # decoded pictures of the next batches, in float32
        memory.peak["other"] += (DECODING_THREADS + 1) * images * 3 * size * size * 4
    return memory


def estimate_base(plan: Plan, process: int) -> dict:
    """Estimate the figures of one base: memory in bytes, of which a process takes `process` alone; times in seconds."""
    run, args, processes = plan.run, plan.args, plan.processes
    longest = plan.longest
    loaded = plan.outline(plan.parts)
    layers = quantized_layers(loaded.base, plan.family)
    numel, largest = sum(layer.weight.numel() for layer in layers), max(layers, key=lambda layer: layer.weight.numel())
    images = count_images(plan.data.train + plan.data.val)
    encoding, encode_flops = None, 0
    if plan.stage != PIXELS:
        batch = min(args.per_device_eval_batch_size, images)
        encoding = count_encoding(plan, batch)
        encode_flops = encoding.operations * images / batch / processes
    steps = math.ceil(len(plan.data.train) / (args.train_batch_size * processes))
    tokens = sum(_tokens(part) for parts in plan.batches for part in parts) / len(plan.batches)
    width, variants = plan.dtype.itemsize, {}
    layer = *largest.weight.shape, _tokens(longest), plan.dtype, plan.device
    encode_rates = sorted(layer_rate("none", *layer) for _ in range(SAMPLES)) if encoding else []
    with autocast(args, plan.device):
        rates = {kind: sorted(layer_rate(kind, *layer) for _ in range(SAMPLES)) for kind in ("none", *BYTES_PER_WEIGHT)}
    chosen = choose_quantization(run.model.quantization, plan.config, plan.dtype, plan.device, plan.parts)[0]
    with torch.device("meta"):
        lora = wrap(loaded, replace(run.lora, init_lora_weights="default"), args.seed, fused=not args.torch_compile)
    memory = count_step(loaded, longest, args, gradients=plan.accumulates)
    for kind in rates:
        training = dict(memory.peak)
        if kind != "none":
            training["weights"] -= round(numel * (width - BYTES_PER_WEIGHT[kind]))
            training["activations"] += largest.weight.numel() * width  # one weight at a time in its full width
        phases = {"training": training} | ({"encoding": dict(encoding.peak)} if encoding else {})
        phase = max(phases, key=lambda name: sum(phases[name].values()))
        tensors = {name: phases[phase].get(name, 0) for name in KINDS}
        held = sum(tensors.values())
        if plan.device.type == "cpu":
            runtime = round(process + CPU_SPARE[kind] * (tensors["activations"] + tensors["logits"]))
        else:
            runtime = round(CONTEXT + CUDA_SPARE * held)
        variants[kind] = {
            "memory": tensors | {"runtime": runtime},
            "peak": held + runtime,
            "peak_during": phase,
            "fits": {str(card): held * (1 + CUDA_SPARE) + CONTEXT <= card * 2**30 for card in CARDS},
            **_seconds("encode", encode_flops, encode_rates or rates["none"]),
            **_seconds("epoch", steps * memory.operations / _tokens(longest) * tokens, rates[kind]),
            "chosen": kind == chosen,
        }
    whole = plan.family.outline(plan.config, answers=plan.data.text.answers)
    return {
        "base_model_id": plan.base_model_id,
        "parameters": sum(weight.numel() for weight in whole.parameters()),
        "trainable": lora.trainable,
        "dtype": str(plan.dtype).removeprefix("torch."),
        "starts_from": plan.stage,
        "longest_batch": {"rows": len(longest["input_ids"]), "tokens": longest["input_ids"].shape[1]},
        "batches_per_epoch": steps,
        "images": images,
        "quantization": variants,
    }


def _seconds(name: str, operations: float, rates: list[float]) -> dict:
    """Estimate the seconds that so many operations take, and the shortest and longest, by rates from low to high."""
    low, high = EFFICIENCIES
    return {
        f"{name}_seconds": operations / rates[len(rates) // 2] / EFFICIENCY,
        f"{name}_range": [operations / rates[-1] / high, operations / rates[0] / low],
    }


def estimate(run: Run) -> dict:
    """Estimate the run on each base of `--estimate` (on its own, if none is given), and write `estimate.json`.

    Raises `InputError` as `checks.check` does, but whatever the run's folder holds.
    """
    bases = run.model.estimate or [run.model.base_model_id]
    # A folder that does not exist yet holds no other run, and no checkpoint.
    elsewhere = copy.copy(run.training)
    elsewhere.output_dir, elsewhere.hub_model_id = str(run.folder / "estimate"), run.push_to
    elsewhere.resume_from_checkpoint = None
    rows = check(replace(run, training=elsewhere, model=replace(run.model, base_model_id=bases[0]))).rows
    problems, device = [], find_device(run.training.use_cpu)
    process = psutil.Process().memory_info().rss + LATER
    others = psutil.cpu_percent(0.5) / 100  # of all cores, while this process waits
    plans = [collect_errors(problems, make_plan, run, rows, base, device) for base in bases]
    raise_all(problems)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{device.type.upper()}, {torch.get_num_threads()} threads"
    result = {
        "device": name,
        "busy": others if others > BUSY else None,
        "assumed": _assumed(device),
        "batch_size": plans[0].args.train_batch_size,
        "processes": plans[0].processes,
        "bases": [estimate_base(plan, process) for plan in plans],
    }
    if PartialState().is_main_process and run.training.output_dir:
        write_json_atomic(run.folder / "estimate.json", result)
    return result


def make_plan(run: Run, rows: Rows, base: str, device: torch.device) -> Plan:
    """Plan the run on one base. Raises `InputError` for a base that cannot be had, or cannot learn these rows."""
    revision = run.model.base_model_revision
    config = load_config(base, revision)
    data = build_run_data(run, rows, load_processor(base, config, revision), config)
    dtype, _ = choose_dtype(run.model.dtype, family_of(config), device)
    return Plan(run, data, base, config, dtype, device)


def _assumed(device: torch.device) -> list[str]:
    card = f"{CONTEXT / 2**30:g} GiB for CUDA, and {percent(CUDA_SPARE, 0)} that its allocator holds unused"
    spare = f"{percent(CPU_SPARE['none'], 0)} (quantized: {percent(CPU_SPARE['4bit'], 0)}) of activations and logits"
    here = f"this process without a model, and {spare} that the allocator holds unused"
    return [
        f"runtime: {here}; on a card {card}" if device.type == "cpu" else f"runtime: {card}",
        f"time: a whole step reaches {percent(EFFICIENCIES[0], 0)} to {percent(EFFICIENCIES[1], 0)} of a layer's rate here, as "
        "measured now; evaluation is not counted",
        "optimizer: AdamW, two float32 numbers a trained weight",
    ]

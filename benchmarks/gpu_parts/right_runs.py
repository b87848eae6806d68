"""Whether adapters, whole runs in 8 and 4 bits, long rows and torch.compile do on the accelerator what they promise."""

import csv
import time
from argparse import Namespace
from pathlib import Path

import torch

from benchmarks import training
from blip2vqa.adapters.attach import add_adapters, find_adapter, merge_adapter
from blip2vqa.adapters.ref import BASE, AdapterRef
from blip2vqa.api import load
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.models.attention import avoid_cudnn_attention
from blip2vqa.models.loading import find_device
from blip2vqa.training.recipe import finetune
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import VQATrainer
from gpu_parts.card import compute_exactly, still_computes
from gpu_parts.context import Context, Skipped
from gpu_parts.right import BOUNDS, CPU, Check, apart, confidence_apart, left_out, same
from gpu_parts.small import Small, base, write_adapter
from helpers.tiny_blip2 import make_table

ROW_LENGTHS = (64, 128, 192, 320)
"""Lengths at which attention's kernels change; at 64 behind a multiple of 128 one is reported to give no numbers."""
QUERIES, ANSWER = 32, 3
CUDNN_LENGTHS = (64, 192)
NAMES = ("one", "two")
NO_COMPILER = (
    "Failed to find C compiler", "No working C++ compiler", "Cannot find a working triton", "No module named 'triton'",
    "CalledProcessError", "FileNotFoundError", "too old to be supported by the triton", "Compiler: ",
)  # fmt: skip
"""What errors say of a machine on which nothing can be compiled, by the compilers of torch and Triton."""


def check_lengths(context: Context) -> list[dict]:
    """Compare our step on rows of certain lengths with upstream's, on the device and in 16 bits."""
    compute_exactly()
    avoid_cudnn_attention()  # as our step does: upstream's is to use the same kernels
    device, checks = find_device(), []
    for dtype in ("bfloat16", "float16"):  # the kernels in question are theirs alone
        if left_out(dtype, device):
            continue
        for length in ROW_LENGTHS:
            found = training.exactness("tiny", rows_of(length), getattr(torch, dtype), device, spread=0.05)
            bound = BOUNDS[dtype].gradients
            checks.append(Check(f"{dtype}: gradients in rows of {length}", found["gradient_norm_difference"], bound))
        if device.type == "cuda":
            checks += [check_cudnn(dtype, length, device) for length in CUDNN_LENGTHS]
    return [check.row() for check in checks]


def rows_of(length: int) -> Namespace:
    """What `training.Work` is told to make rows of this length, of two questions each."""
    prompt = (length - QUERIES) // 2 - ANSWER
    return Namespace(
        images=2, questions_per_image=2, repeats=1, prompt_tokens=prompt, answer_tokens=ANSWER, shape="tiny"
    )


def check_cudnn(dtype: str, length: int, device: torch.device) -> Check:
    """Say, without a verdict, whether gradients would be finite with cuDNN's attention, which training turns off."""
    name = f"{dtype}: share of finite gradients in rows of {length} with cuDNN's attention"
    work = training.Work("tiny", rows_of(length), getattr(torch, dtype), device, spread=0.05)
    work.as_ours()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        work.our_loss().backward()
        gradients = torch.cat([weight.grad.flatten() for weight in work.trained])
        return Check(name, gradients.isfinite().float().mean().item())
    except RuntimeError as error:
        if not still_computes(device):
            raise
        return Check(name, None, note=f"{type(error).__name__}: {error}".splitlines()[0][:200])
    finally:
        avoid_cudnn_attention()


def check_adapters(context: Context) -> list[dict]:
    """Compare two adapters merged, side by side and mixed in a batch: on the device with each other and with the CPU."""
    compute_exactly()
    device, checks = find_device(), []
    for kind in ("blip2-opt", "blip2-t5"):
        there = base(context.scratch, kind)
        written = [write_adapter(context.scratch / f"{kind}-{name}", there, seed) for seed, name in enumerate(NAMES, 1)]
        found = {AdapterRef.named(name): find_adapter(str(path)) for name, path in zip(NAMES, written, strict=True)}
        for dtype in ("float32", "bfloat16") if kind == "blip2-opt" else ("float32",):
            if left_out(dtype, device) is None:
                checks += _compare_adapters(f"{kind}, {dtype}", there, found, dtype, device)
    return [check.row() for check in checks]


def _compare_adapters(name: str, there: Path, found: dict, dtype: str, device: torch.device) -> list[Check]:
    def merged(adapter, device: torch.device, dtype: str) -> list[tuple[str, float]]:
        small = Small.load(there, device, dtype)
        merge_adapter(small.loaded, adapter)
        return small.ask(small.request())

    small, refs = Small.load(there, device, dtype), [*found, BASE]
    bare = small.ask(small.request())
    add_adapters(small.loaded, found)
    beside = {ref: small.ask(small.request(adapter=ref)) for ref in refs}
    turns = [refs[number % len(refs)] for number in range(len(bare))]
    mixed = small.ask([small.request(adapter=ref) for ref in turns])
    expected = [beside[ref][number] for number, ref in enumerate(turns)]
    exact, far = dtype == "float32", BOUNDS[dtype].confidence

    def both(what: str, said, wanted) -> list[Check]:
        least = 1.0 if exact else None  # in 16 bits words of random weights are near ties
        checks = [Check(f"{name}: equal answers, {what}", same(said, wanted), least, least=True)]
        return [*checks, Check(f"{name}: confidences, {what}", confidence_apart(said, wanted), far)]

    checks = both("mixed batches beside whole ones", mixed, expected)
    checks += both("the base beside its adapters", beside[BASE], bare)
    for ref, adapter in found.items():
        checks += both(f"{ref.name} merged beside side by side", merged(adapter, device, dtype), beside[ref])
        if exact:
            checks += both(f"{ref.name} merged, beside the CPU", beside[ref], merged(adapter, CPU, dtype))
    unlike = 1 - same(beside[refs[0]], beside[refs[1]])
    checks.append(Check(f"{name}: answers that the adapters change", unlike, 0.05, least=True))
    return checks


def check_run(bits: str, context: Context) -> list[dict]:
    """Train on drawn squares as `finetune.py` does, save, load again, and answer the validation questions the same."""
    there = base(context.scratch, "blip2-opt")
    images, table = make_table(context.scratch / f"drawn-{bits}", images=8)
    output, watched = context.scratch / f"run-{bits}", []
    # fmt: off
    argv = [
        "--base_model_id", there, "--image_dir", images, "--csv_path", table, "--output_dir", output,
        "--quantization", bits, "--bertscore_model", "none", "--disable_tqdm", "true",
        "--learning_rate", "1e-2", "--warmup_steps", "2", "--epochs", "6", "--batch_size", "12",
        "--logging_steps", "1", "--eval_strategy", "no", "--save_strategy", "no",
        "--feature_cache", context.scratch / "features",
    ]
    # fmt: on
    parts, resolved = parse(FINETUNE_ARGUMENTS, "on_gpu", list(map(str, argv)))

    def make(*args):
        watched.append(VQATrainer(*args))
        return watched[0]

    finetune(Run(*parts, resolved), make)
    losses = [entry["loss"] for entry in watched[0].state.log_history if "loss" in entry]
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(row["generated_answer"], 1.0) for row in rows]
    model = load(output, quantization=bits)
    answers = model.answer_batch([images / row["image_name"] for row in rows], [row["question"] for row in rows])
    said = [(answer.text, answer.confidence) for answer in answers]
    checks = [
        Check("last loss, of the first", losses[-1] / losses[0], 0.9),
        Check("equal answers when loaded again", same(said, expected), 0.8, least=True),
        Check("questions answered", len(said), 1, least=True),
    ]
    return [check.row() for check in checks]


def check_compile(context: Context) -> list[dict]:
    """Compare one training step under torch.compile with the same step without.

    A failure to compile is a result; where there is no compiler, it is skipped.
    """
    compute_exactly()
    device = find_device()
    # On a CPU the default one compiles C++ for minutes; tracing and differentiating are the same.
    backend = "aot_eager" if device.type == "cpu" else "inductor"
    small = Small.load(base(context.scratch, "blip2-opt"), device, "float32")
    small.adapt(fused=False)
    loss, gradients = small.step()
    start = time.perf_counter()
    try:
        found = small.step(model=torch.compile(small.loaded.model, backend=backend))
    except Exception as error:  # a compiler may raise anything
        if any(said in f"{type(error).__name__}: {error}" for said in NO_COMPILER):
            raise Skipped(f"could not be compiled: {str(error).strip().splitlines()[0][:200]}") from error
        why = f"{backend} failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        return [Check("compiled step", None, note=why).row() | {"right": False}]
    seconds, bounds = time.perf_counter() - start, BOUNDS["float32"]
    checks = [
        Check(f"loss, compiled by {backend}", abs(found[0] - loss) / abs(loss), bounds.loss),
        Check(f"gradients, compiled by {backend}", apart(found[1], gradients), bounds.gradients),
        Check("seconds of the first compiled step", seconds),
    ]
    return [check.row() for check in checks]


STEPS = {
    "row lengths": check_lengths,
    "adapters": check_adapters,
    **{
        f"run in {'full' if bits == 'none' else bits}": (lambda context, bits=bits: check_run(bits, context))
        for bits in ("none", "8bit", "4bit")
    },
    "compile": check_compile,
}

"""How fast training and answering are at a model's real dimensions, beside the plain way, each at its own best batch size."""

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import inference, training
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.estimate.estimate import CONTEXT, CUDA_SPARE
from blip2vqa.estimate.memory_tracker import count_step
from blip2vqa.models.attention import suit_training
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import LoadedModel, find_device, remove_dropout
from blip2vqa.models.precision import choose_dtype
from gpu_parts.card import still_computes
from gpu_parts.context import Context, NoTime, Skipped
from measuring import MatrixProducts, free_unused, matmul_rate, peak_bytes, seconds
from shapes import configuration

QUESTIONS_PER_IMAGE = 4
PROMPT_TOKENS, ANSWER_TOKENS, REPEATS = 20, 3, 3
MOST_IMAGES = {"cpu": 2}
"""By type of device, where doubling ends in any case; elsewhere at `FAR`."""
FAR = 1024
LITTLE = 1.02
"""A larger batch must be that much faster to be the best; two in a row that are not end the search."""
PLAIN_ENDS, OURS_ENDS = 0.35, 0.6
"""Shares of a step's time after which the two searches end; the rest is for memory, floor and estimate."""
LEAST = 40.0
"""Seconds below which no step is begun: a model of billions of weights takes some to make."""
ROOM = 0.9
"""Share of free memory that the weights may take."""


def options(shape: str, images: int = 1) -> Namespace:
    """What the `Work` of `training.py` and `inference.py` is told."""
    return Namespace(
        shape=shape, images=images, questions_per_image=QUESTIONS_PER_IMAGE, repeats=1, prompt_tokens=PROMPT_TOKENS,
        answer_tokens=ANSWER_TOKENS, batch_size=images * QUESTIONS_PER_IMAGE, seed_questions=1,
    )  # fmt: skip


def precision(shape: str, device: torch.device) -> torch.dtype:
    """The precision that the commands choose on this device."""
    return choose_dtype("auto", family_of(configuration(shape)), device)[0]


def check_room(shape: str, device: torch.device) -> int:
    """Bytes of the weights. Raises `Skipped` where the card has no room for them."""
    config, dtype = configuration(shape), precision(shape, device)
    need = sum(weight.numel() for weight in family_of(config).outline(config).parameters()) * dtype.itemsize
    if device.type in ("cuda", "xpu"):
        free_unused()
        free, _ = torch.accelerator.get_memory_info(device)
        if need > ROOM * free:
            raise Skipped(f"its weights take {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of the card are free")
    return need


def attempt(function: Callable[[], object]) -> object | None:
    """The function's result; None where it was out of memory, which is free again then."""
    try:
        return function()
    except MemoryError:
        pass
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        allocation = "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
        if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error) or allocation):
            raise
    free_unused()  # behind the handler: the error's traceback held the tensors of the step
    return None


def best_batch(take: Callable[[int], None], run: Callable[[], object], device: torch.device, until: float) -> dict:
    """Double the images of a batch until out of memory, or until two doublings gain nothing: the fastest and all tried.

    `take(images)` makes the batch, `run()` works it off once. `until`: a time of `time.monotonic`; a size that would take
    longer is not tried, but one is in any case. Without a best one, that one was out of memory. `ended` says why it ended.
    """
    tried, images, ended, best, spent = [], 1, "largest size", None, 0.0
    most = MOST_IMAGES.get(device.type, FAR)
    while images <= most:
        began = time.monotonic()
        if tried and began + 2 * spent > until:
            ended = "time"
            break

        def measure(images=images) -> float:
            take(images)
            run()  # compiles, allocates, warms up
            return min(seconds(run, device) for _ in range(REPEATS))

        try:
            taken = attempt(measure)
        except Exception as error:
            if not tried or not still_computes(device):
                raise
            ended = f"{type(error).__name__}: {error}"[:300]
            break
        if taken is None:
            ended = "out of memory"
            break
        spent = time.monotonic() - began
        questions = images * QUESTIONS_PER_IMAGE
        tried.append({"questions": questions, "seconds": taken, "questions_per_second": questions / taken})
        if best is None or tried[-1]["questions_per_second"] > LITTLE * best["questions_per_second"]:
            best = tried[-1]
        elif questions >= 4 * best["questions"]:
            ended = "no gain"
            break
        images *= 2
    free_unused()
    return {"best": best, "tried": tried, "ended": ended}


def worth(found: dict, context: Context) -> None:
    """Raise where our way's search has nothing to keep: out of memory, or one size alone where the next run has more time."""
    if not found["best"]:
        raise Skipped("our way was out of memory at one image already")
    if found["ended"] == "time" and len(found["tried"]) == 1 and context.hurried:
        raise NoTime


def begin(shape: str, what: str) -> tuple[torch.device, torch.dtype, float, dict]:
    """Look at the card: device, precision, rate of its matrix products (operations a second), and a result that says so."""
    device = find_device()
    result = {"shape": shape, "what": what, "weights_bytes": check_room(shape, device)}
    dtype = precision(shape, device)
    rate = matmul_rate(dtype, device, **({"size": 512, "repeats": 3} if device.type == "cpu" else {}))
    return device, dtype, rate, result | {"dtype": str(dtype).removeprefix("torch."), "matmul_tflops": rate / 1e12}


def train(shape: str, context: Context) -> dict:
    """Training beside the plain way; each way's search gets a part of the step's time."""
    begun, limit = time.monotonic(), context.seconds
    device, dtype, rate, result = begin(shape, "training")
    work = attempt(lambda: training.Work(shape, options(shape), dtype, device))
    if work is None:
        raise Skipped("out of memory at one image already")
    work.train()
    work.as_upstream()
    plain = best_batch(work.take, clean(work, work.reference_step), device, begun + PLAIN_ENDS * limit)
    if plain["best"]:
        work.take(plain["best"]["questions"] // QUESTIONS_PER_IMAGE)
        plain["peak_bytes"] = attempt(lambda: peak_bytes(work.reference_step, device))
    work.drop_towers()
    work.as_ours()
    step = clean(work, work.our_step)
    ours = best_batch(lambda images: work.take(images, towers=False), step, device, begun + OURS_ENDS * limit)
    result |= {"plain": plain, "ours": ours}
    worth(ours, context)
    images = ours["best"]["questions"] // QUESTIONS_PER_IMAGE
    work.take(images, towers=False)
    ours["peak_bytes"] = attempt(lambda: peak_bytes(work.our_step, device))
    ours["reserved_bytes"] = torch.accelerator.max_memory_reserved() if device.type in ("cuda", "xpu") else None
    ours |= shares(work.our_step, ours["best"]["seconds"], rate)
    result |= compared(plain, ours)
    add(result, "floor_seconds", lambda: floor(work, device))
    add(result, "estimate", lambda: estimate(shape, images, dtype, device))
    return result


def add(result: dict, name: str, function: Callable[[], object]) -> None:
    """Add a figure to a result that is worth keeping without it; what went wrong is added in its place."""
    try:
        result[name] = attempt(function)
    except Exception as error:
        result |= {name: None, f"{name}_failed": f"{type(error).__name__}: {error}"[:300]}


def clean(work: training.Work, step: Callable[[], None]) -> Callable[[], None]:
    """The step; gradients of one that was out of memory midway are let go first."""

    def run() -> None:
        work.optimizer.zero_grad()
        step()

    return run


def floor(work: training.Work, device: torch.device) -> float:
    """Seconds of our step's matrix products alone."""
    products = MatrixProducts(work.loaded.model)
    with products:
        work.our_step()
    products.run()
    return min(seconds(products.run, device) for _ in range(REPEATS))


def shares(run: Callable[[], object], taken: float, rate: float) -> dict[str, float | None]:
    """Operations a second of what takes `taken` seconds, and their share of a large matrix product's."""
    with FlopCounterMode(display=False) as counter:
        if attempt(lambda: (run(),)) is None:  # it just fitted before
            return {"tflops": None, "share_of_matmul": None}
    operations = counter.get_total_flops()
    return {"tflops": operations / taken / 1e12, "share_of_matmul": operations / taken / rate}


def compared(plain: dict, ours: dict) -> dict[str, float | None]:
    """How many times as many questions a second, and the share of the plain way's memory; None without a plain way."""
    if not plain["best"]:
        return {"speedup": None, "memory_ratio": None}
    held = plain.get("peak_bytes"), ours.get("peak_bytes")
    faster = ours["best"]["questions_per_second"] / plain["best"]["questions_per_second"]
    return {"speedup": faster, "memory_ratio": held[1] / held[0] if all(held) else None}


def estimate(shape: str, images: int, dtype: torch.dtype, device: torch.device) -> dict[str, int]:
    """What `finetune.py --estimate` would say of our step: bytes of its tensors, and of the card as a whole."""
    config = configuration(shape)
    _, _, _, collate = training.collating(config, options(shape), images)
    remove_dropout(config)
    family = family_of(config)
    stage, _ = family.last_frozen_stage(("language_model",))
    batch = collate(torch.empty(images, *family.stage(stage).shape(config), dtype=dtype, device="meta"))
    outline = family.outline(config, family.rest(stage)).to(dtype).requires_grad_(False).eval()
    suit_training(outline.language_model, device)
    loaded = LoadedModel(outline, None, family, shape, None, device, dtype, "none", [])
    with torch.device("meta"):
        wrap(loaded, LoraArguments(), seed=0)
    plain = {"activation_checkpointing": False, "label_smoothing_factor": 0.0, "mixed_precision": "no"}
    memory = count_step(loaded, batch, Namespace(**plain, max_grad_norm=training.MAX_GRADIENT_NORM))
    held = sum(memory.peak.values())
    return {"tensors_bytes": held, "card_bytes": round(held * (1 + CUDA_SPARE) + CONTEXT)}


def answer(shape: str, context: Context) -> dict:
    """Answering beside upstream's `generate`, features kept and new; each way's search gets a part of the step's time."""
    begun, limit = time.monotonic(), context.seconds
    device, dtype, rate, result = begin(shape, "answering")
    with tempfile.TemporaryDirectory() as folder:
        work = attempt(lambda: inference.Work(shape, options(shape), dtype, device, folder))
        if work is None:
            raise Skipped("out of memory at one image already")
        work.as_upstream()
        plain = best_batch(lambda images: resize(work, images), work.reference, device, begun + PLAIN_ENDS * limit)
        if plain["best"]:
            resize(work, plain["best"]["questions"] // QUESTIONS_PER_IMAGE)
            plain["peak_bytes"] = attempt(lambda: peak_bytes(work.reference, device))
            said = attempt(work.reference)
        work.as_ours()
        if plain["best"] and said:
            kept = work.stored()
            result["same_answers_share"] = sum(map(str.__eq__, said, kept)) / len(said)
        ours = best_batch(lambda images: resize(work, images), work.stored, device, begun + OURS_ENDS * limit)
        worth(ours, context)
        resize(work, ours["best"]["questions"] // QUESTIONS_PER_IMAGE)
        taken = attempt(lambda: min(seconds(work.first, device) for _ in range(REPEATS)))
        ours["first_questions_per_second"] = taken and len(work.questions) / taken
        ours |= shares(work.stored, ours["best"]["seconds"], rate)
        work.drop_towers()
        ours["peak_bytes"] = attempt(lambda: peak_bytes(work.stored, device))
    return result | {"plain": plain, "ours": ours} | compared(plain, ours)


def resize(work: inference.Work, images: int) -> None:
    """Ask about so many images, all questions in one batch."""
    work.args.batch_size = images * QUESTIONS_PER_IMAGE
    work.take(images)


def steps(shape: str) -> dict[str, Callable[[Context], dict]]:
    """The steps of one shape."""
    return {
        "training": lambda context: train(shape, context),
        "answering": lambda context: answer(shape, context),
    }

"""Measure a moved adapter on the user's table, beside its base, a zero and a random adapter, and one trained directly."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch

from blip2vqa.adapters import ref
from blip2vqa.adapters.algebra import Deltas, Factors, norm, read_deltas, write_adapter
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.ref import AdapterRef
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.exchange import MovingArguments
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.evaluation.scores import swap_images
from blip2vqa.evaluation.verdict import BLIND
from blip2vqa.inference.generation import Answer, answer_examples
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import scratch_folder
from blip2vqa.utils.memory import free_memory

BASE, MOVED, DIRECT = "target base", "moved adapter", "trained directly"
SWAPPED = "moved, images swapped"
ZERO, RANDOM = "zero adapter", "random adapter"
SOURCE, SOURCE_BASE = "source adapter", "source base"


def answer(
    args: MovingArguments, spec: ModelSpec, pairs: list[tuple[AnswerRequest, Example]], progress: str
) -> list[Answer]:
    """Load a base with its adapters, and answer each (request, example) in common batches; it leaves memory afterwards."""
    requests, examples = [request for request, _ in pairs], [example for _, example in pairs]
    options = {"quantization": args.quantization, "batch_size": args.batch_size}
    loaded, features, _ = spec.load(examples, FeatureArguments().kept(), **options)
    answers = answer_examples(loaded, features, examples, requests, batch_size=args.batch_size, progress=progress)
    del loaded, features
    free_memory()
    return answers


def random_like(deltas: Deltas, seed: int) -> Deltas:
    """Draw random factors, each ΔW of the same rank and norm: the effect of an adapter that has learnt nothing."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, factors in deltas.items():
        a, b = (torch.randn(side.shape, generator=generator) for side in (factors.a, factors.b))
        made[name] = Factors(a, b * (norm(factors) / norm(Factors(a, b))))
    return made


def measure(
    moved: Adapter,
    target: str,
    revision: str | None,
    examples: list[Example],
    args: MovingArguments,
    *,
    source: Adapter | None = None,
    direct: str | None = None,
) -> dict:
    """Answer `examples` by the target base and by adapters of it, in common batches, and compare.

    `source` is the adapter as it was, measured on its own base, too, where that is to be had; `direct` is an adapter trained
    directly for the target. Returns the result of `evaluation.compare.compare` and `gain`, {moved, direct, recovered}: the
    accuracy of the moved adapter less that of the base, that of the direct one less that of the base, and the ratio of the
    two. Without an adapter trained directly the last two are None.
    """
    adapters, notes = {MOVED: str(moved.folder)} | ({DIRECT: direct} if direct else {}), []
    with scratch_folder() as scratch:
        try:
            adapters |= _controls(moved, scratch, args.seed)
        except InputError as error:
            notes.append(f"No zero and no random adapter beside it: {error.problems[0]}")
        runs = run_systems(args, target, revision, adapters, examples, moved, BASE, swapped=MOVED)
    if source and source.base_model_id:
        own = source.base_model_id, source.base_model_revision
        try:
            runs += run_systems(args, *own, {SOURCE: source.name}, examples, source, SOURCE_BASE)
        except InputError as error:
            notes.append(f"The source is not measured on its own base: {error.problems[0]}")
    result = compare(examples, runs)
    result["notes"] += notes
    accuracy = {row["name"]: row["accuracy"] for row in result["systems"]}
    gain = {"moved": accuracy[MOVED] - accuracy[BASE], "direct": None, "recovered": None}
    if direct:
        gain["direct"] = accuracy[DIRECT] - accuracy[BASE]
        gain["recovered"] = gain["moved"] / gain["direct"] if gain["direct"] > 0 else None
    return result | {"gain": gain}


def scores_of(result: dict) -> dict[str, dict]:
    """Pick the scores of a measurement that `metrics.json` holds."""
    rows = {row["name"]: row for row in result["systems"]}
    named = {"base": BASE, "adapter": MOVED, "blind": BLIND, "swapped": SWAPPED}
    own = SystemRun.__dataclass_fields__
    return {
        key: {name: value for name, value in rows[row].items() if name not in own}
        for key, row in named.items()
        if row in rows
    }


def _controls(moved: Adapter, folder: Path, seed: int) -> dict[str, str]:
    """Write adapters that should gain nothing, to stand beside a moved one; return name → folder."""
    deltas = read_deltas(moved)
    zero = {name: Factors(factors.a, torch.zeros_like(factors.b)) for name, factors in deltas.items()}
    for name, made in ((ZERO, zero), (RANDOM, random_like(deltas, seed))):
        write_adapter(folder / name, made, like=moved, manifest=moved.manifest)
    return {name: str(folder / name) for name in (ZERO, RANDOM)}


def run_systems(
    args: MovingArguments,
    base: str,
    revision: str | None,
    adapters: Mapping[str, str],
    examples: list[Example],
    like: Adapter,
    base_name: str,
    swapped: str | None = None,
) -> list[SystemRun]:
    """Answer the examples by a base, `base_name` in the result, and by adapters of it, in common batches.

    `adapters`: name → folder, name in the store, or Hub id. Each is asked with its own prompt and decoding, the base with those
    of `like`; the adapter called `swapped` is asked about swapped images, too.
    """
    given = {AdapterRef.named(name): (path, None) for name, path in adapters.items()}
    spec = find_model_spec(base, revision, given, with_base=True, dtype=args.dtype)
    own = {"prompt": like.manifest.get("prompt"), "decoding": like.manifest.get("decoding") or {}}
    requests = {base_name: spec.request(ref.BASE, **own)}
    requests |= {name: spec.request(AdapterRef.named(name)) for name in adapters}
    pairs = {name: [(request, example) for example in examples] for name, request in requests.items()}
    others = swap_images(examples, args.seed) if swapped else None
    if others:
        pairs[SWAPPED] = [(requests[swapped], example) for example in others]
    answers = iter(answer(args, spec, [*chain(*pairs.values())], f"answering by {Path(base).name}"))
    runs = []
    for name, asked in pairs.items():
        texts = [next(answers).text for _ in asked]
        adapter = None if name in (ZERO, RANDOM) else adapters.get(name)  # of these nothing is kept
        runs.append(SystemRun(name, texts, base, adapter, args.quantization, asked[0][0].text.prompt))
    return runs

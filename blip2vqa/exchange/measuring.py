"""What a moved adapter is worth on the user's table, beside its base, a zero and a random adapter, and one trained directly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from blip2vqa.adapters.algebra import Deltas, Factors, norm, read_deltas, write_adapter
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.config.common import FeatureArguments
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.compare import BLIND, SystemRun, compare
from blip2vqa.evaluation.scores import swap_images
from blip2vqa.inference.generation import Answer, answer_examples
from blip2vqa.inference.model_spec import ModelSpec, find_model_spec
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.memory import free_memory

BASE, MOVED, DIRECT = "target base", "moved adapter", "trained directly"
SWAPPED = "moved, images swapped"
ZERO, RANDOM = "zero adapter", "random adapter"
SOURCE, SOURCE_BASE = "source adapter", "source base"


@dataclass(frozen=True)
class Asking:
    """How bases are loaded and asked."""

    batch_size: int = 16
    dtype: str = "auto"
    quantization: str = "auto"
    seed: int = 42
    """Of the random adapter and of the swapped images."""

    def ask(self, spec: ModelSpec, asked: list[tuple[AnswerRequest, Example]], progress: str) -> list[Answer]:
        """What each request says to its example, in common batches; the base leaves memory afterwards."""
        images = {example.digest: example.image for _, example in asked}
        options = {"dtype": self.dtype, "quantization": self.quantization, "batch_size": self.batch_size}
        loaded, features, _ = spec.load(images, FeatureArguments().kept(), **options)
        requests, examples = [request for request, _ in asked], [example for _, example in asked]
        answers = answer_examples(loaded, features, examples, requests, batch_size=self.batch_size, progress=progress)
        del loaded, features
        free_memory()
        return answers


def random_like(deltas: Deltas, seed: int) -> Deltas:
    """Random factors, each ΔW of the same rank and norm: what an adapter does that has learnt nothing."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, factors in deltas.items():
        a, b = (torch.randn(side.shape, generator=generator) for side in (factors.a, factors.b))
        made[name] = Factors(a, b * (norm(factors) / norm(Factors(a, b))))
    return made


def zero_like(deltas: Deltas) -> Deltas:
    """Factors that add nothing."""
    return {name: Factors(factors.a, torch.zeros_like(factors.b)) for name, factors in deltas.items()}


def measure(
    moved: Adapter,
    target: str,
    revision: str | None,
    examples: list[Example],
    asking: Asking,
    *,
    source: Adapter | None = None,
    direct: str | None = None,
) -> dict:
    """Answer `examples` by the target base and by adapters of it, in common batches, and compare.

    Args:
        source: the adapter as it was, measured on its own base, too, where that is to be had.
        direct: an adapter trained directly for the target.

    Returns what `comparison.compare` does, and `gain`: {moved, direct, recovered}: the accuracy of the moved adapter less that
    of the base, that of the direct one less that of the base, and the ratio of the two; the last two None without a direct one.
    """
    adapters, notes = {MOVED: str(moved.folder)} | ({DIRECT: direct} if direct else {}), []
    with TemporaryDirectory() as scratch:
        try:
            adapters |= _controls(moved, Path(scratch), asking.seed)
        except InputError as error:
            notes.append(f"No zero and no random adapter beside it: {error.problems[0]}")
        runs = _run(asking, target, revision, adapters, examples, moved, BASE, swapped=MOVED)
    if source and source.base_model_id:
        own = source.base_model_id, source.base_model_revision
        try:
            runs += _run(asking, *own, {SOURCE: source.name}, examples, source, SOURCE_BASE)
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
    """What `metrics.json` holds, of a measurement."""
    rows = {row["name"]: row for row in result["systems"]}
    named = {"base": BASE, "adapter": MOVED, "blind": BLIND, "swapped": SWAPPED}
    own = SystemRun.__dataclass_fields__
    return {
        key: {name: value for name, value in rows[row].items() if name not in own}
        for key, row in named.items()
        if row in rows
    }


def _controls(moved: Adapter, folder: Path, seed: int) -> dict[str, str]:
    """Adapters beside a moved one that should gain nothing."""
    deltas = read_deltas(moved)
    for name, made in ((ZERO, zero_like(deltas)), (RANDOM, random_like(deltas, seed))):
        write_adapter(folder / name, made, like=moved, manifest=moved.manifest)
    return {name: str(folder / name) for name in (ZERO, RANDOM)}


def _run(
    asking: Asking,
    base: str,
    revision: str | None,
    adapters: Mapping[str, str],
    examples: list[Example],
    like: Adapter,
    base_name: str,
    swapped: str | None = None,
) -> list[SystemRun]:
    """The base, asked as `like` is, and its adapters, each asked in its own way; one of them about swapped images, too."""
    given = {name: (path, None) for name, path in adapters.items()}
    spec = find_model_spec(base, revision, given, with_base=True, dtype=asking.dtype)
    manner = {"prompt": like.manifest.get("prompt"), "decoding": like.manifest.get("decoding") or {}}
    requests = {base_name: spec.request(None, **manner)} | {name: spec.request(name) for name in adapters}
    asked = {name: [(request, example) for example in examples] for name, request in requests.items()}
    others = swap_images(examples, asking.seed) if swapped else None
    if others:
        asked[SWAPPED] = [(requests[swapped], example) for example in others]
    said = iter(
        asking.ask(spec, [pair for pairs in asked.values() for pair in pairs], f"answering by {Path(base).name}")
    )
    runs = []
    for name, pairs in asked.items():
        answers = [next(said).text for _ in pairs]
        prompt = pairs[0][0].text.prompt
        runs.append(SystemRun(name, answers, base, adapters.get(name), asking.quantization, prompt))
    return runs

"""Identify the parts of a base, whatever files, precision and name they come in: a hash tells equal, a sketch tells close."""

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from transformers import AutoTokenizer

from blip2vqa.adapters.base.checkpoints import Checkpoint, open_checkpoint
from blip2vqa.adapters.validation.manifest_schema import SKETCH, Base
from blip2vqa.adapters.validation.schema import problems_of
from blip2vqa.models.family import TOKEN_EMBEDDINGS
from blip2vqa.models.loading import load_processor, remembered
from blip2vqa.models.places import part_of
from blip2vqa.models.text import IMAGE_TOKEN
from blip2vqa.utils.files import write_json_atomic
from blip2vqa.utils.progress import show_progress
from blip2vqa.utils.strict_json import read_json

FORMAT = 1  # another number for another way to compute any of it: results of two formats are not compared

SAME, CAST, QUANTIZED, DIFFERENT, UNKNOWN = "same", "cast", "quantized", "different", "unknown"
CAST_DISTANCE = 0.0025
"""Two copies are no further apart when one was cast: rounding to bfloat16 moves a number by at most 2⁻⁹ = 0.00195 of itself,
and a sketch may say 30 % more. Measured: 0.0015 in bfloat16, 0.0002 in float16 (normal weights of opt-2.7b's shapes, and
the trained ones of MiniLM). A copy that was fine-tuned by less than that cannot be told from a cast one."""
QUANTIZED_DISTANCE = {"8bit": 0.03, "4bit": 0.2}
"""The same for bitsandbytes' quantization. Measured, in the same places: 0.009 and 0.011 in 8 bits (a scale for each row; rows
with outliers do worse), 0.09 in 4 bits of nf4, 0.13 of fp4. A copy that was fine-tuned a little and then quantized cannot be
told from one that was not."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_ROW = 4096
BLOCK = 2**22
"""Numbers that are hashed or summed at a time."""
_PROBE = "Question: What's in the photo, 3 red cars or <b>naïve</b> boats?\nAnswer: 2"
_NO_SETTING = {
    "image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "transformers_version", "auto_map",
}  # fmt: skip


def fingerprint_base(base_model_id: str, revision: str | None = None, *, progress: bool = False) -> dict:
    """Compute what identifies a base, once for its files.

    Returns `{"parts": {part: {"sha256", "sketch"}}, "dtype", "quantization", "tokenizer", "image_processor"}`. A part's hash
    is over names, shapes and content rounded to bfloat16: the same for a float32 copy and its bfloat16 cast. Its names begin
    inside the part, so that the language model of a BLIP-2 is the one that stands alone. Hashes are None for what the base
    does not have. Raises `InputError` as `open_checkpoint` does.
    """
    checkpoint = open_checkpoint(base_model_id, revision)
    known = _cached(checkpoint)
    if known is not None:
        return known
    tokenizer, image_processor = _processor(checkpoint)
    found = {
        "format": FORMAT,
        "parts": fingerprint_parts(checkpoint, None if tokenizer is None else tokenizer.vocab_size, progress),
        "dtype": str(checkpoint.stored_dtype).removeprefix("torch."),
        "quantization": checkpoint.quantized,
        "tokenizer": None,
        "image_processor": None,
    }
    if image_processor is not None:
        settings = image_processor.to_dict().items()
        found["image_processor"] = _hash({k: v for k, v in settings if k not in _NO_SETTING and v is not None})
    if tokenizer is not None:  # else it may only be out of reach for now, and nothing is kept
        # The token <image>, which only BLIP-2 needs, is left out.
        words = {word: number for word, number in tokenizer.get_vocab().items() if word != IMAGE_TOKEN}
        found["tokenizer"] = _hash([words, tokenizer(_PROBE, verbose=False)["input_ids"]])
        with suppress(OSError):  # a cache that cannot be written costs time, and nothing else
            write_json_atomic(_cache_file(checkpoint), found)
    return found


def base_facts(base: Checkpoint) -> dict:
    """Return what the manifest of an adapter says of its base."""
    return {
        "family": base.family.name if base.family else base.config.model_type,
        "base_model_id": remembered(base.base_model_id),
        "base_model_revision": base.revision,
        "base": fingerprint_base(base.base_model_id, base.revision),
    }


def compare_parts(mine: dict, theirs: dict) -> dict[str, str]:
    """Tell how each part of one base relates to another's, from two results of `fingerprint_base`.

    Returns part → "same": equal to the last bit of bfloat16; "cast": no further apart than a cast puts them; "quantized-8bit",
    "quantized-4bit": no further apart than quantizing does, and one of them is quantized; "different"; "unknown": not in both.
    """
    ours, others = mine.get("parts", {}), theirs.get("parts", {})
    if mine.get("format") != theirs.get("format"):
        return dict.fromkeys({**ours, **others}, UNKNOWN)
    bits = {base.get("quantization") for base in (mine, theirs)}
    # The coarser of the two decides. Copies in one precision have no reason to differ.
    limits = [(CAST, CAST_DISTANCE)] * (mine.get("dtype") != theirs.get("dtype")) + [
        (f"{QUANTIZED}-{kind}", limit) for kind, limit in QUANTIZED_DISTANCE.items() if kind in bits
    ]
    found = {}
    for part in {**ours, **others}:
        one, other = ours.get(part), others.get(part)
        if not one or not other:
            found[part] = UNKNOWN
        elif one["sha256"] == other["sha256"]:
            found[part] = SAME
        else:
            apart = distance(one, other)
            found[part] = next((how for how, limit in limits if apart <= limit), DIFFERENT)
    return found


def distance(one: dict, other: dict) -> float:
    """Estimate ‖W − W'‖ / ‖W‖ of two copies of a part from their sketches; 64 numbers are some 10% wrong."""
    if len(one["sketch"]) != len(other["sketch"]):
        return math.inf
    apart, long = math.dist(one["sketch"], other["sketch"]), math.hypot(*one["sketch"])
    return 0.0 if not apart else apart / long if long else math.inf


def sketch(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Compute 64 numbers (float64) that are as far apart, for two tensors, as the tensors themselves on average.

    Every element is added, with a sign, to one of 64 bins; both are drawn from a hash of the name. This is the sparse form of
    Johnson and Lindenstrauss' projection, whose squared length is right in expectation (Charikar, Chen, Farach-Colton, "Finding
    frequent items in data streams", 2002; Weinberger et al., "Feature hashing for large scale multitask learning", 2009, arXiv
    0902.2206). The sign is a product of one for the row of 4096 elements and one for the place in it, so that rows are summed
    first. Elements of a matrix [out, in] count √in times: else norms, whose weights are near 1, would hide the matrices.
    """
    flat = tensor.reshape(-1)
    rows = -(-flat.numel() // _ROW)
    draws = torch.tensor(list(hashlib.shake_256(name.encode()).digest(_ROW + rows)), dtype=torch.uint8)
    signs = 1 - 2 * (draws >> 7).float()
    total = torch.zeros(_ROW)
    for start in range(0, rows, BLOCK // _ROW):
        block = flat[start * _ROW : start * _ROW + BLOCK].float()
        block = torch.nn.functional.pad(block, (0, -len(block) % _ROW)).view(-1, _ROW)
        total += signs[_ROW + start : _ROW + start + len(block)] @ block
    signed = total.double() * signs[:_ROW] * math.sqrt(math.prod(tensor.shape[1:]))
    return torch.zeros(SKETCH, dtype=torch.float64).index_add_(0, draws[:_ROW].long() % SKETCH, signed)


def fingerprint_parts(checkpoint: Checkpoint, tokens: int | None, progress: bool) -> dict[str, dict]:
    """Compute the fingerprint of each part; `tokens`: rows of the vocabulary that count, None where no tokenizer tells."""
    jobs = {name: part_of(name, checkpoint.family) for name in checkpoint.names}
    if tokens is None:  # padding rows, which copies do not share, cannot be told from words
        jobs = {name: part for name, part in jobs.items() if part != TOKEN_EMBEDDINGS}

    def examine(name: str) -> tuple[str, str, str, torch.Tensor]:
        tensor, short = checkpoint.tensor(name), name.removeprefix(checkpoint.language_model or "")
        if jobs[name] == TOKEN_EMBEDDINGS:
            tensor = tensor[:tokens]
        return jobs[name], short, _digest(tensor), sketch(tensor, short)

    lines, sketches = {}, {}
    # Hashing and reading both leave the interpreter to others.
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        results = pool.map(examine, jobs)
        options = {"unit": "weight", "disable": not progress, "leave": False}
        for part, short, digest, part_sketch in show_progress(results, "fingerprint", len(jobs), **options):
            lines.setdefault(part, []).append([short, digest])
            sketches[part] = sketches.get(part, 0) + part_sketch
    return {
        part: {"sha256": _hash(sorted(entries)), "sketch": [float(f"{x:.6g}") for x in sketches[part].tolist()]}
        for part, entries in lines.items()
    }


def _digest(tensor: torch.Tensor) -> str:
    """Compute the SHA-256 of shape and content, the numbers rounded to bfloat16."""
    digest = hashlib.sha256(json.dumps(list(tensor.shape)).encode())
    for block in tensor.reshape(-1).split(BLOCK):
        digest.update(block.to(torch.bfloat16).view(torch.int16).numpy().data)
    return digest.hexdigest()


def _hash(facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _processor(checkpoint: Checkpoint) -> tuple:
    """Load (tokenizer, image processor); None for those that a language model alone does not have."""
    if checkpoint.family is not None:
        processor = load_processor(checkpoint.base_model_id, checkpoint.config, checkpoint.revision)
        return processor.tokenizer, processor.image_processor
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.base_model_id, revision=checkpoint.revision)
    except (OSError, ValueError):
        return None, None
    # Where there are no files, some classes make one up, of a few special tokens.
    found = any((checkpoint.folder / name).is_file() for name in _TOKENIZER_FILES)
    return (tokenizer if found else None), None


def _cache_file(checkpoint: Checkpoint) -> Path:
    """Return the file that keeps the result; its name depends on the base's files: place, size, time of the last change."""
    beside = [path for path in checkpoint.folder.iterdir() if path.suffix in (".json", ".model", ".txt")]
    files = [path.resolve() for path in sorted({*checkpoint.files, *beside})]
    facts = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "blip2vqa" / "fingerprints" / f"{_hash([FORMAT, facts])[:32]}.json"


def _cached(checkpoint: Checkpoint) -> dict | None:
    """Read the kept result for these files; None where there is none, or it is damaged."""
    try:
        found = read_json(_cache_file(checkpoint))
    except (OSError, ValueError):
        return None
    whole = not problems_of(Base, found) and found.keys() == Base.model_fields.keys()
    return found if whole else None

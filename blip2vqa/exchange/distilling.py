"""Distil an adapter: it answers questions about pictures, and a fresh adapter of another base learns its confident answers."""

import json
import shutil
from pathlib import Path

import pandas as pd

from blip2vqa.adapters.base.checkpoints import Checkpoint
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.ref import CURRENT
from blip2vqa.adapters.validation.safety import MANIFEST, METRICS
from blip2vqa.config.exchange import TransferArguments
from blip2vqa.config.files import read_config
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.data.examples import Example
from blip2vqa.data.prediction_table import to_csv
from blip2vqa.exchange.measuring import answer
from blip2vqa.inference.model_spec import find_model_spec
from blip2vqa.models.families import family_named
from blip2vqa.training.recipe import finetune
from blip2vqa.training.resume import last_checkpoint
from blip2vqa.training.run import Run
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import write_text_atomic

LEARNED_TABLE, HELD_OUT = "distilled.csv", "held-out.csv"


def distil(
    source: Adapter,
    base: Checkpoint,
    folder: Path,
    teach: list[Example],
    held_out: list[Example],
    args: TransferArguments,
) -> str:
    """Train an adapter of `base` in `folder` on the confident answers of `source`; return how many these were, in words.

    The training is finetune.py's with its defaults, except that rank, alpha, answer length and prompt are the source's;
    `args.finetune` goes over both.

    A training that was stopped in `folder` goes on. The source answers the questions of `teach`. The epoch is chosen by the
    true answers of `held_out`; where there are none, some of the source's own are held out. Raises `InputError` when the source
    is confident of nothing.
    """
    known = find_model_spec(None, None, {CURRENT: (source.name, None)}, dtype=args.dtype)
    request = known.request()
    found = answer(args, known, [(request, example) for example in teach], f"asking {Path(source.name).name}")
    kept = [
        (example, said.text)
        for example, said in zip(teach, found, strict=True)
        if said.confidence >= args.min_confidence and said.text
    ]
    if not kept:
        best = max((said.confidence for said in found), default=0.0)
        raise InputError(
            f"--min_confidence {args.min_confidence}: {source.name} is that sure of none of {len(teach):,} answers; the surest "
            f"has {best:.2f}"
        )
    said = f"learnt from {len(kept):,} of {len(teach):,} answers of the source, those it gave {args.min_confidence:g} or more"
    if _is_trained(folder):
        return said
    begun = last_checkpoint(folder / "checkpoints")
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / LEARNED_TABLE, kept)
    given = read_config(args.finetune) if args.finetune else {}
    flags = {name: value for name, value in _taken_over(source, base).items() if name not in given}
    if held_out:
        _write(folder / HELD_OUT, [(example, example.answer) for example in held_out])
        flags |= {"eval_csv_path": folder / HELD_OUT}
    flags |= {
        "base_model_id": base.base_model_id, "csv_path": folder / LEARNED_TABLE, "image_dir": args.image_dir,
        "output_dir": folder, "seed": args.seed, "dtype": args.dtype, "quantization": args.quantization,
    }  # fmt: skip
    if begun:
        flags["resume_from_checkpoint"] = True
    if base.revision:
        flags["base_model_revision"] = base.revision
    words = [args.finetune] if args.finetune else []
    parts, resolved = parse(FINETUNE_ARGUMENTS, "", [*words, *(f"--{name}={value}" for name, value in flags.items())])
    finetune(Run(*parts, resolved))
    return said


def _is_trained(folder: Path) -> bool:
    """Tell whether training in this folder came to its end, before what follows it was stopped."""
    manifest = folder / MANIFEST
    return (folder / METRICS).is_file() or (
        manifest.is_file() and "origin" in json.loads(manifest.read_text(encoding="utf-8"))
    )


def _taken_over(source: Adapter, base: Checkpoint) -> dict:
    """Return the options of finetune.py that a distilled adapter takes over from its source."""
    manifest = source.manifest
    taken = {"lora_r": source.config.r, "lora_alpha": source.config.lora_alpha, "bertscore_model": "none"}
    if (manifest.get("decoding") or {}).get("max_new_tokens"):
        taken["max_new_tokens"] = manifest["decoding"]["max_new_tokens"]
    if manifest.get("prompt") and family_named(manifest.get("family"), ()) is base.family:
        taken["prompt"] = manifest["prompt"]
    return taken


def _write(path: Path, rows: list[tuple[Example, str]]) -> None:
    columns = ["image_name", "question", "answer", "question_type"]
    cells = [(example.image_name, example.question, answer, example.question_type) for example, answer in rows]
    write_text_atomic(path, to_csv(pd.DataFrame(cells, columns=columns)))

"""What a fine-tuning run leaves behind: scores beside their baselines, predictions, manifest, model card."""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from blip2vqa.adapters.algebra import A, B, split_weights
from blip2vqa.adapters.base.checkpoints import upstream_class
from blip2vqa.adapters.files.card import model_card
from blip2vqa.adapters.files.manifest import versions, write_manifest
from blip2vqa.adapters.lora import LoraSummary
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.safety import CONFIG
from blip2vqa.data.prediction_table import to_csv
from blip2vqa.evaluation.metrics import BERTScore
from blip2vqa.evaluation.tasks import VQA, Task
from blip2vqa.exchange.inspecting import place_of
from blip2vqa.inference.generation import Answer
from blip2vqa.models.families import Family, parse_scopes
from blip2vqa.models.loading import LoadedModel
from blip2vqa.training.data import Tables, count_images
from blip2vqa.training.run import Run
from blip2vqa.utils.files import write_json_atomic, write_text_atomic


def score_run(
    task: Task,
    tables: Tables,
    scorer: BERTScore | None,
    base: list[Answer],
    adapter: list[Answer],
    swapped: list[Answer] | None,
) -> dict[str, dict]:
    """What `metrics.json` holds: base and adapter, and what a model scores that never sees the right picture."""
    blind = task.blind(tables.train).predict(tables.val)
    metrics = {
        "base": task.score(tables.val, [answer.text for answer in base], bertscore=scorer),
        "adapter": task.score(tables.val, [answer.text for answer in adapter], bertscore=scorer),
        "blind": task.score(tables.val, blind),
    }
    if swapped is not None:
        metrics["swapped"] = task.score(tables.val, [answer.text for answer in swapped])
    return metrics


def _name_upstream(config: Path, loaded: LoadedModel) -> None:
    """PEFT notes the class that it wrapped, which is ours; others load the adapter into upstream's."""
    known, upstream = json.loads(config.read_text(encoding="utf-8")), upstream_class(loaded.base.config)
    known["auto_mapping"] = {"base_model_class": upstream.__name__, "parent_library": upstream.__module__}
    write_json_atomic(config, known)


def _shapes(folder: Path, family: Family) -> dict[str, list[int]]:
    """Role → [out, in] of its layers, as they were written."""
    found = {}
    for module, factors in split_weights(open_adapter(folder))[0].items():
        found[place_of(module, family).role] = [len(factors[B]), factors[A].shape[1]]
    return found


def write_results(
    run: Run,
    loaded: LoadedModel,
    lora: LoraSummary,
    tables: Tables,
    metrics: dict,
    base: list[Answer],
    adapter: list[Answer],
    fingerprints: dict,
) -> None:
    folder, arguments, text = run.folder, run.lora, tables.text
    manifest = {
        "task": run.task.name,
        "family": loaded.family.name,
        "base_model_id": loaded.where,
        "base_model_revision": loaded.revision,
        "base_model_commit": getattr(loaded.base.config, "_commit_hash", None),
        "base": fingerprints,
        "prompt": text.prompt,
        "decoding": None if text.classes else asdict(run.decoding),
        "style": run.data.style and Path(run.data.style).stem,
        "question_types": run.data.question_types,
        "answers": tables.answers,
        "end_token": None if text.classes else text.tokenizer.decode([text.end_token_id]),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "quantization": loaded.quantization,
        "scopes": parse_scopes(arguments.lora_scope),
        "shapes": _shapes(folder, loaded.family),
        "roles": [role for role, count in lora.modules.items() if count],
        "rank": arguments.lora_r,
        "alpha": arguments.lora_alpha,
        "scaling": "alpha / sqrt(rank)" if arguments.use_rslora else "alpha / rank",
        "data": {
            "table": run.data.csv_path,
            "sha256": tables.sha256,
            "rows_train": len(tables.train),
            "rows_val": len(tables.val),
            "images_train": count_images(tables.train),
            "images_val": count_images(tables.val),
            "blind_score": tables.blind.score if run.task is VQA else None,
        },
        "split": {"val_split": run.data.val_split, "eval_table": run.data.eval_csv_path},
        "seed": run.training.seed,
        "metrics": metrics,
        "versions": versions(),
    }
    predictions = pd.DataFrame(
        {
            "image_name": [example.image_name for example in tables.val],
            "question": [example.question for example in tables.val],
            "answer": [example.answer for example in tables.val],
            "question_type": [example.question_type for example in tables.val],
            "base_answer": [answer.text for answer in base],
            "generated_answer": [answer.text for answer in adapter],
            "confidence": [f"{answer.confidence:.4f}" for answer in adapter],
        }
    )
    write_text_atomic(folder / "predictions.csv", to_csv(predictions))
    write_text_atomic(folder / "README.md", model_card(manifest, metrics))
    _name_upstream(folder / CONFIG, loaded)
    write_manifest(folder, manifest)
    write_json_atomic(folder / "metrics.json", metrics)

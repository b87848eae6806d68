"""What a fine-tuning run leaves behind: scores beside their baselines, predictions, manifest, model card."""

from dataclasses import asdict

import pandas as pd

from blip2vqa.collate import TextEncoder
from blip2vqa.evaluation import BlindBaseline, score
from blip2vqa.exchange.manifest import data_hash, versions, write_manifest
from blip2vqa.families import parse_scopes
from blip2vqa.files import write_json_atomic, write_text_atomic
from blip2vqa.generation import Answer, Decoding
from blip2vqa.loading import LoadedModel
from blip2vqa.lora import LoraSummary
from blip2vqa.metrics import BERTScore
from blip2vqa.predictions import to_csv
from blip2vqa.reporting.card import model_card
from blip2vqa.run import Run, Tables, count_images


def score_run(
    tables: Tables,
    scorer: BERTScore | None,
    base: list[Answer],
    adapter: list[Answer],
    swapped: list[Answer] | None,
) -> dict[str, dict]:
    """What `metrics.json` holds: base and adapter, and what a model scores that never sees the right picture."""
    blind = BlindBaseline(tables.train).predict(tables.val)
    metrics = {
        "base": score(tables.val, [answer.text for answer in base], bertscore=scorer),
        "adapter": score(tables.val, [answer.text for answer in adapter], bertscore=scorer),
        "blind": score(tables.val, blind),
    }
    if swapped is not None:
        metrics["swapped"] = score(tables.val, [answer.text for answer in swapped])
    return metrics


def write_results(
    run: Run,
    loaded: LoadedModel,
    text: TextEncoder,
    lora: LoraSummary,
    tables: Tables,
    decoding: Decoding,
    metrics: dict,
    base: list[Answer],
    adapter: list[Answer],
) -> None:
    folder, arguments = run.folder, run.lora
    manifest = {
        "task": "vqa",
        "family": loaded.family.name,
        "base_model_id": loaded.where,
        "base_model_revision": loaded.revision,
        "prompt": run.data.prompt,
        "decoding": asdict(decoding),
        "end_token": text.tokenizer.decode([text.end_token_id]),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "quantization": loaded.quantization,
        "scopes": parse_scopes(arguments.lora_scope),
        "roles": [role for role, count in lora.modules.items() if count],
        "rank": arguments.lora_r,
        "alpha": arguments.lora_alpha,
        "scaling": "alpha / sqrt(rank)" if arguments.use_rslora else "alpha / rank",
        "data": {
            "table": run.data.csv_path,
            "sha256": data_hash(tables.train),
            "rows_train": len(tables.train),
            "rows_val": len(tables.val),
            "images_train": count_images(tables.train),
            "images_val": count_images(tables.val),
        },
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
    write_manifest(folder, manifest)
    write_json_atomic(folder / "metrics.json", metrics)

"""Write what a fine-tuning run leaves behind: scores beside their baselines, predictions, manifest, model card."""

import json
from pathlib import Path

import pandas as pd

from blip2vqa.adapters.algebra import A, B, split_weights
from blip2vqa.adapters.base.checkpoints import upstream_class
from blip2vqa.adapters.files.adapter import share_weights, versions, write_manifest
from blip2vqa.adapters.files.card import model_card
from blip2vqa.adapters.lora import LoraSummary
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.safety import CONFIG, MANIFEST, METRICS
from blip2vqa.config.paths import absolute
from blip2vqa.config.roles import parse_scopes
from blip2vqa.data.prediction_table import to_csv
from blip2vqa.evaluation.bertscore import BERTScore
from blip2vqa.evaluation.calibration import Calibrated, calibrate
from blip2vqa.evaluation.metrics import accuracy
from blip2vqa.evaluation.scores import rows_to_score
from blip2vqa.evaluation.tasks import VQA, Task
from blip2vqa.inference.generation import ANSWERS_WITH, Answer
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.places import place_of
from blip2vqa.reporting.reports import report_run
from blip2vqa.training.data import RunData, count_images
from blip2vqa.training.run import Run
from blip2vqa.utils.files import write_json_atomic, write_text_atomic

HISTORY = "history.json"
"""Trainer's log: loss, and at each evaluation the validation scores, by step."""


def blind_texts(task: Task, data: RunData) -> list[str]:
    """Answer the validation questions by a baseline that sees no picture."""
    return task.blind(data.train).predict(data.val)


def answer_texts(task: Task, data: RunData, answers: dict[str, list[Answer]]) -> dict[str, list[str]]:
    """Return the texts of `answers`, and those of a baseline that sees no picture, `blind`."""
    texts = {name: [answer.text for answer in given] for name, given in answers.items()}
    return texts | {"blind": blind_texts(task, data)}


def score_run(task: Task, data: RunData, scorer: BERTScore | None, texts: dict[str, list[str]]) -> dict[str, dict]:
    """Score the texts of `base`, `adapter` and `blind`, and those about `swapped` images; `metrics.json` holds this."""
    encoders = {"base": scorer, "adapter": scorer}
    order = [name for name in ("base", "adapter", "blind", "swapped") if name in texts]
    return {name: task.score(data.val, texts[name], bertscore=encoders.get(name)) for name in order}


def calibrate_run(task: Task, data: RunData, answers: list[Answer]) -> Calibrated | None:
    """Calibrate the confidences of answers to the validation questions; None where it cannot be done, as for captions."""
    if task is not VQA:
        return None
    right = [bool(score) for score in accuracy.compute(rows_to_score(data.val, [one.text for one in answers])).scores]
    return calibrate([one.confidence for one in answers], right, [example.image_key for example in data.val])


def _name_upstream(config: Path, loaded: LoadedModel) -> None:
    """Replace the name of our class, which PEFT has noted, by upstream's, where there is one: others load it into that."""
    known, upstream = json.loads(config.read_text(encoding="utf-8")), upstream_class(loaded.base.config)
    named = {"base_model_class": upstream.__name__, "parent_library": upstream.__module__}
    known["auto_mapping"] = named if upstream.__module__.startswith("transformers.") else None
    write_json_atomic(config, known)


def write_results(
    run: Run,
    loaded: LoadedModel,
    lora: LoraSummary,
    data: RunData,
    metrics: dict,
    texts: dict[str, list[str]],
    answers: list[Answer],
    fingerprints: dict,
    history: list[dict],
) -> None:
    """Write history, predictions, model card, manifest, report and, last, the metrics that mark the run as finished.

    `texts`: what `answer_texts` returns; `answers`: the adapter's; `history`: what Trainer has logged, also before it was
    stopped and resumed.
    """
    folder, arguments, text = run.folder, run.lora, data.text
    _name_upstream(folder / CONFIG, loaded)
    share_weights(folder)
    # Of each role, the shape [out, in] of its layers, as the adapter holds them.
    layers = split_weights(open_adapter(folder))[0].items()
    shapes = {place_of(name, loaded.family).role: [len(ab[B]), ab[A].shape[1]] for name, ab in layers}
    written = ANSWERS_WITH[text.answers_with].remembered(data.request)
    given = absolute(vars(run.data))
    manifest = {
        "task": run.task.name,
        "family": loaded.family.name,
        "base_model_id": loaded.where,
        "base_model_revision": loaded.revision,
        "base_model_commit": getattr(loaded.base.config, "_commit_hash", None),
        "base": fingerprints,
        "prompt": text.prompt,
        "decoding": written["decoding"],
        "style": run.data.style and Path(run.data.style).stem,
        "question_types": run.data.question_types,
        "answers": data.answers,
        "end_token": written["end_token"],
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "quantization": loaded.quantization,
        "scopes": parse_scopes(arguments.lora_scope),
        "shapes": shapes,
        "roles": [role for role, count in lora.modules.items() if count],
        "rank": arguments.lora_r,
        "alpha": arguments.lora_alpha,
        "scaling": "alpha / sqrt(rank)" if arguments.use_rslora else "alpha / rank",
        "data": {
            "table": given["csv_path"],
            "sha256": data.sha256,
            "rows_train": len(data.train),
            "rows_val": len(data.val),
            "images_train": count_images(data.train),
            "images_val": count_images(data.val),
            "blind_score": data.blind.score if run.task is VQA else None,
        },
        "split": {"val_split": run.data.val_split, "eval_table": given["eval_csv_path"]},
        "seed": run.training.seed,
        "metrics": metrics,
        "versions": versions(),
    }
    columns = ("image_name", "question", "answer", "question_type")
    predictions = pd.DataFrame({name: [getattr(example, name) for example in data.val] for name in columns})
    # Several annotators' answers, or captions, are written as tables may have them.
    predictions["answer"] = [
        json.dumps(example.answers, ensure_ascii=False) if len(example.answers) > 1 else example.answer
        for example in data.val
    ]
    predictions["base_answer"], predictions["generated_answer"] = texts["base"], texts["adapter"]
    predictions["confidence"] = [f"{answer.confidence:.4f}" for answer in answers]
    if calibrated := calibrate_run(run.task, data, answers):
        predictions["probability_right"] = [f"{probability:.4f}" for probability in calibrated.probabilities]
        manifest["calibration"] = calibrated.remembered()
    for name in ("swapped", "blind"):
        if name in texts:
            predictions[f"{name}_answer"] = texts[name]
    write_text_atomic(folder / "predictions.csv", to_csv(predictions))
    write_json_atomic(folder / HISTORY, history)
    files = {MANIFEST, METRICS, *(path.name for path in folder.iterdir())}
    write_text_atomic(folder / "README.md", model_card(manifest, metrics, files=files))
    write_manifest(folder, manifest)
    report_run(folder, predictions, data.val)
    write_json_atomic(folder / "metrics.json", metrics)

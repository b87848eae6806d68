"""The model card of an adapter: fill card.md, with the Hub's YAML in front."""

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, Template

from blip2vqa.evaluation.metric import Metric, Needs
from blip2vqa.evaluation.metrics import main_metric, metrics_shown, scorers_of
from blip2vqa.evaluation.verdict import ROWS, present_rows, verdict
from blip2vqa.utils.formatting import MISSING

TASKS = {"vqa": "visual-question-answering", "caption": "image-to-text"}  # the Hub's names
UNNAMED = "BLIP-2"  # the only ones there were when manifests named no family
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
# Of the model index: the configuration of the data, and what stands behind the metric's name. The adapter's own come first.
RESULTS = {"adapter": (None, ""), "blind": ("blind", ", blind baseline"), "swapped": ("swapped", ", images swapped")}


FILES = {
    "adapter_model.safetensors": "the adapter's weights, as PEFT reads them",
    "adapter_config.json": "PEFT's settings: base, rank, adapted layers",
    "blip2vqa.json": "where it comes from and how it is asked: base, prompt, decoding, scores",
    "metrics.json": "scores of base, adapter and baselines",
    "predictions.csv": "each validation row with the answers of base and adapter",
    "history.json": "loss and validation scores by step, as Trainer has logged them",
    "transfer.json": "what was measured when it moved to this base",
    "run.json": "all settings; `python finetune.py run.json --output_dir NEW` repeats the run",
    "split.json": "which image was trained on, and which was held out",
    "training_data.json": "a hash of the training rows and the list of answers, to go on with a stopped run",
    "bad_images.csv": "rows left out for their images",
    "eval_bad_images.csv": "validation rows left out for their images",
    "bad_rows.csv": "rows left out for their texts",
    "eval_bad_rows.csv": "validation rows left out for their texts",
    "estimate.json": "what the run was expected to take",
    "checkpoints": "Trainer's checkpoints, for `--resume_from_checkpoint`",
}
"""What a folder of an adapter may hold, in the order of the card."""


def model_card(
    manifest: dict,
    metrics: dict,
    *,
    repo_id: str | None = None,
    licence: str | None = None,
    files: Collection[str] = (),
) -> str:
    """Write README.md of an adapter. What `manifest` or `metrics` (as in metrics.json) do not say is left out of the text.

    `files`: names in its folder; those of `FILES` stand in a table.
    `repo_id`: where it is published; its commands then run as they stand. `licence`: the Hub's name of one, such as `mit`.
    """
    from blip2vqa.models.families import families  # which brings in torch; `is_hub_id` is wanted without

    named = manifest.get("family") or UNNAMED
    family = families().get(named)
    manifest = manifest | {"family": (family and family.card_name) or named}
    present = present_rows(metrics)
    shown = _judging(present.values())
    settings, rows, found = adapter_facts(manifest, metrics)
    return _template().render(
        manifest,
        repo_id=repo_id,
        licence=licence,
        called=repo_id or "THIS_FOLDER",
        head_class=family and family.head_class and family.head_class.__name__,
        captions=manifest.get("task") == "caption",
        base_on_hub=is_hub_id(manifest.get("base_model_id") or ""),
        front_matter=_front_matter(manifest, metrics, shown, repo_id, licence),
        settings=settings,
        scores_table=_scores_table(rows),
        scored_as_captions=any(metric.needs is Needs.CAPTIONS for metric in shown),
        scorers=scorers_of(present.values()),
        verdict=found,
        files={name: text for name, text in FILES.items() if name in files},
    )


def is_hub_id(base: str) -> bool:
    """Tell whether `base` names a repository of the Hub rather than a local folder."""
    return bool(HUB_ID.fullmatch(base)) and not Path(base).is_dir()


@cache
def _template() -> Template:
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["last_part"] = _last_part
    return environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))


def _last_part(value: object) -> object:
    """Shorten a path to its last part; return anything else as it is."""
    return Path(value).name if isinstance(value, str) and "/" in value and not is_hub_id(value) else value


def _front_matter(manifest: dict, metrics: dict, shown: list[Metric], repo_id: str | None, licence: str | None) -> str:
    base, kind, family = manifest.get("base_model_id") or "", manifest.get("task") or "vqa", manifest["family"]
    linked = {"base_model": base, "base_model_relation": "adapter"} if is_hub_id(base) else {}
    held_out = (manifest.get("split") or {}).get("eval_table") or (manifest.get("data") or {}).get("table")
    table = Path(held_out or "validation table").name
    results = [
        EvalResult(
            task_type=TASKS[kind], dataset_type="custom", dataset_name=table, dataset_config=config,
            dataset_split="validation", metric_type=metric.name, metric_name=_with_scorer(metric, metrics[of]) + note,
            metric_value=round(metrics[of][metric.name], 4),
        )
        for of, (config, note) in RESULTS.items() if metrics.get(of)
        for metric in shown if metrics[of].get(metric.name) is not None
    ]  # fmt: skip
    data = ModelCardData(
        library_name="peft", pipeline_tag=TASKS[kind], eval_results=results or None, license=licence,
        tags=list(dict.fromkeys([family.lower(), "lora", kind, TASKS[kind]])),
        model_name=(repo_id.split("/")[-1] if repo_id else f"{family} adapter") if results else None, **linked,
    )  # fmt: skip
    return data.to_yaml().strip()


def _judging(several: Collection[dict]) -> list[Metric]:
    """List the metrics of these scores that say which of two texts is better, where at least one has a value."""
    return [
        metric
        for metric in metrics_shown(several)
        if metric.higher_is_better is not None and any(scores.get(metric.name) is not None for scores in several)
    ]


def _title(metric: Metric) -> str:
    return metric.card_title or metric.title


def _with_scorer(metric: Metric, scores: dict) -> str:
    scorer = scores.get("bertscore_scorer")
    return f"{_title(metric)} ({scorer})" if metric.needs is Needs.ENCODER and scorer else _title(metric)


def _settings(manifest: dict) -> dict[str, object]:
    """Collect what is known of its training, or of its configuration where it was made from others, with labels."""
    data, decoding = manifest.get("data") or {}, manifest.get("decoding") or {}
    versions = manifest.get("versions") or {}
    settings = {
        "task": manifest.get("task"),
        "table": data.get("table") and f"`{Path(data['table']).name}`",
        "training rows (images)": _rows(data, "train"),
        "validation rows (images)": _rows(data, "val"),
        "style": manifest.get("style"),
        "question types": manifest.get("question_types"),
        "answers to choose from": len(manifest.get("answers") or []) or None,
        "adapted layers": ", ".join(manifest.get("roles") or ()),
        "rank": manifest.get("rank"),
        "alpha": manifest.get("alpha"),
        "end of an answer": manifest.get("end_token") and f"`{manifest['end_token']!r}`",
        "beams": decoding.get("num_beams"),
        "longest answer (tokens)": decoding.get("max_new_tokens"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    return {name: value for name, value in settings.items() if value not in (None, "")}


def _rows(data: dict, part: str) -> str | None:
    rows, images = data.get(f"rows_{part}"), data.get(f"images_{part}")
    return None if rows is None else f"{rows:,}" + (f" ({images:,})" if images is not None else "")


def adapter_facts(manifest: dict, metrics: dict) -> tuple[dict[str, object], list[list[str]], str | None]:
    """Collect what a card says, without its words: settings with labels, rows of scores (the first has the titles), verdict.

    There are no rows where nothing was measured, and no verdict where there is no blind baseline.
    """
    present, main = present_rows(metrics), main_metric(metrics.get("adapter") or {})
    compared = main is not None and (metrics.get("blind") or {}).get(main.name) is not None
    return _settings(manifest), _score_rows(present, _judging(present.values())), verdict(metrics) if compared else None


def _score_rows(present: dict[str, dict], shown: list[Metric]) -> list[list[str]]:
    """List the titles of the metrics shown, then a row for each key of `present`; empty where nothing was measured."""
    if not present:
        return []
    rows = [["", *map(_title, shown), "rows"]]
    for key, scores in present.items():
        cells = [metric.show(scores.get(metric.name)) for metric in shown]
        rows.append([ROWS[key], *cells, str(scores.get("n", MISSING))])
    return rows


def _scores_table(rows: list[list[str]]) -> str:
    """Draw rows of scores as a Markdown table."""
    if not rows:
        return ""
    table = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)

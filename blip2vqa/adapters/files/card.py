"""Writes the model card of an adapter: README.md with the Hub's YAML in front."""

import re
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from blip2vqa.evaluation.metric import Metric, Needs
from blip2vqa.evaluation.metrics import main_metric, metrics_shown, scorers_of
from blip2vqa.evaluation.verdict import ROWS, present_rows, verdict
from blip2vqa.utils.formatting import MISSING

TASKS = {"vqa": "visual-question-answering", "caption": "image-to-text"}  # the Hub's names
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
FOLDER = "THIS_FOLDER"  # what commands call an adapter that is not on the Hub
# Of the model index: the configuration of the data, and what stands behind the metric's name. The adapter's own come first.
RESULTS = {"adapter": (None, ""), "blind": ("blind", ", blind baseline"), "swapped": ("swapped", ", images swapped")}


def model_card(manifest: dict, metrics: dict, *, repo_id: str | None = None, licence: str | None = None) -> str:
    """Write README.md of an adapter.

    Args:
        manifest: what the adapter knows of itself: `base_model_id`, `base_model_revision`, `prompt`, `roles`, `rank`,
            `alpha`, `task`, `data` (`table`, `rows_train`, `rows_val`, `images_train`, `images_val`), `end_token`,
            `decoding` (`num_beams`, `max_new_tokens`), `versions`, and `origin` (`command`, `of`) where it was made from
            others rather than trained. Whatever is missing is left out of the text.
        metrics: as in metrics.json: `base`, `adapter`, `blind`, `swapped`; may be empty.
        repo_id: where it is published; its commands then run as they stand.
        licence: the Hub's name of one, such as `mit`. None is invented.
    """
    sections = [
        _introduction(manifest), _use(manifest, repo_id), _origin(manifest.get("origin")), _training(manifest),
        _results(metrics), _limits(metrics), _licence(repo_id, licence),
    ]  # fmt: skip
    front = _front_matter(manifest, metrics, repo_id, licence)
    return f"---\n{front}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def is_hub_id(base: str) -> bool:
    """Tell whether `base` names a repository of the Hub rather than a local folder."""
    return bool(HUB_ID.fullmatch(base)) and not Path(base).is_dir()


def _front_matter(manifest: dict, metrics: dict, repo_id: str | None, licence: str | None) -> str:
    base, task, family = manifest.get("base_model_id") or "", TASKS[manifest.get("task") or "vqa"], _family(manifest)
    linked = {"base_model": base, "base_model_relation": "adapter"} if is_hub_id(base) else {}
    held_out = (manifest.get("split") or {}).get("eval_table") or (manifest.get("data") or {}).get("table")
    table = Path(held_out or "validation table").name
    shown = _judging(present_rows(metrics).values())
    results = [
        EvalResult(
            task_type=task, dataset_type="custom", dataset_name=table, dataset_config=config,
            dataset_split="validation", metric_type=metric.name, metric_name=_with_scorer(metric, metrics[of]) + note,
            metric_value=round(metrics[of][metric.name], 4),
        )
        for of, (config, note) in RESULTS.items() if metrics.get(of)
        for metric in shown if metrics[of].get(metric.name) is not None
    ]  # fmt: skip
    data = ModelCardData(
        library_name="peft", pipeline_tag=task, eval_results=results or None, license=licence,
        tags=list(dict.fromkeys([family.lower(), "lora", manifest.get("task") or "vqa", task])),
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


def _base(manifest: dict) -> str:
    base, revision = manifest.get("base_model_id"), manifest.get("base_model_revision")
    if not base:
        return "a base model that the manifest does not name"
    if not is_hub_id(base):
        return f"the local base model `{Path(base).name}`"  # the folder it lies in is the user's own affair
    return f"[{base}](https://huggingface.co/{base})" + (f" at revision `{revision}`" if revision else "")


def _family(manifest: dict) -> str:
    """`BLIP-2`, of "BLIP-2 with OPT"."""
    return (manifest.get("family") or "BLIP-2").split()[0]


def _introduction(manifest: dict) -> str:
    captions, style = manifest.get("task") == "caption", manifest.get("style")
    what = "image captions" if captions else "visual question answering"
    does = "write captions of pictures" if captions else "answer questions about pictures"
    if captions and style:
        does += f" in the style *{style}*"
    made = "made from others to" if manifest.get("origin") else "trained to"
    return (
        f"# {_family(manifest)} adapter for {what}\n\n"
        f"A LoRA adapter on {_base(manifest)}, {made} {does}. It is a plain PEFT adapter; "
        "`blip2vqa.json` beside it says where it comes from and how it is to be asked."
    )


def _use(manifest: dict, repo_id: str | None) -> str:
    prompt, name, base = manifest.get("prompt"), repo_id or FOLDER, manifest.get("base_model_id") or ""
    learnt = "is asked" if manifest.get("origin") else "was trained, and is asked,"
    asked = f"It {learnt} with this prompt:\n\n```\n{prompt}\n```\n\n" if prompt else ""
    command = (
        "python inference.py --image_dir IMAGES --csv_path QUESTIONS.csv --output_path RESULTS.csv "
        f"--lora_model_path {name}"
    )
    call = f'model = load("{name}")\nmodel.answer("picture.jpg", "What color is it?")'
    if manifest.get("task") == "caption":
        style, on = manifest.get("style") or "plain", f'"{base}"' if is_hub_id(base) else "BASE"
        command = f"python caption.py --images PICTURE… --styles {style}={name} --output_path CAPTIONS.csv"
        call = f'model = load({on}, adapters={{"{style}": "{name}"}})\nmodel.caption("picture.jpg", style="{style}")'
    alone = f'\n\nWith PEFT alone: `PeftModel.from_pretrained(base, "{name}")`, on the base as transformers loads it.'
    return (
        f"## Use\n\n{asked}```bash\n{command}\n```\n\n```python\nfrom blip2vqa import load\n\n{call}\n```"
        + (alone if repo_id else "")
        + _answer_head(manifest)
    )


def _origin(origin: dict | None) -> str:
    """Say what it was made from, and how."""
    if not origin:
        return ""
    lines = [
        f"- {_shown(source.get('name') or 'an adapter without a name')}"
        + (f", weight {source['weight']:g}" if isinstance(source.get("weight"), int | float) else "")
        + (f", SHA-256 of its weights `{source['sha256']}`" if source.get("sha256") else "")
        for source in origin.get("of") or []
    ]
    lines += [
        f"- {name.replace('_', ' ')}: {_shown(value)}"
        for name, value in origin.items() if name != "command" and isinstance(value, str | int | float)
    ]  # fmt: skip
    return f"## Origin\n\nMade by `exchange.py {origin.get('command')}`:\n\n" + "\n".join(lines)


def _shown(value: object) -> object:
    """Shorten a path to its last part; return anything else as it is."""
    return Path(value).name if isinstance(value, str) and "/" in value and not is_hub_id(value) else value


def _licence(repo_id: str | None, licence: str | None) -> str:
    if not (repo_id or licence):
        return ""
    stated = f"`{licence}`." if licence else "None was stated by whoever published it."
    return f"## Licence\n\n{stated} The terms of the base model hold beside it."


def _answer_head(manifest: dict) -> str:
    """Say how PEFT alone loads an adapter that brings a head for its own answers."""
    if not (manifest.get("answers") and manifest.get("family") == "ViLT"):
        return ""
    return (
        f"\n\nIt brings a head for its own {len(manifest['answers'])} answers, listed in `blip2vqa.json`. To load it with PEFT "
        "alone, load the base with `ViltForQuestionAnswering.from_pretrained(BASE, "
        f"num_labels={len(manifest['answers'])}, ignore_mismatched_sizes=True)` first."
    )


def _training(manifest: dict) -> str:
    data, decoding = manifest.get("data") or {}, manifest.get("decoding") or {}
    roles = manifest.get("roles")
    versions = manifest.get("versions")
    lines = {
        "task": manifest.get("task"),
        "table": data.get("table") and f"`{Path(data['table']).name}`",
        "training rows (images)": _rows(data, "train"),
        "validation rows (images)": _rows(data, "val"),
        "style": manifest.get("style"),
        "question types": manifest.get("question_types"),
        "answers to choose from": len(manifest["answers"]) if manifest.get("answers") else None,
        "adapted layers": ", ".join(roles) if isinstance(roles, list | tuple) else roles,
        "rank": manifest.get("rank"),
        "alpha": manifest.get("alpha"),
        "end of an answer": manifest.get("end_token") and f"`{manifest['end_token']!r}`",
        "beams": decoding.get("num_beams"),
        "longest answer (tokens)": decoding.get("max_new_tokens"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()) if versions else None,
    }
    listed = "\n".join(f"- {name}: {value}" for name, value in lines.items() if value not in (None, ""))
    title = "Settings" if manifest.get("origin") else "Training"
    return f"## {title}\n\n{listed}" if listed else ""


def _rows(data: dict, part: str) -> str | None:
    rows, images = data.get(f"rows_{part}"), data.get(f"images_{part}")
    return None if rows is None else f"{rows:,}" + (f" ({images:,})" if images is not None else "")


_ANSWER_NOTE = (
    "Answers are compared after the official VQA normalisation. The blind baseline gives the most common training "
    "answer to the question and sees no image; with images swapped, each question is asked about another picture: "
    "what the adapter scores above both, it owes to the picture."
)
_CAPTION_NOTE = (
    "CIDEr (from 0 to 10) and BLEU-4 compare each caption with all captions of its image. The blind baseline gives the "
    "training caption most like the others to every image; with images swapped, the caption of another image is "
    "scored: what the adapter scores above both, it owes to the picture."
)


def _results(metrics: dict) -> str:
    present = present_rows(metrics)
    if not present:
        return ""
    shown, scorers = _judging(present.values()), scorers_of(present.values())
    table = [["", *map(_title, shown), "rows"], ["---", *["---:"] * (len(shown) + 1)]]
    for key, scores in present.items():
        values = [scores.get(metric.name) for metric in shown]
        cells = [MISSING if value is None else f"{value:.4f}" for value in values]
        table.append([ROWS[key], *cells, str(scores.get("n", MISSING))])
    notes = [_CAPTION_NOTE if any(metric.needs is Needs.CAPTIONS for metric in shown) else _ANSWER_NOTE]
    notes += [f"BERTScore: {'; '.join(scorers)}; not comparable with other scorers."] if scorers else []
    rows = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return f"## Results\n\nOn the validation rows:\n\n{rows}\n\n" + " ".join(notes)


def _limits(metrics: dict) -> str:
    text = (
        "It fits the base model named above and no other, and knows questions and answers like those it was trained "
        "on. It answers every question, also one that the picture does not answer. Errors and biases of the base model "
        "and of the training data remain."
    )
    main = main_metric(metrics.get("adapter") or {})
    if main is not None and (metrics.get("blind") or {}).get(main.name) is not None:
        text = f"**On the validation rows it is {verdict(metrics)}.** {text}"
    elif not present_rows(metrics):
        text = f"**It was not measured: no scores of it are known.** {text}"
    return f"## Limits\n\n{text}"

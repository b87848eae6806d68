"""An adapter's manifest, as raw JSON, found to say nothing that whoever reads it later would stumble over.

Looked at is what is read anywhere: base, decoding, scores, data, origin. Keys that nobody knows may stay.
"""

import re
from collections.abc import Mapping

from blip2vqa.adapters.files.manifest import FORMAT
from blip2vqa.adapters.validation.safe_config import (
    LINE,
    PLACE,
    Rule,
    is_index,
    is_number,
    is_one_line,
    is_place,
    is_rank,
    is_whole,
    one_of,
)
from blip2vqa.config.decoding import DECODING, find_out_of_range
from blip2vqa.evaluation.metrics import METRICS
from blip2vqa.utils.strict_json import shown

TASKS = ("vqa", "caption")
SKETCH = 64
"""Numbers in the sketch of a part of the base."""


def check_manifest(manifest: object) -> list[str]:
    """The problems of the JSON value of blip2vqa.json, one line each: types and ranges of what is relied on."""
    if not isinstance(manifest, dict):
        return [f"is {shown(manifest)}, not an object"]
    if manifest.get("format") != FORMAT:
        return [f"has format {shown(manifest.get('format'))}; this version reads {FORMAT}"]
    return [
        *_values("", manifest, _MANIFEST),
        *_base(manifest.get("base")),
        *_decoding(manifest.get("decoding")),
        *_object("data", manifest.get("data"), _DATA),
        *_object("split", manifest.get("split"), _SPLIT),
        *_origin(manifest.get("origin")),
        *(f"metrics{problem}" for problem in check_scores(manifest.get("metrics"))),
    ]


def check_scores(metrics: object) -> list[str]:
    """The problems of what metrics.json, or `metrics` in a manifest, holds: {whose: {score: number}}."""
    if metrics is None or not isinstance(metrics, dict):
        return [] if metrics is None else [f" is {shown(metrics)}; it has to be an object of objects"]
    problems = []
    for name, scores in metrics.items():
        if isinstance(scores, dict):
            problems += _values(f".{_key(name)}.", scores, _SCORES)
        else:
            problems.append(f".{_key(name)} is {shown(scores)}; it has to be an object of scores")
    return problems


def _values(before: str, found: Mapping, rules: Mapping[str, Rule]) -> list[str]:
    return [
        f"{before}{key} is {shown(found[key])}; it has to be {wanted}"
        for key, (fits, wanted) in rules.items()
        if key in found and not fits(found[key])
    ]


def _object(name: str, value: object, rules: Mapping[str, Rule], needed: tuple[str, ...] = ()) -> list[str]:
    """Of an object in the manifest, which may be left out or null."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [f"{name} is {shown(value)}; it has to be an object or null"]
    return [f"{name} has no {key}" for key in needed if key not in value] + _values(f"{name}.", value, rules)


def _key(name: str) -> str:
    """A stranger's key, as it may stand in a message."""
    return name if re.fullmatch(r"\w{1,40}", name, re.ASCII) else shown(name)


def _base(base: object) -> list[str]:
    """As `fingerprint_base` gives it."""
    problems = _object("base", base, _BASE, ("parts", "dtype"))
    parts = base.get("parts") if isinstance(base, dict) else None
    for name, part in parts.items() if isinstance(parts, dict) else ():
        if isinstance(part, dict):
            problems += _object(f"base.parts.{_key(name)}", part, _PART, ("sha256", "sketch"))
        else:
            problems.append(f"base.parts.{_key(name)} is {shown(part)}; it has to be an object with sha256 and sketch")
    return problems


def _decoding(decoding: object) -> list[str]:
    """All that stands here is handed to `Decoding`."""
    problems = _object("decoding", decoding, _DECODING)
    if problems or not decoding:
        return problems
    problems = [f"decoding.{_key(key)} is no setting of it" for key in decoding if key not in DECODING]
    return problems + [
        f"decoding.{name} is {shown(value)}; it has to be {must}" for name, value, must in find_out_of_range(decoding)
    ]


def _origin(origin: object) -> list[str]:
    problems = _object("origin", origin, _ORIGIN)
    if problems or not origin:
        return problems
    texts = [key for key, value in origin.items() if isinstance(value, str)]
    for number, source in enumerate(origin.get("of", [])):
        problems += _values(f"origin.of[{number}].", source, _SOURCE)
    return problems + [
        f"origin.{_key(key)} is {shown(origin[key])}; it has to be {PLACE[1]}"
        for key in texts
        if not is_place(origin[key])
    ]


def _is_score(value: object) -> bool:
    """NaN and infinity may be scores."""
    return value is None or isinstance(value, float) or is_number(value)


def _is_sketch(value: object) -> bool:
    """Whether distances to it can be reckoned: float64 that is not all 0."""
    number = isinstance(value, list) and len(value) == SKETCH and all(map(_is_finite, value))
    return number and any(value)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), f"{rule[1]} or null"


_NUMBER: Rule = (is_number, "a number")
_COUNT: Rule = _or_null((is_index, "a whole number"))
_HASH: Rule = (
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "a SHA-256, 64 hexadecimal digits",
)
_TEXT: Rule = (lambda value: value is None or isinstance(value, str), "a text or null")
_TEXTS: Rule = (
    lambda value: value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value)),
    "a list of texts or null",
)
_OBJECT: Rule = (lambda value: isinstance(value, dict), "an object")
_OBJECTS: Rule = (
    lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "a list of objects",
)
_SCORE: Rule = (_is_score, "a number or null")
_MANIFEST: dict[str, Rule] = {
    "task": (one_of(None, *TASKS), f"{', '.join(TASKS)} or null"),
    "family": (lambda value: value is None or (is_one_line(value) and value.strip() != ""), "one line of text or null"),
    "base_model_id": PLACE,
    **dict.fromkeys(("base_model_revision", "base_model_commit", "style", "dtype", "quantization", "scaling"), LINE),
    **dict.fromkeys(("prompt", "end_token", "question_types"), _TEXT),
    **dict.fromkeys(("answers", "roles", "scopes"), _TEXTS),
    "rank": _or_null((is_rank, "a rank")),
    "alpha": _or_null(_NUMBER),
    "seed": _or_null((is_whole, "a whole number")),
    "shapes": _or_null(_OBJECT),
    "versions": _or_null(_OBJECT),
    "files": (
        lambda value: isinstance(value, dict) and all(isinstance(item, str) for item in value.values()),
        "an object of checksums",
    ),
}
_BASE: dict[str, Rule] = {
    "format": _COUNT,
    "parts": _OBJECT,
    "dtype": (lambda value: value is not None and is_one_line(value), "one line of text"),
    "quantization": (one_of(None, "4bit", "8bit"), "4bit, 8bit or null"),
    **dict.fromkeys(("tokenizer", "image_processor"), LINE),
}
_PART: dict[str, Rule] = {"sha256": _HASH, "sketch": (_is_sketch, f"a list of {SKETCH} numbers, not all 0")}
_KINDS: dict[type, Rule] = {
    int: (is_whole, "a whole number"),
    float: (is_number, "a number"),
    bool: (one_of(True, False), "true or false"),
}
_DECODING: dict[str, Rule] = {name: _KINDS[setting.type] for name, setting in DECODING.items()}
_DATA: dict[str, Rule] = {
    "table": _TEXT,
    "sha256": LINE,
    **dict.fromkeys(("rows_train", "rows_val", "images_train", "images_val"), _COUNT),
    "blind_score": _or_null(_NUMBER),
}
_SPLIT: dict[str, Rule] = {"val_split": _or_null(_NUMBER), "eval_table": _TEXT}
_ORIGIN: dict[str, Rule] = {"command": LINE, "of": _OBJECTS}
_SOURCE: dict[str, Rule] = {"name": PLACE, "sha256": LINE, "revision": LINE, "weight": _or_null(_NUMBER)}
_SCORES: dict[str, Rule] = {
    **dict.fromkeys((*METRICS, "n"), _SCORE),
    "bertscore_scorer": LINE,
}

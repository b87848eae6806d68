"""Manifests that have to be refused: one value each in a good one, with a word of the reason expected."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

from helpers.malformed_adapters import MANIFEST, Bad

NAN, HUGE, ABSENT = float("nan"), 10**400, object()
GOOD = {
    "base": {"parts": {"qformer": {"sha256": "0" * 64, "sketch": [0.5] * 64}}, "dtype": "float32"},
    "decoding": {}, "metrics": {"blind": {}}, "data": {}, "split": {}, "origin": {"of": [{"name": "a"}, {}]},
    "answers": ["a", "b"], "roles": ["q"], "scopes": ["language_model"], "files": {},
}  # fmt: skip
"""What stands around the value."""
_WRONG = {  # where it stands → values that are refused there
    "task": ("quiz", "", 3, ["vqa"], True),
    "family": (3, "", "  ", ["OPT"], "a\nb"),
    "base_model_id": (3, "x" * 256, "a/" * 2048, "\x1b[2J", {}),
    "base_model_revision": (1, [], "a\nb"),
    "base_model_commit": (1, {}),
    "prompt": (3, [], {}, False),
    "end_token": (3, ["\n"]),
    "style": (3, ["concise"], "a\nb"),
    "question_types": (3, ["count"]),
    "answers": ("abc", 3, {"a": 1}),
    "answers.0": (1, True),
    "answers.1": (None,),
    "roles": ("q", {"q": 1}),
    "roles.0": (1, ["q"]),
    "scopes": ("language_model", 3),
    "scopes.0": (None,),
    "rank": ("x", 0, -1, 4.0, 10**6, True, [4]),
    "alpha": ("x", [1], True, NAN, HUGE),
    "scaling": (1, ["alpha / rank"]),
    "dtype": (1, {}),
    "quantization": ([1], 4, {"bits": 4}),
    "seed": ("x", 0.5, [0]),
    "shapes": ("x", [1]),
    "versions": ("x", [1], 3),
    "files": (None, "x", ["a"]),
    "files.a": (1, None),
    "base": ("x", 3, [], True),
    "base.format": ("1", -1, [1]),
    "base.parts": (3, "x", [], None),
    "base.parts.qformer": (1, None, [], "x"),
    "base.parts.qformer.sha256": (1, None, "0" * 63, "A" * 64, "0" * 64 + "\n", ["0" * 64]),
    "base.parts.qformer.sketch": (3, None, [0] * 64, [1.0] * 63, [1.0] * 65),
    "base.parts.qformer.sketch.63": ("1", NAN, HUGE, True),
    "base.dtype": (None, 16, "a\nb"),
    "base.quantization": ([1], 4, "gptq", {}, True),
    "base.tokenizer": (3, ["x"]),
    "base.image_processor": (3, {}),
    "decoding": (3, "greedy", [], True),
    "decoding.num_beams": ("x", 0, -1, 2.0, True, None, 10**30),
    "decoding.max_new_tokens": ("5", 0, [5], None, 10**9),
    "decoding.min_new_tokens": (-1, "1", None),
    "decoding.do_sample": (1, 0, "yes", None),
    "decoding.temperature": (0, -1.0, "1", None, NAN, True),
    "decoding.top_p": (0, 1.5, "x", None, NAN),
    "decoding.sampling_seed": ("x", 0.5, 2**64, None),
    "decoding.evil": (1, None),
    "metrics": (3, "x", [], [{"accuracy": 1}]),
    "metrics.adapter": (3, None, "x", [], True),
    "metrics.blind.accuracy": ("x", [1], True, HUGE),
    "metrics.blind.cider": ({"mean": 1},),
    "metrics.blind.n": ({}, "many"),
    "metrics.blind.bertscore_scorer": (3, ["x"]),
    "data": ("x", 3, []),
    "data.table": (3, ["a.csv"]),
    "data.rows_train": ("x", -1, 1.5, [1]),
    "data.images_val": ("x", {}),
    "split": ("x", 0.5, []),
    "split.val_split": ("x", [0.2]),
    "split.eval_table": (3, []),
    "origin": ("x", 3, ["merge"], True),
    "origin.command": (3, ["merge"]),
    "origin.of": (None, 3, "x", {}),
    "origin.of.1": ("x", None),
    "origin.of.1.name": (3, ["a"], "a/" + "x" * 256),
    "origin.of.1.weight": ("x", NAN, HUGE, [1]),
    "origin.of.1.sha256": ([1], 3),
    "origin.of.1.revision": (1, "a\nb"),
    "origin.from_base": ("a/" + "x" * 256, "a\nb"),
}  # fmt: skip
_MISSING = {
    "base.parts": "base has no parts", "base.dtype": "base has no dtype",
    "base.parts.qformer.sha256": "qformer has no sha256", "base.parts.qformer.sketch": "qformer has no sketch",
}  # fmt: skip


def saying(where: str, value: object) -> Callable[[Path], None]:
    """The manifest says `value` at that place, or (`ABSENT`) nothing."""

    def make(folder: Path) -> None:
        manifest = copy.deepcopy(json.loads((folder / MANIFEST).read_text()) | GOOD)
        *path, key = (int(step) if step.isdigit() else step for step in where.split("."))
        around = manifest
        for step in path:
            around = around[step]
        around[key] = value
        if value is ABSENT:
            del around[key]
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return make


def _bad_manifests() -> dict[str, Bad]:
    found = {
        f"manifest-{where}-{number}": Bad(saying(where, value), re.sub(r"\.(\d+)", r"[\1]", where) + " is")
        for where, values in _WRONG.items()
        for number, value in enumerate(values)
    }
    found |= {f"manifest-{where}-absent": Bad(saying(where, ABSENT), reason) for where, reason in _MISSING.items()}
    more = {
        "base-empty": (saying("base", {}), "base has no parts"),
        "base-part-of-two-lines": (saying("base.parts", {"a\nb": 1}), r"base.parts.'a\nb' is"),
        "decoding-least": (saying("decoding", {"min_new_tokens": 5, "max_new_tokens": 4}), "at most max_new_tokens, 4"),
        "decoding-beams": (saying("decoding", {"do_sample": True, "num_beams": 2}), "num_beams is 2; it has to be 1"),
    }
    return found | {f"manifest-{name}": Bad(*bad) for name, bad in more.items()}


MANIFESTS = _bad_manifests()
"""Name → what is wrong."""

"""The manifest beside an adapter's weights, `blip2vqa.json`, as a declared schema: every key that this package reads.

Checks, what `inspect` shows, what an adapter made from another takes over, and what is cleaned of paths before it is published
are all drawn from here. Keys that nobody knows may stay.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel, create_model, model_validator
from pydantic_core import PydanticCustomError

from blip2vqa.adapters.validation.schema import (
    Count,
    Line,
    Number,
    Place,
    PlaceIfText,
    Rank,
    Schema,
    Sha256,
    has_to_be,
    problems_of,
)
from blip2vqa.config.decoding import DECODING, find_out_of_range
from blip2vqa.config.fields import Option
from blip2vqa.evaluation.metrics import METRICS
from blip2vqa.utils.strict_json import shown

FORMAT = 1
SKETCH = 64
"""Numbers in the sketch of a part of the base."""
Score = Annotated[
    float, has_to_be("at most 1e9 if it is finite", lambda value: not isfinite(value) or abs(value) <= 1e9)
]
"""NaN and infinity may be scores."""


@dataclass(frozen=True)
class Use:
    """How the package uses a key of the manifest."""

    shown: bool = True
    """Whether `exchange.py inspect` gives it; what is long it counts instead."""
    label: str | None = None
    """What it is called on the screen, where it stands there."""
    inherited: bool = False
    """Whether it holds of an adapter made from this one, too. What was trained or measured does not."""
    asks: bool = False
    """Whether it says how the adapter is asked; several adapters merged into one have one of each."""
    words: bool = False
    """Whether its texts are the user's own words, never a path of a machine, whatever they look like."""


class Part(Schema):
    """Fingerprint of one part of a base."""

    sha256: Sha256
    sketch: Annotated[
        list[Annotated[float, has_to_be("a finite number", lambda value: abs(value) <= 1e300)]],
        Field(min_length=SKETCH, max_length=SKETCH),
        has_to_be("numbers of which not all are 0", any),
    ]


class Base(Schema):
    """What identifies a base, as `fingerprint_base` gives it."""

    format: Count | None = None
    parts: dict[str, Part]
    dtype: Line
    quantization: Literal["4bit", "8bit"] | None = None
    tokenizer: Line | None = None
    image_processor: Line | None = None


class _Decoding(Schema):
    """An object that is handed to `Decoding` as it stands."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def check_together(self) -> "_Decoding":
        """Refuse options that exclude each other."""
        for name, value, must in find_out_of_range(self.model_dump(exclude_unset=True)):
            told = {"name": name, "value": value, "must": must}
            raise PydanticCustomError("refused", "does not go together: {name} is {value}; it has to be {must}", told)
        return self


def _option(setting: Option) -> tuple:
    limits, kind = setting.range, Number if setting.type is float else setting.type
    return Annotated[kind, Field(ge=limits.at_least, gt=limits.above, le=limits.at_most)], setting.default


DecodingOptions = create_model(
    "DecodingOptions", __base__=_Decoding, **{name: _option(setting) for name, setting in DECODING.items()}
)


Scores = create_model(
    "Scores",
    __base__=Schema,
    **dict.fromkeys((*METRICS, "n"), (Score | None, None)),
    bertscore_scorer=(Line | None, None),
)


class Metrics(RootModel[dict[str, Scores]]):
    """What metrics.json, or `metrics` in a manifest, holds: {whose: {score: number}}."""


class Data(Schema):
    """The rows that an adapter was trained and measured on."""

    table: str | None = None
    sha256: Line | None = None
    rows_train: Count | None = None
    rows_val: Count | None = None
    images_train: Count | None = None
    images_val: Count | None = None
    blind_score: Number | None = None


class Split(Schema):
    """Where the validation rows are from."""

    val_split: Number | None = None
    eval_table: str | None = None


class Source(Schema):
    """One of the adapters, or checkpoints, that an adapter was made from."""

    name: Place | None = None
    sha256: Line | None = None
    revision: Line | None = None
    weight: Number | None = None


class CalibrationFacts(Schema):
    """How a confidence becomes the probability that the answer is right, and how far off both were."""

    slope: Number
    intercept: Number
    n: Count | None = None
    error_before: Number | None = None
    error_after: Number | None = None


class Origin(Schema):
    """How an adapter was made from others; the command's own report stands beside these keys."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, PlaceIfText] = Field(init=False)

    command: Place | None = None
    of: list[Source] = Field([])


class Manifest(Schema):
    """blip2vqa.json, its keys in the order in which they are written."""

    task: Annotated[Literal["vqa", "caption"] | None, Use(label="task", inherited=True, asks=True)] = None
    family: Annotated[
        Annotated[Line, has_to_be("a family's name", str.strip)] | None, Use(label="family", inherited=True)
    ] = None
    base_model_id: Annotated[Place | None, Use(inherited=True)] = None
    base_model_revision: Annotated[Line | None, Use(inherited=True)] = None
    base_model_commit: Annotated[Line | None, Use(shown=False)] = None
    base: Annotated[Base | None, Use(shown=False, inherited=True)] = None
    prompt: Annotated[str | None, Use(label="prompt", inherited=True, asks=True, words=True)] = None
    decoding: Annotated[DecodingOptions | None, Use(inherited=True, asks=True)] = None
    style: Annotated[Line | None, Use(label="style", inherited=True, asks=True)] = None
    question_types: Annotated[str | None, Use(shown=False, inherited=True)] = None
    answers: Annotated[list[str] | None, Use(shown=False, inherited=True, asks=True, words=True)] = None
    end_token: Annotated[str | None, Use(inherited=True, asks=True, words=True)] = None
    dtype: Annotated[Line | None, Use()] = None
    quantization: Annotated[Line | None, Use(label="trained on")] = None
    scopes: Annotated[list[str] | None, Use(label="scopes", inherited=True)] = None
    shapes: Annotated[dict | None, Use(shown=False)] = None
    roles: Annotated[list[str] | None, Use(label="roles", inherited=True)] = None
    rank: Annotated[Rank | None, Use()] = None
    alpha: Annotated[Number | None, Use()] = None
    scaling: Annotated[Line | None, Use()] = None
    data: Annotated[Data | None, Use()] = None
    split: Annotated[Split | None, Use(shown=False)] = None
    seed: Annotated[int | None, Use(label="seed")] = None
    metrics: Annotated[Metrics | None, Use(words=True)] = None
    calibration: Annotated[CalibrationFacts | None, Use()] = None
    origin: Annotated[Origin | None, Use()] = None
    versions: Annotated[dict | None, Use()] = None
    files: Annotated[dict[str, str], Use(shown=False)] = Field({})


USES: dict[str, Use] = {
    key: next(mark for mark in field.metadata if isinstance(mark, Use)) for key, field in Manifest.model_fields.items()
}
"""Key of the manifest → how it is used, in the order in which keys are written."""


def check_manifest(manifest: object) -> list[str]:
    """Check the JSON value of blip2vqa.json: types and ranges of all that is relied on. Return its problems, one line each."""
    if not isinstance(manifest, dict):
        return [f"is {shown(manifest)}, not an object"]
    if manifest.get("format") != FORMAT:
        return [f"has format {shown(manifest.get('format'))}; this version reads {FORMAT}"]
    return problems_of(Manifest, manifest)

"""Defines what a metric is: its name, what it needs, which way is better, how it is printed, and how it is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from blip2vqa.utils.formatting import as_text, percent

if TYPE_CHECKING:
    from blip2vqa.data.examples import Example


class Needs(StrEnum):
    """Names what a metric cannot be computed without, which also decides for which task it is computed (`metrics_of`)."""

    ANSWERS = "answers"
    """An answer to each question; computed for questions."""
    ANNOTATORS = "annotators"
    """Several annotators' answers to a question: computed on the questions that have them, left out where none has."""
    CAPTIONS = "captions"
    """Captions of each picture; computed for captions."""
    ENCODER = "encoder"
    """A text encoder, handed to `compute` as its second argument; computed for both tasks where there is one."""


@dataclass(frozen=True)
class Row:
    """A predicted text beside what it is compared with."""

    text: str
    references: tuple[str, ...]
    """The one answer of the table to a question, or all captions of a picture; never empty."""
    example: "Example"

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was predicted, which every metric counts as wrong."""
        return not self.text.strip()


@dataclass(frozen=True)
class Result:
    """Holds what a metric has computed on some rows."""

    value: float | None
    """None for no rows."""
    scores: list[float] | None = None
    """One a row, where the metric has a score of each."""
    details: dict = field(default_factory=dict)
    """Further entries of metrics.json, by key."""

    @classmethod
    def mean_of(cls, scores: list[float], details: dict | None = None) -> "Result":
        """Make the result whose value is the mean of the rows' scores."""
        return cls(sum(scores) / len(scores) if scores else None, scores, details or {})


@dataclass(frozen=True)
class Metric:
    """One metric; each module in `blip2vqa/evaluation/metrics/` defines one as `METRIC`."""

    name: str
    """Its key in metrics.json and in manifests, and its name for `--metric_for_best_model`."""
    title: str
    """Its column's heading."""
    order: int
    """Places it in tables, from the smallest; the first of a task is the task's main metric."""
    needs: Needs
    compute: Callable[..., Result]
    """`compute(rows: Sequence[Row])`, with the encoder as second argument where it needs one."""
    is_share: bool = False
    """Printed as a percentage; otherwise with `digits` decimals."""
    digits: int = 4
    higher_is_better: bool | None = True
    """None: it describes the texts and says nothing of their worth, so it chooses no epoch and stands in no model card."""
    card_title: str = ""
    """What a model card calls it, where that is not `title`."""
    by_question_type: bool = False
    """Whether its mean over each question type is kept, too."""
    repeats: str = ""
    """A metric that it often equals: tables show both only where they differ by 0.01 or more."""
    interval: str = ""
    """Key of its interval where systems are compared, if that is not its name with `_interval` behind it."""

    @property
    def interval_key(self) -> str:
        """Return the key of its interval where systems are compared; one that needs an encoder has none."""
        return self.interval or f"{self.name}_interval"

    def show(self, value: float | None) -> str:
        """Write one value for a table."""
        return percent(value) if self.is_share else as_text(value, f"{{:.{self.digits}f}}")

    def rows_of(self, rows: Sequence[Row]) -> list[Row]:
        """Pick the rows that this metric can be computed on."""
        return [row for row in rows if self.needs is not Needs.ANNOTATORS or len(row.example.answers) > 1]

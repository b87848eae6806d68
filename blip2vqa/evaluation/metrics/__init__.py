"""All metrics: each module of this folder defines one as `METRIC`; adding a metric means adding a module.

This file and the modules import nothing heavy at their top, since commands that load no model read names from here.
"""

import pkgutil
from collections.abc import Collection, Mapping
from importlib import import_module

from blip2vqa.evaluation.metric import Metric, Needs


def discover() -> dict[str, Metric]:
    """Import all modules of this folder and collect their metrics by name, in the order of tables."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {metric.name: metric for metric in sorted((module.METRIC for module in modules), key=lambda one: one.order)}


METRICS: dict[str, Metric] = discover()
"""By name, in the order of tables."""


def metrics_of(task: str) -> list[Metric]:
    """List the metrics of a task, "vqa" or "caption"; the first is its main one."""
    there = {"vqa": (Needs.ANSWERS, Needs.ANNOTATORS, Needs.ENCODER), "caption": (Needs.CAPTIONS, Needs.ENCODER)}
    return [metric for metric in METRICS.values() if metric.needs in there[task]]


MAIN_METRICS: tuple[str, ...] = tuple(metrics_of(task)[0].name for task in ("vqa", "caption"))
"""The name of each task's main metric."""


def main_metric(scores: Mapping) -> Metric | None:
    """Find the main metric of the task that these scores belong to; None where they hold no main metric."""
    return next((METRICS[name] for name in MAIN_METRICS if scores.get(name) is not None), None)


def metrics_shown(several: Collection[Mapping]) -> list[Metric]:
    """List the metrics that a table of these scores shows: those among them, without one that only repeats another."""
    return [metric for metric in METRICS.values() if any(metric.name in scores for scores in several)
            and (not metric.repeats or any(_differ(scores, metric) for scores in several))]  # fmt: skip


def _differ(scores: Mapping, metric: Metric) -> bool:
    value, other = scores.get(metric.name), scores.get(metric.repeats)
    return value is not None and (other is None or abs(value - other) >= 0.01)


def scorers_of(several: Collection[Mapping]) -> list[str]:
    """List the names of the text encoders that these scores were made with."""
    return sorted({scores["bertscore_scorer"] for scores in several if scores.get("bertscore_scorer")})

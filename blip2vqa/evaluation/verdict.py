"""Names a run's scores, and says what they mean for its adapter."""

from collections.abc import Mapping

from blip2vqa.evaluation.metrics import main_metric

ROWS = {
    "base": "base model",
    "adapter": "base + adapter",
    "answered": "of these, the sure answers",
    "blind": "blind baseline (no image)",
    "swapped": "adapter, images swapped",
    "predictions": "predictions",  # of any other system
}
"""What each key of metrics.json is called in tables and model cards, in their order."""
BLIND = "blind (no image)"
"""What the baseline that sees no image is called beside systems that are compared."""


def present_rows(metrics: Mapping[str, dict | None]) -> dict[str, dict]:
    """Pick the rows that there are scores of, in the order of `ROWS`."""
    return {key: metrics[key] for key in ROWS if metrics.get(key)}


def verdict(metrics: Mapping[str, dict], tried_swapping: bool = True) -> str:
    """Say in one line whether the adapter owes its score to the picture, from `metrics` with `adapter` and `blind`.

    `tried_swapping`: whether `swapped` is only missing where there was no other image to ask about.
    """
    main = main_metric(metrics["adapter"])
    adapter, blind = metrics["adapter"][main.name], metrics["blind"][main.name]
    if adapter <= blind:
        return "no better than the blind baseline, so do not take its answers as read off the picture"
    swapped = (metrics.get("swapped") or {}).get(main.name)
    if swapped is None:
        why = "; the images could not be swapped, there is only one" if tried_swapping else ""
        return f"better than the blind baseline{why}"
    owed = adapter - swapped
    if owed <= 0:
        return "as good with another picture as with the right one, so it does not look at the picture"
    share = (
        f"{100 * owed:.1f} points of its {main.title} are" if main.is_share else f"{owed:.3f} of its {main.title} is"
    )
    return f"better than the blind baseline, and {share} owed to the picture"

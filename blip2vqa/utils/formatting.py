"""Numbers as people read them, written the same way in every table, block and message."""

MISSING = "-"
"""Stands in a table where there is no value."""


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of 0 to 1 as a percentage: 0.951 → "95.1%"."""
    return MISSING if share is None else f"{share:.{digits}%}"


def points(difference: float | None) -> str:
    """Write the difference of two shares in percentage points, with its sign and without a unit: 0.598 → "+59.8"."""
    return MISSING if difference is None else f"{100 * difference:+.1f}"


def as_text(value: float | None, pattern: str, unit: float = 1) -> str:
    """Write `value`, counted in units of `unit`, by a format pattern; `MISSING` for None."""
    return MISSING if value is None else pattern.format(value / unit)

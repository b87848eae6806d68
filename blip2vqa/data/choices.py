"""Multiple choice: the answers that each row's own column allows, and which of them is right."""

from collections.abc import Sequence
from dataclasses import replace

from blip2vqa.data.annotators import parse_answers
from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.columns import find_column
from blip2vqa.data.examples import Example
from blip2vqa.utils.errors import InputError

RIGHT = "correct_choice_idx"


def read_choices(
    examples: Sequence[Example],
) -> tuple[list[Example], dict[int, tuple[str, ...]], list[tuple[int, str]]]:
    """Read each row's choices and, where the table names it, the right one.

    Returns the examples, with the right choice as their answer; the choices by row; and the rows that cannot be used, with the
    reasons: no choices, a number of the right one that is none, or none where other rows have one. Raises InputError where
    two columns may hold the choices.
    """
    found, choices, reasons = [], {}, []
    column = find_column("", list(examples[0].extra), "choices") if examples else None
    named = any(example.extra.get(RIGHT, "").strip() for example in examples)
    for example in examples:
        try:
            choices[example.row], right = _read(example, column, named)
            found.append(replace(example, answers=(right,)) if right else example)
        except InputError as error:
            reasons.append((example.row, "; ".join(error.problems)))
            found.append(example)
    return found, choices, reasons


def are_chosen(predictions: Sequence[str], examples: Sequence[Example], choices: dict[int, tuple[str, ...]]) -> bool:
    """Return whether the predictions, but for empty ones, are choices of their rows, of which the table says the right one."""
    pairs = [(said, example) for said, example in zip(predictions, examples, strict=True) if said.strip()]
    return bool(pairs) and all(
        example.extra.get(RIGHT, "").strip()
        and normalize_answer(said) in map(normalize_answer, choices.get(example.row, ()))
        for said, example in pairs
    )


def _read(example: Example, column: str | None, named: bool) -> tuple[tuple[str, ...], str]:
    try:
        choices = parse_answers(example.extra.get(column, ""))
    except ValueError as error:
        raise InputError(f"{column} is {error}, not a list of answers") from error
    if not choices:
        raise InputError("no list of choices")
    given = tuple(dict.fromkeys(choice for choice in choices if choice.strip()))
    if not named:
        return given, ""
    number = example.extra.get(RIGHT, "").strip()
    if not number:
        raise InputError(f"no {RIGHT}, which other rows have")
    try:
        place = float(number)
    except ValueError:
        place = -1.0
    if place not in range(len(choices)) or not choices[int(place)].strip():  # 1.0 is how columns with gaps write 1
        raise InputError(f"{RIGHT} {number} is the place of none of its {len(choices)} choices, which count from 0")
    return given, choices[int(place)]

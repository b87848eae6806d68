"""Several questions in one cell, with their answers in another: told from the text, and taken apart."""

import logging

from blip2vqa.data.raw_table import RawTable, name_rows
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)

ONE_A_CELL = "none"
SEPARATORS = ("||", "|", ";", "\n")  # what people put between them


def refuse_several(raw: RawTable, path: str, question: str, answer: str | None) -> None:
    """Raise InputError for a table that has several questions, and as many answers, in most of its rows' cells.

    Where fewer rows look like that, a warning names them.
    """
    if answer is None:
        return
    rows = list(zip(raw.frame[question], raw.frame[answer], strict=True))
    for mark in SEPARATORS:
        several = [asked.count(mark) == said.count(mark) > 0 for asked, said in rows]
        shown = {"\n": "line breaks"}.get(mark, f'"{mark}"')
        if 2 * sum(several) > len(several):
            flag = {"\n": "$'\\n'"}.get(mark, f'"{mark}"')
            raise InputError(
                f"{path}: {sum(several)} of {len(several)} rows hold several questions in {question} and as many answers in "
                f"{answer}, with {shown} between them; --cell_separator {flag} reads them (and {ONE_A_CELL} leaves cells whole)"
            )
        if any(several):
            logger.warning(
                "%s: %s: perhaps several questions in %s and as many answers in %s, with %s between them: left whole",
                path,
                name_rows(row for row, one in zip(raw.frame.index, several, strict=True) if one),
                question,
                answer,
                shown,
            )
            return


def split_cells(raw: RawTable, path: str, question: str, answer: str | None, separator: str) -> RawTable:
    """Make a row of each question and its answer, numbered anew from 1. Raises InputError, naming rows, for other numbers."""
    columns = [question, answer] if answer else [question]
    cut = {name: [cell.split(separator) for cell in raw.frame[name]] for name in columns}
    counts = [list(map(len, cells)) for cells in cut.values()]
    uneven = [row for row, one, other in zip(raw.frame.index, counts[0], counts[-1], strict=True) if one != other]
    if uneven:
        raise InputError(
            f'{path}: {name_rows(uneven)}: not as many answers as questions when cells are cut at "{separator}"'
        )
    table = raw.take([position for position, count in enumerate(counts[0]) for _ in range(count)])
    frame = table.frame.assign(**{name: [one.strip() for row in cells for one in row] for name, cells in cut.items()})
    frame.index = range(1, len(frame) + 1)
    nested = {name: values for name, values in table.nested.items() if name not in columns}
    return RawTable(frame, nested, table.images, table.layout)

"""Keep the answers of a long run as they come, so that it goes on where it was."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from blip2vqa.data.journal import Journal
from blip2vqa.inference.request import Answer
from blip2vqa.utils.distributed import run_on_main_rank
from blip2vqa.utils.progress import show_progress


@contextmanager
def opened_journal(output_path: str, run_key: dict, **options) -> Iterator[tuple[Journal | None, set[int | str]]]:
    """Open the journal of a run in the main process; yields it, None in the others, and the rows in it, which all get."""
    with ExitStack() as opened:
        journals = []

        def open_it() -> set[int | str]:
            journals.append(opened.enter_context(Journal(output_path, run_key, **options)))
            return set(journals[0].results)

        known = run_on_main_rank(open_it)
        yield journals[0] if journals else None, known


def keep_answers(
    batches: Iterable[list[tuple[int, Answer]]],
    journal: Journal | None,
    rows: Sequence[int | str],
    done: set[int],
    progress: str,
    unit: str,
    more: Callable[[], dict] = dict,
) -> None:
    """Add batches of (index, answer) to the journal as they come, under `rows[index]`, each with its share of the seconds.

    `more`: what else is kept with each answer of a batch. The bar counts what is not in `done`.
    """
    began = time.perf_counter()
    with show_progress(total=len(rows) - len(done), desc=progress, unit=unit, disable=journal is None) as bar:
        for batch in batches:
            now = time.perf_counter()
            if journal and batch:
                kept = {"seconds": (now - began) / len(batch), **more()}
                journal.add(
                    {"row": rows[index], "answer": answer.text, "confidence": answer.confidence, **kept}
                    for index, answer in batch
                )
            began = now
            bar.update(sum(index not in done for index, _ in batch))

"""Keeps the results of a long run beside its output, so that the same command goes on where it was."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from blip2vqa.utils.errors import InputError, file_error
from blip2vqa.utils.locked_file import LockedFile

Written = TypeVar("Written")


def partial_path(output_path: str | Path) -> Path:
    """Name the journal of a run that is not finished: `RESULTS.csv` → `RESULTS.csv.partial`."""
    return Path(output_path).with_name(Path(output_path).name + ".partial")


class Journal(AbstractContextManager):
    """Keeps results until all files that are made of them are written.

    It holds one JSON object a line: first what was run, then one result each; behind the last of them `{"writing": true}`, when
    the output files are being written. It is flushed with every batch, so that a killed run goes on where it was, and no second
    process writes to it meanwhile.

    Args:
        run_key: what the results depend on (model, adapter, prompt, decoding, …), in JSON's types.
        others: further files that are written at the end.
        overwrite: start anew. Finished files stay in place until new ones replace them.

    Raises `InputError` when a finished output stands there, or the journal is of another run, unless `overwrite`; and when
    another process writes to it.
    """

    def __init__(
        self, output_path: str | Path, run_key: dict, *, others: Sequence[str | Path] = (), overwrite: bool = False
    ):
        self.path = partial_path(output_path)
        self.results: dict[int | str, dict] = {}
        """By their key `row`."""
        self._outputs = [Path(output_path), *map(Path, others)]
        # Through JSON, so that a tuple equals the list it comes back as.
        self._run = json.loads(json.dumps(run_key))
        for output in self._outputs:
            if output.is_dir():
                raise InputError(f"{output}: is a folder; --output_path names the file to write")
        try:
            self._file = LockedFile(self.path)
        except OSError as error:
            raise file_error(f"{self.path}: cannot be written", error) from error
        try:
            self._open(overwrite)
        except BaseException:
            self._file.close(remove=not self._file.size)
            raise

    def _open(self, overwrite: bool) -> None:
        header, entries, size = (None, [], 0) if overwrite else _read(self.path, self._file.read())
        # An interrupted --overwrite may go on without saying so again: the journal remembers.
        self._replaces = overwrite or bool(header and header["overwrite"])
        self._writing = {"writing": True} in entries
        self._keep_what_is_finished()
        if header is None:
            self._append([{"run": self._run, "overwrite": self._replaces}], after=0)
            return
        before, now = header["run"], self._run
        changed = [
            "another table" if key == "input_table" else f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted(before | now)
            if before.get(key) != now.get(key)
        ]
        if changed:
            raise InputError(
                f"{self.path}: begun with other settings ({'; '.join(changed)}); repeat that run to finish it, name another "
                "--output_path, or start anew with --overwrite"
            )
        self.results = {entry["row"]: entry for entry in entries if "row" in entry}
        if size < self._file.size:
            self._append([], after=size)  # what a kill left of the last line

    def _keep_what_is_finished(self) -> None:
        for output in self._outputs:
            if output.exists() and not self._replaces and not self._writing:
                raise InputError(f"{output}: is already there, finished; name another, or start anew with --overwrite")

    def add(self, results: Iterable[dict]) -> None:
        """Keep results, each under its `row`; they survive a kill once this returns. A row given twice keeps the later one."""
        entries = list(results)
        self._append(entries)
        self.results |= {entry["row"]: entry for entry in entries}

    def _append(self, lines: list[dict], after: int | None = None) -> None:
        self._file.append("".join(json.dumps(line) + "\n" for line in lines).encode(), after=after)

    def finish(self, write: Callable[[], Written]) -> Written:
        """Let `write` write all output files, then remove the journal; returns what `write` returns.

        Interrupted in between, the same command goes on and writes them again. Raises `InputError` when one of them has
        appeared in the meantime.
        """
        self._keep_what_is_finished()
        if not self._writing:
            self._append([{"writing": True}])
            self._writing = True
        written = write()
        self._file.close(remove=True)
        return written

    def close(self) -> None:
        """Close the journal, which stays for the next run unless it was finished."""
        self._file.close()

    def __exit__(self, *_) -> None:
        self.close()


def _read(path: Path, data: bytes) -> tuple[dict | None, list[dict], int]:
    """Read header, entries and length in bytes of a journal's whole lines; no header when there is nothing to go on from."""
    size = data.rfind(b"\n") + 1  # a line is whole when its end is there
    try:
        lines = [json.loads(line) for line in data[:size].splitlines()]
        header, entries = (lines[0], lines[1:]) if lines else (None, [])
        ours = header is None or {"run", "overwrite"} <= header.keys()
        if not ours or not all(
            "writing" in entry or {"row", "answer", "confidence"} <= entry.keys() for entry in entries
        ):
            raise ValueError("not a journal of predictions")
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it, or start anew with --overwrite") from error
    return header, entries, size

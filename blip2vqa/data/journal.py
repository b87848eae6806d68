"""Keeps the results of a long run beside its output, so that the same command goes on where it was."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, TypeVar

import xxhash
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from blip2vqa.utils.errors import InputError, file_error
from blip2vqa.utils.files import partial_path
from blip2vqa.utils.locked_file import LockedFile
from blip2vqa.utils.terminal import half_pair

Written = TypeVar("Written")
SUM = "sum"
WRITING = {"writing": True}
"""The line that stands behind the last result."""
Share = Annotated[float, Field(ge=0, lt=2)]
"""A probability; half precision may round it to a little more than 1."""


class Kept(TypedDict):
    """What is kept of one answer, at least; a journal may declare more, and hold what is not declared."""

    row: int | str
    answer: str
    confidence: Share | None


class Journal(AbstractContextManager):
    """Keeps results until all files that are made of them are written.

    It holds one JSON object a line: first what was run, then one result each; behind the last of them `{"writing": true}`, when
    the output files are being written. It is flushed with every batch, so that a killed run goes on where it was, and no second
    process writes to it meanwhile.

    Args:
        run_key: what the results depend on (model, adapter, prompt, decoding, …), in JSON's types.
        others: further files that are written at the end.
        kept: what each result must hold.
        overwrite: start anew. Finished files stay in place until new ones replace them.

    Raises `InputError` when a finished output stands there, or the journal is of another run, unless `overwrite`; and when
    another process writes to it.
    """

    def __init__(
        self,
        output_path: str | Path,
        run_key: dict,
        *,
        others: Sequence[str | Path] = (),
        overwrite: bool = False,
        kept: type = Kept,
    ):
        self.path = partial_path(output_path)
        self.results: dict[int | str, dict] = {}
        """By their key `row`."""
        self._kept = TypeAdapter(list[kept])
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
        header, entries, size = (None, [], 0) if overwrite else _read(self.path, self._file.read(), self._kept)
        # An interrupted --overwrite may go on without saying so again: the journal remembers.
        self._replaces = overwrite or bool(header and header["overwrite"])
        self._writing = WRITING in entries
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
        self._file.append("".join(map(_with_sum, lines)).encode(), after=after)

    def finish(self, write: Callable[[], Written]) -> Written:
        """Let `write` write all output files, then remove the journal; returns what `write` returns.

        Interrupted in between, the same command goes on and writes them again. Raises `InputError` when one of them has
        appeared in the meantime.
        """
        self._keep_what_is_finished()
        if not self._writing:
            self._append([WRITING])
            self._writing = True
        written = write()
        self._file.close(remove=True)
        return written

    def close(self) -> None:
        """Close the journal, which stays for the next run unless it was finished."""
        self._file.close()

    def __exit__(self, *_) -> None:
        self.close()


def _with_sum(line: dict) -> str:
    """Write one line, with a checksum of the rest of it behind it."""
    text = json.dumps(line)
    return json.dumps(line | {SUM: xxhash.xxh3_64_hexdigest(text.encode())}) + "\n"


def _checked(line: str) -> dict:
    """Parse one line, without its checksum; those of version 0.2 have none. Raises ValueError for a damaged one."""
    value = json.loads(line)
    known = value.pop(SUM, None) if isinstance(value, dict) else None
    if known is not None and line + "\n" != _with_sum(value):
        raise ValueError("a line does not agree with its checksum")
    return value


def _read(path: Path, data: bytes, kept: TypeAdapter) -> tuple[dict | None, list[dict], int]:
    """Read header, entries and length in bytes of a journal's whole lines; no header when there is nothing to go on from."""
    size = data.rfind(b"\n") + 1  # a line is whole when its end is there
    try:
        lines = [_checked(line) for line in data[:size].decode().split("\n")[:-1]]
        header, entries = (lines[0], lines[1:]) if lines else (None, [])
        kept.validate_python([entry for entry in entries if entry != WRITING], strict=True)
        if not (header is None or _is_header(header)) or half_pair(json.dumps(entries, ensure_ascii=False)):
            raise ValueError("not a journal of predictions")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        raise InputError(
            f"{path}: damaged ({where}: {first['msg']}); remove it, or start anew with --overwrite"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it, or start anew with --overwrite") from error
    return header, entries, size


def _is_header(header: object) -> bool:
    return (
        isinstance(header, dict) and isinstance(header.get("run"), dict) and isinstance(header.get("overwrite"), bool)
    )

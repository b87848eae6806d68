"""The files of a data set: where they are, and whether they may be written."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from blip2vqa.utils.errors import raise_all


class Files:
    """Paths of a data set: its table `vqa.csv` and, beside it, files of its name with other endings."""

    def __init__(self, table: str | Path):
        self.table = Path(table)
        self.train = self.table.with_suffix(".train.csv")
        self.val = self.table.with_suffix(".val.csv")
        self.test = self.table.with_suffix(".test.csv")
        self.provenance = self.table.with_suffix(".jsonl")
        self.card = self.table.with_suffix(".md")
        self.chart = self.table.with_suffix(".png")
        self.preview = self.table.with_suffix(".html")
        self.run = self.table.with_suffix(".run.json")
        self.written = list(vars(self).values())
        """The files that make up a finished data set."""
        self.responses = self.table.with_suffix(".responses.jsonl")
        """What a back end responded; every run adds to it."""
        self.unfinished = self.table.with_suffix(".unfinished.txt")
        """Why the same command would go on; there while files are written, and as long as pictures lack an answer."""

    def check(self, overwrite: bool, json_output: str | None = None, inputs: Sequence[str | None] = ()) -> None:
        """Raise `InputError` for files that would be written over, or cannot be written; an unfinished data set may be."""
        problems = []
        if json_output and Path(json_output).resolve() in [path.resolve() for path in (*self.written, self.responses)]:
            problems.append(f"--json_output {json_output}: is a file of --output_path {self.table}, too; name another")
        for path in filter(None, inputs):
            if Path(path).resolve() in [one.resolve() for one in (*self.written, Path(json_output or self.table))]:
                problems.append(f"--output_path {self.table}: would write over {path}, which it reads; name another")
        may_overwrite = overwrite or self.unfinished.exists()
        there = [path for path in self.written if path.exists()]
        if there and not may_overwrite:
            what = "is already there, finished" if self.table in there else f"{there[0].name} is already there"
            problems.append(f"--output_path {self.table}: {what}; name another, or --overwrite true")
        if json_output and Path(json_output).exists() and not may_overwrite:
            problems.append(f"--json_output {json_output}: is already there; name another, or --overwrite true")
        problems += _not_writable("output_path", self.table)
        if json_output:
            problems += _not_writable("json_output", Path(json_output))
        raise_all(problems)


def _not_writable(flag: str, path: Path) -> list[str]:
    if path.is_dir():
        return [f"--{flag} {path}: is a folder; name a file"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        return [f"--{flag} {path}: its folder cannot be written to: {error.strerror or error}"]
    return []

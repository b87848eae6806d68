"""What caption.py takes."""

from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config.base import ServedBaseArguments
from blip2vqa.config.common import check_ending, check_prompt
from blip2vqa.config.fields import option
from blip2vqa.config.inference import TABLES
from blip2vqa.utils.files import partial_path


@dataclass
class CaptionArguments(ServedBaseArguments):
    """What to caption, how, and where to write it."""

    images: list[str] | None = option(
        None, "Pictures: files, folders, globs, http(s) addresses.", nargs="+", group="Pictures"
    )
    allow_private_addresses: bool = option(
        False, "Fetch from this machine or its network, too. Else only public addresses are fetched."
    )
    download_seconds: float = option(20.0, "Longest that one picture may take to come, in seconds.", above=0)
    download_mb: float = option(50.0, "Largest picture to fetch, in MB.", above=0)
    styles: list[str] | None = option(
        None,
        "STYLE=ADAPTER, or STYLE by its prompt alone. A style is detailed, concise, creative, or a JSON or YAML file of your "
        "own. Default: the three styles. With --prompt: none.",
        nargs="+",
        group="Captions",
    )
    prompt: str | None = option(None, "One more style: an instruction or a caption's beginning.")
    batch_size: int = option(8, "Captions written at once.", at_least=1)
    output_path: str = option(
        "captions.csv",
        "Table: image, style, caption, confidence, status. It ends with .csv, .jsonl or .json.",
        group="Output",
    )
    compare: str | None = option(None, "HTML page: each picture with its captions. It is one self-contained file.")
    overwrite: bool = option(False, "Replace the output if it exists.")

    def missing(self) -> list[str]:
        return [] if self.images else ["images"]

    def check(self) -> list[str]:
        problems = super().check()
        if not self.images:
            problems.append("--images: missing; name the pictures to caption")
        problems += check_prompt(self.prompt, of_questions=False)
        problems += check_ending("output_path", self.output_path, TABLES)
        problems += check_ending("compare", self.compare, (".html", ".htm"))
        for flag, path in (("output_path", self.output_path), ("compare", self.compare)):
            if path and Path(path).exists() and not self.overwrite and not partial_path(self.output_path).exists():
                problems.append(f"--{flag} {path}: is already there; name another, or --overwrite it")
        if self.compare and Path(self.compare).resolve() == Path(self.output_path).resolve():
            problems.append(f"--compare {self.compare}: is the --output_path, too; name another file")
        return problems

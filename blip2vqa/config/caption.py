"""What caption.py takes."""

from dataclasses import dataclass, field
from pathlib import Path

from blip2vqa.config.base import ServedBaseArguments
from blip2vqa.config.fields import check_range, option


@dataclass
class CaptionArguments(ServedBaseArguments):
    """What to caption, how, and where to write it."""

    images: list[str] = field(
        default=None, metadata={"help": "Pictures: files, folders, globs, http(s) addresses.", "nargs": "+"}
    )
    styles: list[str] = field(
        default=None,
        metadata={
            "help": "STYLE=ADAPTER, a folder or a Hub id; or STYLE, which acts by its prompt and decoding alone. A style is "
            "detailed, concise, creative, or a JSON of your own; default: these three, or with --prompt none.",
            "nargs": "+",
        },
    )
    prompt: str = option(None, "An instruction or the beginning of a caption, as one more style, called prompt.")
    output_path: str = option("captions.csv", "Table written: image, style, caption, confidence, adapter, status.")
    compare: str = option(
        None, "Page written, one self-contained HTML file: each picture with its captions side by side."
    )
    batch_size: int = option(8, "Captions written at once.")
    allow_private_addresses: bool = option(False, "Fetch pictures from addresses of this machine or its network, too.")
    download_seconds: float = option(20.0, "Longest that one picture may take to come, in seconds.")
    download_mb: float = option(50.0, "Largest picture to fetch, in MB.")
    overwrite: bool = option(False, "Replace the output if it exists.")

    def check(self) -> list[str]:
        problems = []
        if not self.images:
            problems.append("--images: missing; name the pictures to caption")
        if self.prompt and "{question}" in self.prompt:
            problems.append(f"--prompt: {self.prompt!r} contains {{question}}, and captions have none; leave it out")
        check_range(problems, self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        for flag in ("download_seconds", "download_mb"):
            check_range(problems, getattr(self, flag) > 0, flag, getattr(self, flag), "above 0")
        for flag, path in (("output_path", self.output_path), ("compare", self.compare)):
            if path and Path(path).exists() and not self.overwrite:
                problems.append(f"--{flag} {path}: is already there; name another, or --overwrite it")
        if self.compare and Path(self.compare).resolve() == Path(self.output_path).resolve():
            problems.append(f"--compare {self.compare}: is the --output_path, too; name another file")
        return problems

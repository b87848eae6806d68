"""README and the pages of docs/ as tests read them: texts, code blocks, and the commands that stand in them."""

import re
import shlex
from pathlib import Path

from helpers.paths import ROOT

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "assets" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = {
    "finetune": "finetune.py", "infer": "inference.py", "caption": "caption.py", "generate": "generate_vqa.py",
    "exchange": "exchange.py", "report": "report.py", "demo": "demo.py",
}  # fmt: skip
"""Command of `blip2vqa` → the script that does the same."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
LAUNCHERS = ("accelerate launch", "python", "blip2vqa")


def page_name(page: Path) -> str:
    """The page's path from the root, for the names of tests."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced code blocks of a language, or of none, in order."""
    return [block for named, block in FENCED.findall(page.read_text()) if named == language]


def prose(page: Path) -> str:
    """The page without its fenced code blocks."""
    return FENCED.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """The code within the prose, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def commands(page: Path) -> list[str]:
    """Lines of the bash blocks, with continuations joined and chains split, then commands within the prose."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.split(" #")[0].strip() for line in lines for part in line.split("&&")]
    inline = [span for span in spans(page) if re.match(rf"(?:{'|'.join(LAUNCHERS)})\s", span)]
    return [part for part in parts if part] + inline


def words_of(command: str) -> list[str]:
    """The words of a command; "…" stands for a value after a flag, and for nothing elsewhere."""
    words: list[str] = []
    for word in shlex.split(command):
        if word != "…":
            words.append(word)
        elif words and words[-1].startswith("--"):
            words.append("VALUE")
    return words

"""The card of a made data set for the Hub: fill data_card.md with what the data set holds and how it was made."""

import re
import shlex
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from blip2vqa.generate.report.data_summary import cost_line, filter_rows, products_by_size, ranked
from blip2vqa.utils.formatting import percent

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}  # the Hub's names
SPLITS = {"train": "train", "val": "validation", "test": "test"}  # this package's names → the Hub's
ABO_PAGE = "https://amazon-berkeley-objects.s3.us-east-1.amazonaws.com/index.html"


def data_card(summary: dict, plot: str | None = None) -> str:
    """Write the README.md of a data set, with the Hub's YAML in front.

    Args:
        summary: of plain JSON types.
            `output_path`; `catalogue`: `kind` ("abo" or "table"), `path`, `listings` read,
            `left_out` {reason: listings or pictures}, `unsaid` {reason: facts that are not asked about};
            `backend`, `model` (None for templates), `check_model` (or None), `seed`, `command`, `versions` {package: version};
            `counts`: `pictures`, `products`, `questions` of the result;
            `splits`: {"train", "val", "test": {`questions`, `pictures`, `products`}};
            `question_types`: {type: {`n`, `answers`: {answer: questions}}}; `product_types`: {type: pictures};
            `funnel`: [{`step`, `dropped`, `left`, `reasons`: {reason: questions}}], in their order;
            `blind`: `before`, `after` (shares right, 0 to 1, or None), `limit`;
            `cost`: `answers`, `input_tokens`, `output_tokens`, `usd` (or None), or None.
        plot: name of the file that holds `draw_distributions(summary)`, beside the card.
    """
    name, is_abo = Path(summary["output_path"]).stem, summary["catalogue"]["kind"] == "abo"
    files = {split: f"{name}.{split}.csv" for split in SPLITS if summary["splits"][split]["questions"]}
    text = _template().render(
        summary,
        name=name,
        is_abo=is_abo,
        by_model=summary["backend"] != "templates",
        front_matter=_front_matter(summary, name, is_abo, files),
        catalogue_name=Path(summary["catalogue"]["path"]).name,
        products=products_by_size(summary),
        parts={name: summary["splits"][split] for split, name in SPLITS.items()} | {"all": summary["counts"]},
        filters=filter_rows(summary),
        training_command=_training_command(name, files),
        plot=plot,
    )
    return text.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text


def _template() -> Template:
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "plain": _plain, "code": _code, "code_block": _code_block, "percent": percent, "thousands": "{:,}".format,
        "without_folders": _without_folders, "last_part": _last_part,
    }  # fmt: skip
    environment.globals |= {"ABO_PAGE": ABO_PAGE, "counted": _counted, "ranked": ranked, "cost_line": cost_line}
    return environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))


def _front_matter(summary: dict, name: str, is_abo: bool, files: dict[str, str]) -> str:
    from huggingface_hub import DatasetCardData

    n = summary["counts"]["questions"]
    paths = [{"split": SPLITS[split], "path": path} for split, path in files.items()]
    abo = {"license": "cc-by-4.0", "source_datasets": ["extended"]} if is_abo else {}
    data = DatasetCardData(
        language=["en"], task_categories=["visual-question-answering"], annotations_creators=["machine-generated"],
        size_categories=[next((size for most, size in SIZES.items() if n < most), "1M<n<10M")],
        pretty_name=name, configs=[{"config_name": "default", "data_files": paths}] if paths else None, **abo,
    )  # fmt: skip
    return data.to_yaml().strip()


def _training_command(name: str, files: dict[str, str]) -> str:
    table = files.get("train", f"{name}.csv")
    held_out = f" --eval_csv_path {shlex.quote(files['val'])}" if {"train", "val"} <= files.keys() else ""
    return f"accelerate launch finetune.py --image_dir IMAGES --csv_path {shlex.quote(table)}{held_out}"


def _counted(pairs: list[tuple[str, int]]) -> list[str]:
    return [f"{_plain(name)} {n:,}" for name, n in pairs]


def _plain(text: object) -> str:
    """Escape text so that Markdown shows it as it is, on one line, and makes no links of addresses in it."""
    text = re.sub(r"([\\`*_\[\]<>|~&$!:@])", r"\\\1", " ".join(str(text).split()))
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", text)


def _code(text: str) -> str:
    """Put text in a code span, whatever ticks it has."""
    text, fence = " ".join(text.split()), _fence(text, 1)
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def _code_block(command: str) -> str:
    fence = _fence(command, 3)
    return f"{fence}bash\n{command}\n{fence}"


def _fence(text: str, least: int) -> str:
    """Return more ticks than the text has in a row, and at least so many."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _without_folders(command: str) -> str:
    """Strip a command of what is the user's own affair: the folders that files lie in, a password in an address."""
    command = re.sub(r"//[^/@\s]*@", "//", " ".join(command.split()))
    try:
        return shlex.join(map(_last_part, shlex.split(command)))
    except ValueError:  # a quotation mark without its fellow
        return command


def _last_part(word: str) -> str:
    """Take the last part of an absolute path, also behind `--flag=`; anything else as it is."""
    flag, equals, value = word.rpartition("=")
    return flag + equals + ((Path(value).name or value) if value.startswith(("/", "~")) else value)

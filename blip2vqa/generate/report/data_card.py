"""What a made data set holds and how it was made: a card for the Hub."""

import re
import shlex
from pathlib import Path
from urllib.parse import quote

from blip2vqa.generate.report.data_summary import cost_line, products_by_size, ranked, reasons_line, types_by_size
from blip2vqa.reporting.labels import percent

COMMONEST = 10  # answers of a question type that the card names
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}  # the Hub's names
SPLITS = {"train": "train", "val": "validation", "test": "test"}  # this package's names → the Hub's
ABO_PAGE = "https://amazon-berkeley-objects.s3.us-east-1.amazonaws.com/index.html"
ABO_LICENCE = f"""\
The pictures and what is said of the products come from [Amazon Berkeley Objects]({ABO_PAGE}), under the
[Creative Commons Attribution 4.0 International Public License](https://creativecommons.org/licenses/by/4.0/) (CC BY 4.0).

- Credit for the data, including all images and 3d models: Amazon.com
- Credit for building the dataset, archives and benchmark sets: Matthieu Guillaumin (Amazon.com), Thomas Dideriksen
  (Amazon.com), Kenan Deng (Amazon.com), Himanshu Arora (Amazon.com), Jasmine Collins (UC Berkeley) and Jitendra Malik
  (UC Berkeley)

Changes were made: pictures were selected, values of the listings were cleaned and reduced to single words, and questions with
answers were added. None of those named endorses this data set. Whoever passes it on gives the same credit, links the licence
and says what was changed."""


def data_card(summary: dict, plot: str | None = None) -> str:
    """README.md of a data set, with the Hub's YAML in front.

    Args:
        summary: of plain JSON types. What is None or missing is left out of the text, or said not to have been measured.
            `output_path`; `catalogue`: `kind` ("abo" or "table"), `path`, `listings` read,
            `left_out` {reason: listings or pictures}, `unsaid` {reason: facts that are not asked about};
            `backend`, `model` (None for templates), `check_model`, `seed`, `command`, `versions` {package: version};
            `counts`: `pictures`, `products`, `questions` of the result;
            `splits`: {"train", "val", "test": {`questions`, `pictures`, `products`}};
            `question_types`: {type: {`n`, `answers`: {answer: questions}}}; `product_types`: {type: pictures};
            `funnel`: [{`step`, `dropped`, `left`, `reasons`: {reason: questions}}], in their order;
            `blind`: `before`, `after` (shares right, 0 to 1), `limit`;
            `cost`: `answers`, `input_tokens`, `output_tokens`, `usd`, or None.
        plot: name of the file that holds `draw_distributions(summary)`, beside the card.
    """
    sections = [
        _introduction(summary), _counts(summary), _use(summary), _answers(summary, plot), _blind(summary),
        _making(summary), _funnel(summary), _limits(summary), _licence(summary),
    ]  # fmt: skip
    text = f"---\n{_front_matter(summary)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"
    return text.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text


def _front_matter(summary: dict) -> str:
    from huggingface_hub import DatasetCardData

    n = summary["counts"]["questions"]
    files = [{"split": SPLITS[split], "path": name} for split, name in _files(summary).items()]
    abo = {"license": "cc-by-4.0", "source_datasets": ["extended"]} if _is_abo(summary) else {}
    data = DatasetCardData(
        language=["en"], task_categories=["visual-question-answering"], annotations_creators=["machine-generated"],
        size_categories=[next((size for most, size in SIZES.items() if n < most), "1M<n<10M")],
        pretty_name=_name(summary), configs=[{"config_name": "default", "data_files": files}] if files else None, **abo,
    )  # fmt: skip
    return data.to_yaml().strip()


def _is_abo(summary: dict) -> bool:
    return summary["catalogue"]["kind"] == "abo"


def _name(summary: dict) -> str:
    return Path(summary["output_path"]).stem


def _files(summary: dict) -> dict[str, str]:
    """The tables of the splits that hold anything."""
    splits = summary.get("splits") or {}
    return {split: f"{_name(summary)}.{split}.csv" for split in SPLITS if (splits.get(split) or {}).get("questions")}


def _introduction(summary: dict) -> str:
    source = f"[Amazon Berkeley Objects]({ABO_PAGE})" if _is_abo(summary) else "a product catalogue"
    return (
        f"# {_plain(_name(summary))}\n\nQuestions about product photographs, each with an answer of one word, made from "
        f"{source}: {summary['counts']['questions']:,} questions on {summary['counts']['pictures']:,} pictures of "
        f"{summary['counts']['products']:,} products."
    )


def _counts(summary: dict) -> str:
    splits = summary.get("splits") or {}
    parts = {**{name: splits[split] for split, name in SPLITS.items() if splits.get(split)}, "all": summary["counts"]}
    header = ["questions", "pictures", "products"]
    rows = [[name, *(f"{part[key]:,}" for key in header)] for name, part in parts.items()]
    apart = "A product, its pictures and pictures nearly like them stand in one split alone."
    note = f"\n\n{apart}" if len(parts) > 2 else ""
    products = products_by_size(summary)
    common = ", ".join(f"{_plain(kind)} {n:,}" for kind, n in products[:5])
    note += f"\n\nPictures are of {len(products):,} product types; the commonest: {common}." if products else ""
    return f"## Counts\n\n{_table(['', *header], rows)}{note}"


def _use(summary: dict) -> str:
    files = _files(summary)
    table = files.get("train", f"{_name(summary)}.csv")
    held_out = f" --eval_csv_path {shlex.quote(files['val'])}" if {"train", "val"} <= files.keys() else ""
    command = f"accelerate launch finetune.py --image_dir IMAGES --csv_path {shlex.quote(table)}{held_out}"
    return (
        "## Use\n\nColumns: `image_name` (below the image folder), `question`, `answer`, `question_type`, `item_id`, "
        f"`product_type`, `source`.\n\n{_block(command)}"
    )


def _answers(summary: dict, plot: str | None) -> str:
    rows = []
    for kind, cell in types_by_size(summary).items():
        common = [f"{_plain(answer)} {percent(n / cell['n'])}" for answer, n in ranked(cell["answers"])[:COMMONEST]]
        rows.append([_plain(kind), f"{cell['n']:,}", f"{len(cell['answers']):,}", ", ".join(common)])
    header = ["question type", "questions", "answers", f"the {COMMONEST} commonest, share of the type's questions"]
    drawn = f"\n\n![Distributions]({quote(plot)})" if plot else ""
    return f"## Answers\n\n{_table(header, rows)}{drawn}" if rows else ""


def _blind(summary: dict) -> str:
    blind = summary.get("blind") or {}
    if blind.get("after") is None:
        return "## Without the picture\n\nWhat a classifier that sees the question alone would score was not measured."
    text = (
        "## Without the picture\n\nA classifier that sees the text of the question and no picture, tested on questions that it "
        f"was not trained on, is right for {percent(blind['after'])} of them"
    )
    text += f"; before balance and this filter, {percent(blind['before'])}." if blind.get("before") is not None else "."
    if blind.get("limit") is not None:
        within = "within" if blind["after"] <= blind["limit"] else "**above**"
        text += f" That is {within} the limit that was set, {percent(blind['limit'])}."
    advice = "A model that scores no more than this has not been shown to look at the pictures: report it beside every score."
    return f"{text}\n\n{advice}"


def _making(summary: dict) -> str:
    catalogue, cost, versions = summary["catalogue"], summary.get("cost"), summary.get("versions") or {}
    listings = catalogue.get("listings")
    lines = {
        "catalogue": catalogue.get("path") and _code(Path(str(catalogue["path"])).name),
        "listings read": None if listings is None else f"{listings:,}",
        "left out": _reasons(catalogue.get("left_out")),
        "not asked about": _reasons(catalogue.get("unsaid")),
        "back end": summary["backend"],
        "model": summary.get("model") and _code(_without_folders(summary["model"])),
        "checked by": summary.get("check_model") and _code(_without_folders(summary["check_model"])),
        "seed": summary.get("seed"),
        "versions": ", ".join(f"{_plain(name)} {_plain(number)}" for name, number in versions.items()),
        "cost": cost and cost_line(cost),
    }
    listed = "\n".join(f"- {name}: {value}" for name, value in lines.items() if value not in (None, ""))
    command = f"{_block(_public(summary['command']))}\n\n" if summary.get("command") else ""
    return f"## How it was made\n\n{command}{listed}"


def _reasons(counts: dict[str, int] | None) -> str:
    return "; ".join(f"{_plain(reason)} {n:,}" for reason, n in ranked(counts or {}))


def _funnel(summary: dict) -> str:
    rows = [
        [_plain(step["step"]), f"{step['left']:,}", f"{step['dropped']:,}", _plain(reasons_line(step))]
        for step in summary.get("funnel") or []
    ]
    return f"## Filters\n\n{_table(['step', 'left', 'dropped', 'why'], rows)}" if rows else ""


def _limits(summary: dict) -> str:
    text = (
        "What is taken for true comes from sellers' listings: a color may be the maker's word for it, a material may not be "
        "visible, a listing may be wrong. Nobody has compared these questions with their pictures one by one. Answers are "
        "single words; questions are in English."
    )
    if _is_abo(summary):
        text += " Most photographs show one product on white, unlike pictures taken in a room or a street."
    if summary["backend"] != "templates":
        text += " A model wrote questions or answers, and its errors are among them."
    return f"## Limits\n\n{text}"


def _licence(summary: dict) -> str:
    text = "None is stated here: the terms of whoever owns the catalogue and its pictures hold."
    if _is_abo(summary):
        text = ABO_LICENCE
    if summary["backend"] != "templates":
        text += "\n\nThe terms of the model that wrote questions or answers may hold beside this."
    return f"## Licence\n\n{text}"


def _plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line; addresses in it do not become links."""
    text = re.sub(r"([\\`*_\[\]<>|~&$!:@])", r"\\\1", " ".join(str(text).split()))
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", text)


def _code(text: str) -> str:
    """A code span, whatever ticks the text has."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def _block(command: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"{fence}bash\n{command}\n{fence}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    numbers = [all(re.fullmatch(r"[\d,]+", row[place]) for row in rows) for place in range(len(header))]
    lines = [header, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _public(command: str) -> str:
    """A command without what is the user's own affair: the folders that files lie in, a password in an address."""
    command = re.sub(r"//[^/@\s]*@", "//", " ".join(command.split()))
    try:
        return shlex.join(map(_without_folders, shlex.split(command)))
    except ValueError:  # a quotation mark without its fellow
        return command


def _without_folders(word: str) -> str:
    """The last part of an absolute path, also behind `--flag=`; anything else as it is."""
    flag, equals, value = word.rpartition("=")
    return flag + equals + ((Path(value).name or value) if value.startswith(("/", "~")) else value)

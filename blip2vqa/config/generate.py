"""What generate_vqa.py takes."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config.base import ADAPTER_ALIAS, IMAGES_ALIAS, TABLE_ALIAS, ServedBaseArguments
from blip2vqa.config.fields import Arguments, Range, option


@dataclass
class CatalogueArguments(Arguments):
    """The catalogue, and how much of it is asked about."""

    abo_dir: str | None = option(
        None, "Folder of the Amazon Berkeley Objects archive. As shipped or unpacked.", group="Catalogue"
    )
    csv_path: str | None = option(
        None,
        "Table of another catalogue: image_name, name, color, …",
        TABLE_ALIAS,
    )
    image_dir: str | None = option(
        None, "Folder of the pictures. Default: the archive's own small images.", IMAGES_ALIAS
    )
    num_images: int = option(5000, "Pictures to ask about, evenly over product types; 0: all.", at_least=0)
    all_pictures: bool = option(False, "Ask about all pictures of a product, not its main one.")
    max_product_type_share: float = option(
        0.1,
        "Most pictures of one product type, as a share. Of few types: an even part.",
        above=0,
        at_most=1,
    )

    def missing(self) -> list[str]:
        if not self.abo_dir and not self.csv_path:
            return ["csv_path or --abo_dir"]
        return ["image_dir"] if self.csv_path and not self.image_dir else []

    def check(self) -> list[str]:
        problems = super().check()
        if bool(self.abo_dir) == bool(self.csv_path):
            problems.append(
                "--abo_dir: name the archive's folder, or another catalogue's table by --csv_path; one of them"
            )
        if self.csv_path and not self.image_dir:
            problems.append(f"--image_dir: missing; name the folder of the pictures of {self.csv_path}")
        return problems


@dataclass
class QuestionArguments(Arguments):
    """The questions, how they are filtered, and what is written."""

    backend: str = option(
        "templates",
        "Who asks: templates, model (a base) or api (endpoint).",
        choices=["templates", "model", "api"],
        group="Questions and filters",
    )
    num_questions: int = option(10, "Most questions a picture.", at_least=1)
    max_blind_accuracy: float = option(
        0.35,
        "Most accuracy from questions alone. Questions are dropped until a classifier that sees no picture scores no more.",
        at_least=0,
        at_most=1,
    )
    max_answer_share: float = option(
        0.25, "Most that one answer may have of a question type. yes/no aside.", above=0, at_most=1
    )
    max_yes_no_share: float = option(0.4, "Most that two-answer questions may have of all.", at_least=0, at_most=1)
    seed: int = option(42, "Seed of every draw. The same seed and catalogue give the same files.")
    output_path: str = option("vqa.csv", "Table written; other files take its name.", group="Output")
    val_split: float = option(
        0.1, "Share of the pictures for validation. All of a product are on one side.", at_least=0, at_most=1
    )
    test_split: float = option(0.1, "Share of the pictures for the test.", at_least=0, at_most=1)
    preview: int = option(0, "Pictures on a page to look through, OUTPUT.html; 0: none.", at_least=0)
    json_output: str | None = option(None, "Also write summary and rows as this JSON file.")
    overwrite: bool = option(False, "Replace the output. Paid answers are kept in any case.")

    def check(self) -> list[str]:
        problems = super().check()
        problems += Range(below=1).problem("val_split + test_split", self.val_split + self.test_split)
        if Path(self.output_path).suffix.lower() != ".csv":
            problems.append(f"--output_path {self.output_path}: a table of another kind; name a .csv")
        if self.backend == "api" and importlib.util.find_spec("openai") is None:
            problems.append("--backend api: needs the package openai; pip install 'blip2vqa[api]' brings it in")
        return problems


@dataclass
class WriterArguments(ServedBaseArguments):
    """A base of this package that writes, answers or checks the questions."""

    lora_model_path: str | None = option(None, "Adapter for the base: local folder or Hub id.", ADAPTER_ALIAS)
    model_writes: str = option(
        "answers",
        "What --backend model writes: answers or questions. Questions are for answers of the catalogue.",
        choices=["answers", "questions"],
    )
    check_model: str | None = option(
        None,
        "Base or adapter that answers every question to check it. A question is kept where the answer agrees, and differs "
        "from the one that another picture gives.",
    )
    batch_size: int = option(16, "Questions answered or written at once.", at_least=1)


@dataclass
class ApiArguments(Arguments):
    """The endpoint of --backend api. Its key comes from the environment (OPENAI_API_KEY), never from a flag."""

    api_model: str | None = option(None, "Model that the endpoint serves.", group="Endpoint of --backend api")
    api_base_url: str | None = option(None, "Address, OpenAI-compatible. Default: OPENAI_BASE_URL, else OpenAI's.")
    requests_per_minute: float = option(60.0, "Most requests begun in a minute.", above=0)
    parallel_requests: int = option(4, "Requests under way at once.", at_least=1, at_most=64)
    request_seconds: float = option(
        60.0, "Longest silence while waiting for an answer, in seconds.", above=0, at_most=86400
    )
    max_retries: int = option(
        5,
        "Further tries after 429, 5xx or a timeout. What timed out may be billed.",
        at_least=0,
        at_most=20,
    )
    max_output_tokens: int = option(1000, "Longest answer in tokens.", at_least=1)
    usd_per_million_input_tokens: float = option(
        0.0, "Price of what is sent, in US dollars.", at_least=0, below=math.inf
    )
    usd_per_million_output_tokens: float = option(
        0.0, "Price of what comes back, in US dollars.", at_least=0, below=math.inf
    )
    spending_limit_usd: float | None = option(
        None, "Most to spend on this output, earlier runs included. In US dollars.", above=0, below=math.inf
    )
    dry_run: bool = option(False, "Print the first prompt and what would be sent, and stop.")


VQA_ARGUMENTS = [CatalogueArguments, QuestionArguments, WriterArguments, ApiArguments]

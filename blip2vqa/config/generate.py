"""What generate_vqa.py takes."""

import math
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config.base import ServedBaseArguments
from blip2vqa.config.fields import check_range, option


@dataclass
class CatalogueArguments:
    """The catalogue, and how much of it is asked about."""

    abo_dir: str = option(None, "Folder of the Amazon Berkeley Objects archive, as shipped or unpacked.")
    csv_path: str = option(
        None, "Table of another catalogue: image_name, and columns such as name, product_type, color."
    )
    image_dir: str = option(None, "Folder of the pictures; default: the archive's own small images.")
    num_images: int = option(5000, "Pictures to ask about, drawn evenly over product types; 0: all.")
    all_pictures: bool = option(
        False, "Ask about every picture of a product, not its main one alone; others may show details or size charts."
    )
    max_product_type_share: float = option(
        0.1,
        "Most pictures of one product type, as a share of those asked for, above 0 to 1; of few types, each one's even part.",
    )

    def check(self) -> list[str]:
        problems = []
        if bool(self.abo_dir) == bool(self.csv_path):
            problems.append(
                "--abo_dir: name the archive's folder, or another catalogue's table by --csv_path; one of them"
            )
        if self.csv_path and not self.image_dir:
            problems.append(f"--image_dir: missing; name the folder of the pictures of {self.csv_path}")
        check_range(problems, self.num_images >= 0, "num_images", self.num_images, "at least 0")
        share = self.max_product_type_share
        check_range(problems, 0 < share <= 1, "max_product_type_share", share, "above 0 and at most 1")
        return problems


@dataclass
class QuestionArguments:
    """The questions, how they are filtered, and what is written."""

    output_path: str = option("vqa.csv", "Table written; its other files take its name with other endings.")
    backend: str = option(
        "templates",
        "Who asks: templates (the catalogue's own words, no model), model (a base of this package), api (a chat endpoint).",
        choices=["templates", "model", "api"],
    )
    num_questions: int = option(10, "Most questions a picture.")
    max_blind_accuracy: float = option(
        0.35,
        "What a classifier that sees the question alone may score, 0 to 1; questions are dropped until it does not.",
    )
    max_answer_share: float = option(
        0.25, "Most that one answer may have of a question type, above 0 to 1; not of yes/no."
    )
    max_yes_no_share: float = option(0.4, "Most that questions of two possible answers may have of all, 0 to 1.")
    val_split: float = option(0.1, "Share of the pictures for validation, 0 to 1; all of a product on one side.")
    test_split: float = option(0.1, "Share of the pictures for the test, 0 to 1.")
    seed: int = option(42, "Of every draw: the same seed and catalogue give the same files.")
    preview: int = option(0, "Pictures on a page to look through, OUTPUT.html; 0: none.")
    json_output: str = option(None, "Also write summary and rows as this JSON file.")
    overwrite: bool = option(False, "Replace the output if it exists; paid answers are kept in any case.")

    def check(self) -> list[str]:
        problems = []
        check_range(problems, self.num_questions >= 1, "num_questions", self.num_questions, "at least 1")
        for flag in ("max_blind_accuracy", "max_yes_no_share", "val_split", "test_split"):
            check_range(problems, 0 <= getattr(self, flag) <= 1, flag, getattr(self, flag), "between 0 and 1")
        check_range(problems, 0 < self.max_answer_share <= 1, "max_answer_share", self.max_answer_share, "above 0 to 1")
        both = self.val_split + self.test_split
        check_range(problems, both < 1, "val_split + test_split", both, "below 1")
        check_range(problems, self.preview >= 0, "preview", self.preview, "at least 0")
        if Path(self.output_path).suffix.lower() != ".csv":
            problems.append(f"--output_path {self.output_path}: a table of another kind; name a .csv")
        return problems


@dataclass
class WriterArguments(ServedBaseArguments):
    """A base of this package as the one who asks, answers or checks."""

    lora_model_path: str = option(None, "Adapter for it: local folder or Hub id.")
    model_writes: str = option(
        "answers",
        "With --backend model: answers to questions worded by the templates, or questions for answers of the catalogue.",
        choices=["answers", "questions"],
    )
    check_model: str = option(
        None,
        "Base or adapter that answers every question from its picture (kept where it agrees) and from another (dropped where "
        "that gives the same answer).",
    )
    batch_size: int = option(16, "Questions answered or written at once.")

    def check(self) -> list[str]:
        problems = []
        check_range(problems, self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        return problems


@dataclass
class ApiArguments:
    """The endpoint of --backend api. Its key comes from the environment (OPENAI_API_KEY), never from a flag."""

    api_model: str = option(None, "Model that the endpoint serves.")
    api_base_url: str = option(
        None, "Address of an OpenAI-compatible endpoint; default: OPENAI_BASE_URL, else OpenAI's."
    )
    requests_per_minute: float = option(60.0, "Most requests begun in a minute.")
    parallel_requests: int = option(4, "Requests under way at once.")
    request_seconds: float = option(60.0, "Longest silence while waiting for an answer, in seconds.")
    max_retries: int = option(
        5, "Further tries after 429, 5xx or a timeout, waiting longer each time; what timed out may be billed unseen."
    )
    max_output_tokens: int = option(1000, "Longest answer, in tokens.")
    usd_per_million_input_tokens: float = option(0.0, "Price of what is sent, in US dollars.")
    usd_per_million_output_tokens: float = option(0.0, "Price of what comes back, in US dollars.")
    spending_limit_usd: float = option(None, "Never spend more on this output, in US dollars, earlier runs included.")
    dry_run: bool = option(False, "Print the prompt of the first picture and what the job would send, and stop.")

    def check(self) -> list[str]:
        problems = []
        limit = self.spending_limit_usd
        parallel, seconds = self.parallel_requests, self.request_seconds
        check_range(problems, self.requests_per_minute > 0, "requests_per_minute", self.requests_per_minute, "above 0")
        check_range(problems, 1 <= parallel <= 64, "parallel_requests", parallel, "between 1 and 64")
        check_range(problems, 0 < seconds <= 86400, "request_seconds", seconds, "above 0 and at most 86400")
        check_range(problems, 0 <= self.max_retries <= 20, "max_retries", self.max_retries, "between 0 and 20")
        check_range(problems, self.max_output_tokens >= 1, "max_output_tokens", self.max_output_tokens, "at least 1")
        for flag in ("usd_per_million_input_tokens", "usd_per_million_output_tokens"):
            check_range(problems, 0 <= getattr(self, flag) < math.inf, flag, getattr(self, flag), "at least 0")
        if limit is not None:
            check_range(problems, 0 < limit < math.inf, "spending_limit_usd", limit, "above 0")
        return problems


VQA_ARGUMENTS = [CatalogueArguments, QuestionArguments, WriterArguments, ApiArguments]

"""Arguments that several scripts share, and those of a fine-tuning run except Trainer's; no model code is imported."""

import os
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path

from blip2vqa.config import base
from blip2vqa.config.base import DEFAULT_BASE as DEFAULT_BASE
from blip2vqa.config.decoding import DECODING, check_decoding
from blip2vqa.config.fields import Arguments, option
from blip2vqa.config.roles import ROLES, parse_roles, parse_scopes
from blip2vqa.data.answers import parse_question_types
from blip2vqa.utils.errors import collect_errors

# Those that an adapter can be loaded with again: PEFT's others draw anew (pissa_niter_…) or need data (eva, loftq).
INITIALISATIONS = ("default", "gaussian", "orthogonal", "olora", "pissa")
CHANGE_THE_BASE = ("olora", "pissa")


def check_prompt(prompt: str | None, of_questions: bool) -> list[str]:
    """Return the problem of a prompt that has no place for a question and needs one, or has one and captions have none."""
    if prompt is None or ("{question}" in prompt) == of_questions:
        return []
    if of_questions:
        return [f"--prompt: {prompt!r} does not contain {{question}}; write it where the question goes"]
    return [f"--prompt: {prompt!r} contains {{question}}, and captions have none; leave it out"]


def check_ending(flag: str, path: str | None, endings: tuple[str, ...]) -> list[str]:
    """Return the problem of an output file whose ending names no format that is written."""
    if path == "":
        return [f"--{flag}: empty; name a file"]
    if path is None or Path(path).suffix.lower() in endings:
        return []
    *most, last = endings
    known = f"{', '.join(most)} or {last}" if most else last
    return [f"--{flag} {path}: its ending says the format, which is {known}; name a file with that ending"]


@dataclass
class ModelArguments(base.ServedBaseArguments):
    """The base model and how its weights are held."""

    base_model_id: str = option(
        DEFAULT_BASE,
        "Base model: Hub id or local folder.",
        *base.BASE_ALIASES,
        group="Model",
    )
    # A str to the parser, which would ask for at least one of a list.
    estimate: str | None = option(
        None,
        "Print what a run on these bases would take, and stop. No base named: --base_model_id; no weight is loaded.",
        nargs="*",
    )
    processes: int | None = option(
        None,
        "With --estimate: processes, one for each GPU. Default: this launch's.",
        at_least=1,
    )

    def check(self) -> list[str]:
        problems = super().check()
        if self.processes and self.estimate is None:
            problems.append("--processes: goes with --estimate; a launcher starts processes (--num_processes)")
        return problems


@dataclass
class DataArguments(Arguments):
    """The table of images, questions and answers, or of images and captions."""

    task: str = option("vqa", "What the table teaches: vqa or caption.", choices=["vqa", "caption"], group="Data")
    csv_path: str | None = option(
        None,
        "Table: CSV, JSONL, VQA's JSON, `datasets` folder or Hub id. Its columns are image_name, question, answer; of "
        "captions: image_name, caption and, where there is one, style.",
        base.TABLE_ALIAS,
    )
    image_dir: str | None = base.IMAGE_DIR
    annotations_path: str | None = base.ANNOTATIONS
    eval_csv_path: str | None = option(None, "Validation table. Default: --val_split of the images.")
    eval_annotations_path: str | None = option(None, "Official VQA annotations JSON of --eval_csv_path.")
    val_split: float = option(0.2, "Share of the images (not rows) held out for validation.", above=0, below=1)
    image_column: str | None = base.IMAGE_COLUMN
    question_column: str | None = base.QUESTION_COLUMN
    answer_column: str | None = base.ANSWER_COLUMN
    cell_separator: str | None = base.CELL_SEPARATOR
    question_types: str | None = base.QUESTION_TYPES
    question_type_column: str | None = base.QUESTION_TYPE_COLUMN
    answers: str | None = option(
        None,
        "Answers to choose among: a text file, one a line, or table. table takes those of the training table; with a file, "
        "rows with other answers are refused.",
    )
    min_answer_count: int = option(1, "With --answers table: how often an answer must occur.", at_least=1)
    on_bad_image: str = option(
        "error", "An unusable image: stop (error) or skip its rows (skip).", choices=["error", "skip"]
    )
    on_bad_row: str = base.ON_BAD_ROW
    prompt: str | None = option(
        None,
        "Prompt, for questions with {question} in it. Default: the base's own. The adapter keeps it for inference.",
    )
    style: str | None = option(
        None,
        "Style of captions: detailed, concise, creative, or your file. Its options lie below all others.",
    )
    captions: str = option(
        "all",
        "Captions to learn: all, style, shortest or longest. style: those whose column style names --style.",
        choices=["all", "style", "shortest", "longest"],
    )

    def missing(self) -> list[str]:
        return [] if self.csv_path else ["csv_path"]

    def check(self) -> list[str]:
        problems = super().check()
        if not self.csv_path:
            problems.append("--csv_path: missing; name the table to learn from")
        problems += check_prompt(self.prompt, of_questions=self.task == "vqa")
        given = {one.name for one in fields(self) if getattr(self, one.name) != one.default}
        if self.task == "vqa":
            problems += [f"--{name}: goes with --task caption alone" for name in ("style", "captions") if name in given]
        else:
            of_questions = (
                "answers",
                "annotations_path",
                "eval_annotations_path",
                "question_types",
                "question_type_column",
                "question_column",
                "cell_separator",
            )
            problems += [
                f"--{name}: does not go with --task caption, which has no questions"
                for name in of_questions
                if name in given
            ]
            if self.captions == "style" and not self.style:
                problems.append("--captions style: needs --style, the name to look for in the column style")
        collect_errors(problems, parse_question_types, self.question_types)
        if self.eval_annotations_path and not self.eval_csv_path:
            problems.append("--eval_annotations_path: given without --eval_csv_path; name the questions it belongs to")
        return problems


@dataclass
class LoraArguments(Arguments):
    """The adapter: Hu et al. 2021, https://arxiv.org/abs/2106.09685."""

    lora_r: int = option(16, "Rank of the adapter.", "--lora_rank", group="Adapter", at_least=1)
    lora_alpha: int = option(
        32, "Scale: what the adapter adds counts alpha / r times. With --use_rslora, alpha / sqrt(r).", at_least=1
    )
    lora_dropout: float = option(0.05, "Dropout on the adapter's input.", at_least=0, below=1)
    lora_roles: str = option(
        ",".join(ROLES), "Linear layers to adapt, by role. Names like q_proj work too, for every architecture."
    )
    lora_scope: str = option(
        "language_model",
        "Parts to adapt, with commas between. They are language_model, projection, qformer and vision.",
    )
    use_rslora: bool = option(False, "Rank-stabilised scale, https://arxiv.org/abs/2312.03732.")
    use_dora: bool = option(False, "Weight-decomposed adapter, https://arxiv.org/abs/2402.09353.")
    init_lora_weights: str = option(
        "default",
        "First values: default, gaussian, orthogonal, olora, pissa. default: the adapter adds nothing at first.",
        choices=INITIALISATIONS,
    )
    start_from: str | None = option(
        None,
        "Adapter to start from: folder, name in the store or Hub id. It must have this rank and these layers.",
        base.ADAPTER_ALIAS,
    )

    def lora_init(self) -> bool | str:
        """Return `init_lora_weights` as PEFT's configuration takes it."""
        return True if self.init_lora_weights == "default" else self.init_lora_weights

    def check(self) -> list[str]:
        problems = super().check()
        collect_errors(problems, parse_roles, self.lora_roles)
        collect_errors(problems, parse_scopes, self.lora_scope)
        return problems


# Fields for the parser, of `Decoding`'s own names and ranges. An answer is as long as its task has it by default.
_DecodingArguments = make_dataclass(
    "_DecodingArguments",
    [
        (name, int | None, setting.with_default(None)) if name == "max_new_tokens" else (name, setting.type, setting)
        for name, setting in DECODING.items()
    ],
    bases=(Arguments,),
)


@dataclass
class GenerationArguments(_DecodingArguments):
    """How answers are decoded, by the options of `Decoding`, and scored."""

    bertscore_model: str = option(
        "auto",
        "BERTScore's encoder: auto, minilm, none, Hub id or folder. auto: roberta-large where it is to be had, else minilm.",
    )

    def check(self) -> list[str]:
        """Name what is wrong; None stands for a default."""
        return check_decoding(vars(self))


@dataclass(frozen=True)
class KeptFeatures:
    """Where a run keeps features, and how much."""

    folder: Path
    limit_gb: float


@dataclass
class FeatureArguments(Arguments):
    """Where the outputs of the frozen towers are kept, so that every image is encoded once."""

    feature_cache: str | None = option(
        None,
        "Folder of kept features, or none. Default: ~/.cache/blip2vqa/features. With none the towers run in every step.",
        group="Features of the images",
    )
    feature_cache_limit: float = option(
        20.0, "Most that the folder may hold, in GB. The least recently used goes first.", above=0
    )

    def kept(self) -> KeptFeatures | None:
        """Return where features are kept; None: nowhere."""
        if self.feature_cache == "none":
            return None
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blip2vqa" / "features"
        return KeptFeatures(Path(self.feature_cache or default).expanduser(), self.feature_cache_limit)

    def check(self) -> list[str]:
        problems, kept = super().check(), self.kept()
        if kept and kept.folder.exists() and not kept.folder.is_dir():
            problems.append(f"--feature_cache {kept.folder}: is a file; name a folder, or none")
        return problems

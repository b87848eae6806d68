"""Every argument: a line of help and the unit under each field, checked before any weight is loaded."""

import os
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config.base import DEFAULT_BASE
from blip2vqa.config.fields import DTYPES, QUANTIZATIONS, check_range, option
from blip2vqa.config.roles import ROLES, parse_roles, parse_scopes
from blip2vqa.data.answers import parse_question_types
from blip2vqa.utils.errors import collect_errors

# Those that an adapter can be loaded with again: PEFT's others draw anew (pissa_niter_…) or need data (eva, loftq).
INITIALISATIONS = ("default", "gaussian", "orthogonal", "olora", "pissa")
CHANGE_THE_BASE = ("olora", "pissa")


def check_prompt(prompt: str | None) -> list[str]:
    """A prompt for questions has a place for one."""
    if prompt is None or "{question}" in prompt:
        return []
    return [f"--prompt: {prompt!r} does not contain {{question}}; write it where the question goes"]


def check_decoding(args) -> list[str]:
    """What is out of range among the options of decoding, None standing for a default."""
    problems, longest = [], args.max_new_tokens
    for flag in ("num_beams", "max_new_tokens"):
        value = getattr(args, flag)
        check_range(problems, value is None or value >= 1, flag, value, "at least 1")
    least = args.min_new_tokens or 0
    check_range(problems, 0 <= least <= (longest or least), "min_new_tokens", least, "from 0 to --max_new_tokens")
    check_range(problems, args.temperature is None or args.temperature > 0, "temperature", args.temperature, "above 0")
    check_range(problems, args.top_p is None or 0 < args.top_p <= 1, "top_p", args.top_p, "above 0, at most 1")
    if args.do_sample and (args.num_beams or 1) > 1:
        problems.append("--do_sample: draws one text at a time; leave --num_beams at 1")
    return problems


@dataclass
class ModelArguments:
    """The base model and how its weights are held."""

    base_model_id: str = option(DEFAULT_BASE, "Base model: Hub id or local folder in the Hub's layout.", "--model_id")
    base_model_revision: str = option(None, "Branch, tag or commit of the base on the Hub.")
    quantization: str = option(
        "auto",
        "Weights of the base in 8 or 4 bits (bitsandbytes); auto: only when they would not fit the device.",
        choices=list(QUANTIZATIONS),
    )
    dtype: str = option(
        "auto",
        "Precision of the base; auto: bfloat16 where the device computes in it, else float16 (OPT on a GPU) or float32.",
        choices=list(DTYPES),
    )
    # A str to the parser, which would ask for at least one of a list.
    estimate: str = option(
        None,
        "Print and write what the run would take on these bases (none given: --base_model_id), and stop: parameters, peak "
        "memory, time; no weight is loaded.",
        nargs="*",
    )


@dataclass
class DataArguments:
    """The table of images, questions and answers, or of images and captions."""

    task: str = option("vqa", "What the table teaches: answers to questions, or captions.", choices=["vqa", "caption"])
    csv_path: str = option(
        None,
        "Table: CSV, JSONL, official VQA questions JSON, `datasets` folder or Hub id (image_name, question, answer; of "
        "captions: image_name, caption, style where there is one).",
    )
    image_dir: str = option(None, "Folder of the images; may be left out when the table holds the images itself.")
    annotations_path: str = option(None, "Official VQA annotations JSON that belongs to --csv_path.")
    eval_csv_path: str = option(None, "Validation table; without one, --val_split of the images is held out.")
    eval_annotations_path: str = option(None, "Official VQA annotations JSON that belongs to --eval_csv_path.")
    val_split: float = option(0.2, "Share of the images (not rows) held out for validation, between 0 and 1.")
    question_type_column: str = option(None, "Column that names the type of each question; default: by rule.")
    question_types: str = option(None, "Questions of these types alone, as in count,yes/no; default: all.")
    answers: str = option(
        None,
        "The only answers there are: a text file, one a line, others in the table being refused; or table, those of the "
        "training table. No other is given.",
    )
    min_answer_count: int = option(
        1,
        "Least number of times that an answer must be given to be one of the training table's.",
    )
    style: str = option(
        None,
        "Captions in a style: detailed, concise, creative, or a JSON of your own; its options lie below all others.",
    )
    captions: str = option(
        "all",
        "Captions to learn: all, those whose column style names the --style, or of each image the shortest or longest.",
        choices=["all", "style", "shortest", "longest"],
    )
    on_bad_image: str = option(
        "error", "A missing or unreadable image: stop and name it, or skip its rows.", choices=["error", "skip"]
    )
    prompt: str = option(
        None,
        "Prompt, for questions with {question} in it; kept in the adapter and used by inference; default: the base's own.",
    )

    def check(self) -> list[str]:
        problems = []
        if not self.csv_path:
            problems.append("--csv_path: missing; name the table to learn from")
        if self.task == "vqa":
            problems += check_prompt(self.prompt)
            for name in ("style", "captions"):
                if getattr(self, name) != ("all" if name == "captions" else None):
                    problems.append(f"--{name}: goes with --task caption alone")
        else:
            if self.prompt and "{question}" in self.prompt:
                problems.append(
                    f"--prompt: {self.prompt!r} contains {{question}}, and captions have none; leave it out"
                )
            for name in (
                "answers",
                "annotations_path",
                "eval_annotations_path",
                "question_types",
                "question_type_column",
            ):
                if getattr(self, name):
                    problems.append(f"--{name}: does not go with --task caption, which has no questions")
            if self.captions == "style" and not self.style:
                problems.append("--captions style: needs --style, the name to look for in the column style")
        collect_errors(problems, parse_question_types, self.question_types)
        check_range(problems, self.min_answer_count >= 1, "min_answer_count", self.min_answer_count, "at least 1")
        check_range(problems, 0 < self.val_split < 1, "val_split", self.val_split, "between 0 and 1, both excluded")
        if self.eval_annotations_path and not self.eval_csv_path:
            problems.append("--eval_annotations_path: given without --eval_csv_path; name the questions it belongs to")
        return problems


@dataclass
class LoraArguments:
    """The adapter: Hu et al. 2021, https://arxiv.org/abs/2106.09685."""

    lora_r: int = option(16, "Rank of the adapter.", "--lora_rank")
    lora_alpha: int = option(32, "Scale: the update counts alpha / r times (alpha / sqrt(r) with --use_rslora).")
    lora_dropout: float = option(0.05, "Dropout on the adapter's input, from 0 to below 1.")
    lora_roles: str = option(",".join(ROLES), "Layers to adapt: q,k,v,o,gate,up,down (q_proj-style names work too).")
    lora_scope: str = option(
        "language_model", "Parts to adapt, of language_model,projection,qformer,vision; decides what features are kept."
    )
    use_rslora: bool = option(False, "Rank-stabilised scale, https://arxiv.org/abs/2312.03732.")
    use_dora: bool = option(False, "Weight-decomposed adapter, https://arxiv.org/abs/2402.09353.")
    init_lora_weights: str = option(
        "default", "First values of the adapter, as PEFT names them; default: B = 0.", choices=list(INITIALISATIONS)
    )

    start_from: str = option(
        None,
        "Adapter to start from, in place of a fresh one: folder, name in the store or Hub id; of this rank and these layers.",
    )

    def lora_init(self) -> bool | str:
        """`init_lora_weights` as PEFT's configuration takes it."""
        return True if self.init_lora_weights == "default" else self.init_lora_weights

    def check(self) -> list[str]:
        problems = []
        check_range(problems, self.lora_r > 0, "lora_r", self.lora_r, "at least 1")
        check_range(problems, self.lora_alpha > 0, "lora_alpha", self.lora_alpha, "at least 1")
        check_range(problems, 0 <= self.lora_dropout < 1, "lora_dropout", self.lora_dropout, "from 0 to below 1")
        collect_errors(problems, parse_roles, self.lora_roles)
        collect_errors(problems, parse_scopes, self.lora_scope)
        return problems


@dataclass
class GenerationArguments:
    """How answers are decoded and scored."""

    num_beams: int = option(1, "Beams; 1 is greedy decoding.")
    max_new_tokens: int = option(
        None, "Longest answer, in tokens, its end token included; default: 10, for captions 50."
    )
    min_new_tokens: int = option(0, "Shortest answer, in tokens.")
    do_sample: bool = option(False, "Draw the words at random instead of taking the likeliest.")
    temperature: float = option(1.0, "Of --do_sample: below 1 keeps to likely words, above 1 strays.")
    top_p: float = option(1.0, "Of --do_sample: among the likeliest words that make up this probability, above 0 to 1.")
    sampling_seed: int = option(0, "Of --do_sample: the same seed and the same batches give the same words.")
    bertscore_model: str = option(
        "auto", "BERTScore's encoder: auto (roberta-large, else minilm), minilm, none, a Hub id or a local folder."
    )

    def check(self) -> list[str]:
        return check_decoding(self)


@dataclass(frozen=True)
class KeptFeatures:
    """Where a run keeps features, and how much."""

    folder: Path
    limit_gb: float


@dataclass
class FeatureArguments:
    """Where the outputs of the frozen towers are kept, so that an image is looked at once and for all."""

    feature_cache: str = option(
        None,
        "Folder that keeps the frozen towers' outputs; none: run them in every step; default: ~/.cache/blip2vqa/features.",
    )
    feature_cache_limit: float = option(
        20.0, "Most that the folder may hold, in GB; what was not used for longest is dropped first."
    )

    def kept(self) -> KeptFeatures | None:
        """Where they are kept; None: nowhere."""
        if self.feature_cache == "none":
            return None
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blip2vqa" / "features"
        return KeptFeatures(Path(self.feature_cache or default).expanduser(), self.feature_cache_limit)

    def check(self) -> list[str]:
        problems, kept = [], self.kept()
        check_range(problems, self.feature_cache_limit > 0, "feature_cache_limit", self.feature_cache_limit, "above 0")
        if kept and kept.folder.exists() and not kept.folder.is_dir():
            problems.append(f"--feature_cache {kept.folder}: is a file; name a folder, or none")
        return problems

"""What inference.py takes."""

from dataclasses import dataclass, field
from pathlib import Path

from blip2vqa.config.base import ServedBaseArguments
from blip2vqa.config.common import check_decoding, check_prompt
from blip2vqa.config.fields import check_range, option
from blip2vqa.data.answers import parse_question_types
from blip2vqa.utils.errors import collect_errors


@dataclass
class InferenceArguments(ServedBaseArguments):
    """What to answer and where to write it."""

    csv_path: str = option(
        None, "Table of questions: CSV, JSONL, official VQA questions JSON, `datasets` folder or Hub id."
    )
    image_dir: str = option(None, "Folder of the images; may be left out when the table holds the images itself.")
    annotations_path: str = option(None, "Official VQA annotations JSON that belongs to --csv_path, for the metrics.")
    output_path: str = option(
        "results.csv", "Table written: the input's columns, generated_answer, confidence, status."
    )
    lora_model_path: list[str] = field(
        default=None,
        metadata={
            "help": "Adapter: local folder or Hub id; without one the base answers alone. Several: TYPE=ADAPTER for types of "
            "questions, default=ADAPTER for the others.",
            "nargs": "+",
        },
    )
    lora_revision: str = option(None, "Branch, tag or commit of the adapter on the Hub.")
    prompt: str = option(None, "Prompt with {question} in it; default: the adapter's own.")
    batch_size: int = option(1, "Questions answered at once; 16 or more is several times faster where there is memory.")
    answers: str = option(
        None,
        "Text file of the answers allowed, one a line; each question gets the likeliest that five beams find, ranked.",
    )
    num_beams: int = option(None, "Beams; 1 is greedy decoding; default: the adapter's own, else 1.")
    max_new_tokens: int = option(None, "Longest answer, in tokens; default: the adapter's own, else 10.")
    question_types: str = option(None, "Questions of these types alone, as in count,yes/no; default: all.")
    question_type_column: str = option(None, "Column that names the type of each question; default: by rule.")
    on_bad_image: str = option(
        "error", "A missing or unreadable image: stop and name it, or say so in its row.", choices=["error", "skip"]
    )
    bertscore_model: str = option("auto", "As in finetune.py.")
    overwrite: bool = option(False, "Start anew even if the output exists, whole or in part.")
    systems: str = option(
        None,
        "JSON list of systems ({name, base_model_id, lora_model_path, quantization, prompt}) to compare on the table.",
    )
    score: str = option(
        None, "Score these predictions (CSV with generated_answer, or official results JSON); loads no model."
    )

    def check(self) -> list[str]:
        problems = []
        if not self.csv_path:
            problems.append("--csv_path: missing; name the table with the questions")
        problems += check_prompt(self.prompt)
        collect_errors(problems, parse_question_types, self.question_types)
        if self.csv_path and Path(self.output_path).resolve() == Path(self.csv_path).resolve():
            problems.append(f"--output_path {self.output_path}: is the table of questions itself; name another file")
        check_range(problems, self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        return problems + check_decoding(vars(self))

"""What finetune.py declares itself: the arguments of base, table, adapter, decoding, features and training.

Trainer's other options are in `blip2vqa.config.finetune`, whose import takes seconds.
"""

import ast
import importlib.util
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blip2vqa.config.common import DataArguments, FeatureArguments, GenerationArguments, LoraArguments, ModelArguments
from blip2vqa.config.fields import Arguments, option


@dataclass
class TrainingOptions(Arguments):
    """Trainer's options that have this task's defaults, under both common spellings, and the run's own."""

    per_device_train_batch_size: int = option(
        4, "Questions in one step on one device.", "--batch_size", group="Training", at_least=1
    )
    num_train_epochs: float = option(3.0, "Passes over the training rows.", "--epochs")
    learning_rate: float = option(1e-4, "Peak learning rate.", above=0, below=math.inf)
    warmup_steps: float = option(50, "Steps of rising learning rate; below 1: a share of all.", at_least=0)
    seed: int = option(42, "Seed of split, adapter, order of rows and dropout.", at_least=0, at_most=2**32 - 1)
    tokens_per_row: int = option(
        512,
        "Longest row that questions of an image share; 0: none. In tokens; only causal models can share one.",
        at_least=0,
    )
    tokens_per_batch: int = option(
        0,
        "Most tokens that a device computes at once; 0: any. Larger batches are split, and their gradients added.",
        at_least=0,
    )
    per_device_eval_batch_size: int = option(
        16, "Questions answered at once on one device.", group="Evaluation", at_least=1
    )
    eval_strategy: str = option("epoch", "When to answer the validation questions: epoch, steps or no.")
    load_best_model_at_end: bool = option(True, "Save the best on validation, not the last.")
    metric_for_best_model: str = option(
        "accuracy",
        "Metric of the task that chooses the best, or loss. Of captions, accuracy stands for cider.",
    )
    early_stopping_patience: int | None = option(
        None, "Stop after so many evaluations without a better score.", at_least=1
    )
    output_dir: str | None = option(
        None, "Folder to write: adapter, metrics, predictions and more. Must be given.", group="Output and log"
    )
    save_strategy: str | None = option(None, "Checkpoints: epoch, steps, best, no. Default: as --eval_strategy.")
    save_minutes: float = option(
        10.0,
        "Minutes between further checkpoints; 0: none. With --save_strategy no there are none.",
        at_least=0,
    )
    save_total_limit: int = option(1, "Checkpoints kept, besides the best.")
    logging_steps: float = option(10, "Steps between lines of the log; below 1: a share of all.")
    report_to: list[str] = option(["none"], "Trackers: none, tensorboard, trackio, wandb, mlflow, …, all.")
    remove_unused_columns: bool = option(
        False, "Must stay false: the collator needs every column.", group="Of Trainer, with one value allowed"
    )
    prediction_loss_only: bool = option(True, "Must stay true: answers are generated, not read off logits.")
    label_names: list[str] = option(["labels"], "Must stay labels.")
    # Every adapter weight takes part in every step, so looking for idle ones would only cost time.
    ddp_find_unused_parameters: bool = option(False, "As in torch's DistributedDataParallel.")

    def missing(self) -> list[str]:
        return [] if self.output_dir else ["output_dir"]


FINETUNE_OPTIONS = [
    ModelArguments,
    DataArguments,
    LoraArguments,
    GenerationArguments,
    FeatureArguments,
    TrainingOptions,
]


@cache
def trainer_flags() -> tuple[str, ...]:
    """Return the names of all options of `TrainingArguments`, and `no_…` of its switches, without importing them.

    That import brings in torch and takes seconds, which a mistyped flag need not wait for.
    """
    source = Path(importlib.util.find_spec("transformers").origin).with_name("training_args.py")
    classes = {node.name: node for node in ast.parse(source.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
    declared = [node for node in classes["TrainingArguments"].body if isinstance(node, ast.AnnAssign)]
    switches = [node.target.id for node in declared if ast.unparse(node.annotation).startswith("bool")]
    return (*(node.target.id for node in declared), *(f"no_{name}" for name in switches))

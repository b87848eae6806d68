"""finetune.py, but with every weight of the base trained, and no adapter: for small bases with random weights.

    python benchmarks/small_bases.py vilt TRAIN.csv BASE
    python benchmarks/from_scratch.py --base_model_id BASE --image_dir IMAGES --csv_path TRAIN.csv --eval_csv_path VAL.csv \\
        --output_dir OUT --dtype float32 --batch_size 64 --epochs 8 --learning_rate 5e-4
    python inference.py --base_model_id OUT …

Everything else is finetune.py's: the same tables, batches, loss, scores and files. The towers train, too, so nothing is kept
of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blip2vqa.adapters.lora import LoraSummary
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.models.loading import LoadedModel
from blip2vqa.reporting.tables import format_block, print_score_table
from blip2vqa.training import recipe
from blip2vqa.training.run import Run
from blip2vqa.utils.console import run_script


def train_everything(loaded: LoadedModel, *args, **kwargs) -> LoraSummary:
    """In place of an adapter."""
    loaded.model.requires_grad_(True)
    total = sum(weight.numel() for weight in loaded.model.parameters())
    return LoraSummary({"every weight": 1}, total, total)


def main() -> None:
    parts, resolved = parse(FINETUNE_ARGUMENTS, __doc__, [*sys.argv[1:], "--feature_cache", "none"])
    run = Run(*parts, resolved)
    recipe.wrap = train_everything
    metrics = recipe.finetune(run)
    if metrics:
        print_score_table(metrics, f"Validation: {metrics['adapter']['n']} {run.task.unit}s")
        print(format_block("Done", run.results(metrics)), flush=True)


if __name__ == "__main__":
    run_script(main)

"""Fine-tune a BLIP-2 model with LoRA on a table of images and questions, or captions.

    blip2vqa finetune --image_dir IMAGES --csv_path TRAIN.csv --output_dir OUT \\
        --base_model_id Salesforce/blip2-opt-2.7b --batch_size 4 --epochs 3 --learning_rate 1e-4
    blip2vqa finetune CONFIG.yaml --learning_rate 2e-4     # YAML or JSON, flags on top
    blip2vqa finetune OUT/run.json --output_dir AGAIN      # the same run again
    blip2vqa finetune … --estimate [BASE …]                # what it would take

Writes into --output_dir: adapter (plain PEFT), card, scores, answers, report, checkpoints.
`--help all` also lists Trainer's options, such as --max_steps, --gradient_accumulation_steps,
--lr_scheduler_type, --weight_decay, --resume_from_checkpoint, --push_to_hub, --bf16, --use_cpu.
"""

import sys
from itertools import pairwise

from blip2vqa.cli.arguments import parse_arguments
from blip2vqa.config.training import FINETUNE_OPTIONS, trainer_flags

GO_ON = "--resume_from_checkpoint goes on, if a checkpoint was saved"
NEEDS = "--image_dir IMAGES --csv_path TRAIN.csv --output_dir OUT"


def check(argv: list[str]) -> None:
    """Raise `InputError` for what is wrong with a command line, as far as that can be told without torch."""
    parse_arguments("finetune", FINETUNE_OPTIONS, __doc__, argv, needs=NEEDS, known=trainer_flags())


def main(argv: list[str] | None = None) -> None:
    """Fine-tune, or with --estimate print what it would take."""
    argv = sys.argv[1:] if argv is None else argv
    asked_all = "--help=all" in argv or ("--help", "all") in pairwise(argv) or ("-h", "all") in pairwise(argv)
    if not asked_all:
        check(argv)  # or print the help without Trainer's options, and end
    from blip2vqa.config.finetune import FINETUNE_ARGUMENTS

    parts, resolved = parse_arguments("finetune", FINETUNE_ARGUMENTS, __doc__, argv, needs=NEEDS)
    from blip2vqa.training.run import Run

    run = Run(*parts, resolved)
    if run.model.estimate is not None:
        from blip2vqa.estimate.estimate import estimate
        from blip2vqa.reporting.estimates import print_estimates

        print_estimates(estimate(run))
        return
    from blip2vqa.reporting.tables import format_block, print_score_table
    from blip2vqa.training.recipe import finetune
    from blip2vqa.training.resume import interrupted

    try:
        metrics = finetune(run)
    except (
        KeyboardInterrupt
    ):  # before the first step or behind the last: a checkpoint is there or not, and none is saved
        raise interrupted(run) from None
    if metrics:  # the main process alone has them
        print_score_table(metrics, f"Validation: {metrics['adapter']['n']} {run.task.unit}s")
        print(format_block("Done", run.results(metrics)), flush=True)

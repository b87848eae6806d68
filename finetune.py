"""Fine-tune BLIP-2 or one of its relatives with LoRA on a table of images with questions and answers, or with captions.

    accelerate launch finetune.py configs/quickstart.json
    accelerate launch finetune.py --image_dir IMAGES --csv_path TRAIN.csv --output_dir OUT \\
        --base_model_id Salesforce/blip2-opt-2.7b --batch_size 4 --epochs 3 --learning_rate 1e-4
    accelerate launch finetune.py CONFIG.json --learning_rate 2e-4      # JSON, with flags on top
    accelerate launch finetune.py OUT/run.json --output_dir AGAIN       # the same run again
    python finetune.py … --estimate [BASE …]                            # what it would take, before any weight is loaded

Writes into --output_dir: the adapter (plain PEFT), blip2vqa.json (prompt, decoding, data, scores), metrics.json,
predictions.csv, run.json, split.json, README.md (model card) and checkpoints/.
"""

from blip2vqa.utils.console import run_script


def main() -> None:
    from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
    from blip2vqa.config.parser import parse

    parts, resolved = parse(FINETUNE_ARGUMENTS, __doc__)
    from blip2vqa.training.run import Run

    run = Run(*parts, resolved)
    if run.model.estimate is not None:
        from blip2vqa.estimate.estimate import estimate
        from blip2vqa.reporting.estimates import print_estimates

        print_estimates(estimate(run))
        return
    from blip2vqa.reporting.tables import format_block, print_score_table
    from blip2vqa.training.recipe import finetune

    metrics = finetune(run)
    if metrics:  # the main process alone has them
        print_score_table(metrics, f"Validation: {metrics['adapter']['n']} {run.task.unit}s")
        print(format_block("Done", run.results(metrics)), flush=True)


if __name__ == "__main__":
    run_script(main, "--resume_from_checkpoint goes on, if a checkpoint was saved")

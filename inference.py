"""Answer a table of questions about images with an adapter, or with a base model alone.

    python inference.py --image_dir IMAGES --csv_path QUESTIONS.csv --output_path RESULTS.csv \\
        --lora_model_path OUT-or-Hub-id --batch_size 16
    python inference.py … --lora_model_path count=A color=B default=C       # each question to the adapter of its type
    python inference.py --systems SYSTEMS.json --image_dir … --csv_path … --output_path COMPARISON.csv
    python inference.py --score RESULTS.csv --csv_path QUESTIONS.csv        # score any system's predictions

Writes the input's columns with generated_answer, confidence and status (with --answers FILE also ranked_answers); with an
answer column also the metrics, to RESULTS.metrics.json. Interrupted and started again, it goes on where it was.
"""

from blip2vqa.utils.console import run_script


def main() -> None:
    from blip2vqa.config.common import FeatureArguments
    from blip2vqa.config.inference import InferenceArguments
    from blip2vqa.config.parser import parse

    (args, features), _ = parse([InferenceArguments, FeatureArguments], __doc__)
    if args.systems:
        from blip2vqa.inference.systems import compare_systems
        from blip2vqa.reporting.systems import print_systems

        compared = compare_systems(args, features)
        if compared:  # the main process alone has it
            print_systems(compared[0])
            print("Written:", *compared[1])
        return
    from blip2vqa.inference.answering import answer_table, metrics_path, score_path, score_table
    from blip2vqa.reporting.tables import print_score_table

    if args.score:
        print_score_table(score_table(args), f"Score of {args.score}")
        print(f"Metrics: {score_path(args.score)}")
        return
    metrics = answer_table(args, features)
    if metrics is None:
        return  # the main process has said it
    print(f"Answers: {args.output_path}")
    if metrics:
        print_score_table(metrics, f"Score of {args.output_path}")
        print(f"Metrics: {metrics_path(args.output_path)}")


if __name__ == "__main__":
    run_script(main, "the same command goes on where it was")

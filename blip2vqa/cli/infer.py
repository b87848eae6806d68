"""Answer a table of questions about images with an adapter, or with a base model alone.

    blip2vqa infer --image_dir IMAGES --csv_path QUESTIONS.csv --output_path RESULTS.csv \\
        --lora_model_path OUT-or-Hub-id --batch_size 16
    blip2vqa infer … --lora_model_path count=A color=B default=C    # by the question's type
    blip2vqa infer --systems SYSTEMS.json --image_dir … --csv_path … --output_path COMPARED.csv
    blip2vqa infer --score RESULTS.csv --csv_path QUESTIONS.csv     # scores of any predictions

Writes the input's columns with generated_answer, confidence, probability_right (of adapters that
know it) and status (with --answers FILE also ranked_answers); with an answer column also the
metrics, to RESULTS.metrics.json, and a page to look at, RESULTS.report.html. Interrupted and
started again, it goes on where it was.
"""

from blip2vqa.cli.arguments import parse_arguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments

GO_ON = "the same command goes on where it was"
NEEDS = "--image_dir IMAGES --csv_path QUESTIONS.csv --output_path RESULTS.csv --lora_model_path ADAPTER"


def check(argv: list[str] | None) -> tuple[InferenceArguments, FeatureArguments]:
    """Return the arguments. Raises `InputError` for what is wrong, as far as that can be told without torch."""
    parts, _ = parse_arguments("infer", [InferenceArguments, FeatureArguments], __doc__, argv, needs=NEEDS)
    return parts


def main(argv: list[str] | None = None) -> None:
    """Answer the table; or compare systems on it, or score predictions that are there."""
    args, features = check(argv)
    if args.score:
        from blip2vqa.inference.scoring import score_path, score_table
        from blip2vqa.reporting.tables import print_score_table

        print_score_table(score_table(args), f"Score of {args.score}")
        print(f"Metrics: {score_path(args.score)}")
        return
    if args.systems:
        from blip2vqa.inference.systems import compare_systems
        from blip2vqa.reporting.systems import print_systems

        compared = compare_systems(args, features)
        if compared:  # the main process alone has it
            print_systems(compared[0])
            print("Written:", *compared[1])
        return
    from blip2vqa.inference.answering import answer_table, metrics_path
    from blip2vqa.reporting.reports import report_path
    from blip2vqa.reporting.tables import print_score_table

    metrics = answer_table(args, features)
    if metrics is None:
        return  # the main process has said it
    print(f"Answers: {args.output_path}")
    if metrics:
        print_score_table(metrics, f"Score of {args.output_path}")
        print(f"Metrics: {metrics_path(args.output_path)}")
        print(f"Report: {report_path(args.output_path)}")

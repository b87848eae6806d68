"""Make a VQA data set from a product catalogue: the ABO archive, or a table and pictures.

    blip2vqa generate --abo_dir ABO --output_path vqa.csv [--num_images 5000] [--preview 50]
    blip2vqa generate --csv_path CATALOGUE.csv --image_dir IMAGES --output_path vqa.csv
    blip2vqa generate … --check_model BASE                 # a model answers every question, too
    blip2vqa generate … --backend model --base_model_id BASE        # a model answers, or asks
    blip2vqa generate … --backend api --api_model MODEL [--dry_run] # key in OPENAI_API_KEY
    blip2vqa generate vqa.run.json --output_path again.csv          # the same again

ABO is the Amazon Berkeley Objects archive. Writes vqa.csv, vqa.train.csv, vqa.val.csv, vqa.test.csv
(split by product), vqa.jsonl (every question that was asked, with what the filters said), vqa.md
and vqa.png (data card), and with --preview vqa.html. Interrupted and started again, it goes on, and
asks nothing twice.
"""

from blip2vqa.cli.arguments import parse_arguments
from blip2vqa.config.generate import VQA_ARGUMENTS

GO_ON = "the same command goes on, and asks nothing twice"
NEEDS = "--csv_path CATALOGUE.csv --image_dir IMAGES --output_path vqa.csv"


def main(argv: list[str] | None = None) -> None:
    """Make the data set, and print what was kept and what was left out."""
    parts, resolved = parse_arguments("generate", VQA_ARGUMENTS, __doc__, argv, needs=NEEDS)
    from blip2vqa.generate.generating import generate
    from blip2vqa.generate.report.data_summary import print_summary

    summary = generate(*parts, resolved)
    if summary:
        print_summary(summary)

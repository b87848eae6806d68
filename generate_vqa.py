"""Make a VQA data set from a product catalogue: the Amazon Berkeley Objects archive, or a table and a folder of pictures.

    python generate_vqa.py --abo_dir ABO --output_path vqa.csv [--num_images 5000] [--num_questions 10] [--preview 50]
    python generate_vqa.py --csv_path CATALOGUE.csv --image_dir IMAGES --output_path vqa.csv
    python generate_vqa.py … --check_model Salesforce/blip2-flan-t5-xl        # a model answers every question, too
    python generate_vqa.py … --backend model --base_model_id BASE             # a model answers, or writes the questions
    python generate_vqa.py … --backend api --api_model MODEL [--dry_run]      # a chat endpoint; its key in OPENAI_API_KEY
    python generate_vqa.py vqa.run.json --output_path again.csv               # the same again

Writes vqa.csv, vqa.train.csv, vqa.val.csv, vqa.test.csv (split by product), vqa.jsonl (every question that was asked, with what
the filters said), vqa.md and vqa.png (data card), and with --preview vqa.html. Interrupted and started again, it goes on, and
asks nothing twice.
"""

from blip2vqa.utils.console import run_script


def main() -> None:
    from blip2vqa.config.generate import VQA_ARGUMENTS
    from blip2vqa.config.parser import parse

    parts, resolved = parse(VQA_ARGUMENTS, __doc__)
    from blip2vqa.generate.generating import generate
    from blip2vqa.generate.report.data_summary import print_summary

    summary = generate(*parts, resolved)
    if summary:
        print_summary(summary)


if __name__ == "__main__":
    run_script(main, "the same command goes on, and asks nothing twice")

"""Answer a table of questions about images; --help shows the commands, and `blip2vqa/cli/infer.py` has them.

python inference.py --image_dir IMAGES --csv_path QUESTIONS.csv --output_path RESULTS.csv --lora_model_path ADAPTER
"""

from blip2vqa.cli.infer import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

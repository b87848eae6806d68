"""Make a VQA data set from a product catalogue; --help shows the commands, and `blip2vqa/cli/generate.py` has them.

python generate_vqa.py --csv_path CATALOGUE.csv --image_dir IMAGES --output_path vqa.csv
"""

from blip2vqa.cli.generate import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

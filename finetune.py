"""Fine-tune BLIP-2 or one of its relatives with LoRA; --help shows the commands, and `blip2vqa/cli/finetune.py` has them.

accelerate launch finetune.py configs/quickstart.json
accelerate launch finetune.py --image_dir IMAGES --csv_path TRAIN.csv --output_dir OUT
"""

from blip2vqa.cli.finetune import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

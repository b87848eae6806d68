"""Caption pictures in several styles; --help shows the commands, and `blip2vqa/cli/caption.py` has them.

python caption.py --images PICTURES/ --output_path CAPTIONS.csv --styles detailed=ADAPTER concise=ADAPTER
"""

from blip2vqa.cli.caption import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

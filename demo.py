"""Serve a page to ask base and adapters about pictures; --help shows the commands, and `blip2vqa/cli/demo.py` has them.

python demo.py --lora_model_path counting=A color=B
"""

from blip2vqa.cli.demo import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

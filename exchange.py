"""Keep, check, merge, move and publish adapters; --help shows the commands, and `blip2vqa/cli/exchange.py` has them.

python exchange.py list
"""

from blip2vqa.cli.exchange import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

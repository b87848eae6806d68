"""Show answers on a page; --help shows the ways, and `blip2vqa/cli/report.py` has them.

python report.py RUN
"""

from blip2vqa.cli.report import GO_ON, main
from blip2vqa.utils.console import run_script

if __name__ == "__main__":
    run_script(main, GO_ON)

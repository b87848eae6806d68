"""Show answers on a page: pictures, right and wrong answers, scores, curves.

blip2vqa report RUN                                  # a run of finetune
blip2vqa report RESULTS.csv --image_dir IMAGES       # a table of answers
blip2vqa report OURS.csv THEIRS.csv --csv_path QUESTIONS.csv --image_dir IMAGES
"""

import sys

from blip2vqa.cli.arguments import check_paths, described
from blip2vqa.config.parser import parse_command
from blip2vqa.config.report import ReportArguments
from blip2vqa.utils.console import called
from blip2vqa.utils.errors import raise_all

GO_ON = "run the same command again"


def main(argv: list[str] | None = None) -> None:
    """Write the page, and say where it is."""
    argv = sys.argv[1:] if argv is None else argv
    if "-h" in argv or "--help" in argv:
        print(described("report", __doc__))
    args = parse_command("report", ReportArguments, argv, called("report"))
    check_paths([args])
    raise_all(args.check())
    from blip2vqa.reporting.report_files import report_files

    print(f"Report: {report_files(args)}")

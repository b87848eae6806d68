"""How long the scripts take to say what needs no model: processor seconds, and whether torch was imported.

    python benchmarks/startup.py [--before CHECKOUT] [--repeat 3] [--output docs/measurements/startup.json]

Every command runs in a process of its own, `--repeat` times; the least is taken, since other work on the machine only adds.
With --before the same commands also run in another checkout, to compare with.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
# Runs a script as `python SCRIPT` does, and tells at its end whether torch is there.
PROBE = """
import atexit, runpy, sys
report, *sys.argv = sys.argv[1:]
atexit.register(lambda: open(report, "w").write(str("torch" in sys.modules)))
sys.path.insert(0, "")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def commands(folder: Path) -> list[str]:
    """Return the command lines to measure, with the files that they read made in `folder`."""
    (folder / "store").mkdir()
    (folder / "questions.csv").write_text("image_name,question,answer\na.png,what is it,dog\n")
    (folder / "said.csv").write_text("image_name,question,answer,generated_answer\na.png,what is it,dog,dog\n")
    return [
        "finetune.py --help",
        "inference.py --help",
        "caption.py --help",
        "generate_vqa.py --help",
        "exchange.py --help",
        "exchange.py transfer --help",
        "finetune.py --version",
        "finetune.py --lerning_rate 1",
        "inference.py --bacth_size 1",
        "finetune.py --csv_path absent.csv --image_dir absent",
        "inference.py --csv_path absent.csv --image_dir absent",
        "generate_vqa.py --csv_path absent.csv --image_dir absent",
        "exchange.py inspect ./absent",
        f"exchange.py list {folder}/store",
        f"inference.py --score {folder}/said.csv --csv_path {folder}/questions.csv --bertscore_model none",
    ]


def measure(checkout: Path, command: str, repeat: int) -> dict:
    """Run a command `repeat` times in a checkout → {seconds, torch, exit_code}, of the run that took least."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        for _ in range(repeat):
            process = subprocess.Popen(
                [sys.executable, "-c", PROBE, str(report), *command.split()],
                cwd=checkout,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(checkout)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = round(used.ru_utime + used.ru_stime, 2)
            runs.append((seconds, report.read_text() == "True", process.returncode))
    return dict(zip(("seconds", "torch", "exit_code"), min(runs), strict=True))


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "measurements" / "startup.json")
    args = parser.parse_args()
    checkouts = {"before": args.before.resolve()} if args.before else {}
    checkouts["now"] = ROOT
    table = Table(title="Start-up: processor seconds, and whether torch was imported")
    for column in ("command", *checkouts):
        table.add_column(column)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for command in commands(Path(folder)):
            found = {name: measure(checkout, command, args.repeat) for name, checkout in checkouts.items()}
            shown = command.replace(f"{folder}/", "")
            rows.append({"command": shown, **found})
            table.add_row(shown, *(f"{one['seconds']:.2f}{' torch' * one['torch']}" for one in found.values()))
    Console().print(table)
    result = {"unit": "processor seconds, least of the runs", "repeat": args.repeat, "rows": rows}
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Written: {args.output}")


if __name__ == "__main__":
    main()

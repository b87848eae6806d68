"""What a kill, a damaged file, a failing disk or a second process does to every command, some thousand times over.

    python benchmarks/faults.py --minutes 60 --output docs/measurements/faults.json    # given again, it goes on
    python benchmarks/faults.py --parts inputs --inputs 3000 --output /tmp/faults.json
    python benchmarks/faults.py --only 'kills/merge/*' inputs/csv/17                   # these alone, once more

*kills*: a command is killed at a random moment, or before an operation that changes a file; the same command goes on, and
every file that it leaves must be that of an undisturbed run, byte for byte. *inputs*: files of every kind are damaged; the
reader must hand back what is right, or refuse in one line. *disks*: full or read-only, simulated and, for root, mounted.
*pairs*: the same command twice at once. Tiny models, no network but loopback. All is drawn from --seed, and every trial has a
name by which it can be run alone. 1,000 kills and 20,000 inputs take half an hour on two cores.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]
PARTS = {"kills": 1000, "inputs": 20_000, "disks": 300, "pairs": 100}


def main() -> None:
    """Run the trials, print the counts, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for part, number in PARTS.items():
        parser.add_argument(f"--{part}", type=int, default=number, help=f"how many; default: {number:,}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these trials alone; * stands for anything")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so many; given again, it goes on"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the counts")
    args = parser.parse_args()
    # Before the libraries are imported: what they draw would count as something said.
    os.environ |= {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    from fault_parts.campaign import Campaign

    scratch = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        campaign = Campaign(args, scratch)
        result = campaign.run()
        report(result, args.output)
        campaign.finish()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def report(result: dict, output: Path | None) -> None:
    """Print the counts, and write them to `output`."""
    import torch

    from fault_parts.campaign import print_counts
    from measuring import circumstances

    print_counts(result)
    if output:
        result |= {"command": f"python {' '.join(sys.argv)}"} | circumstances(torch.device("cpu"))
        output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Whether this project is right on this machine's GPU, how fast it is, and where the time goes: one command, ten minutes.

    python benchmarks/on_gpu.py --output on_gpu                    # given again, it goes on
    python benchmarks/on_gpu.py --minutes 20 --shape blip2-opt-2.7b --output on_gpu
    python benchmarks/on_gpu.py --shape tiny --output /tmp/on_gpu  # a minute on a CPU, which then stands in for a GPU

*right*: small models of all families on the CPU and on the GPU, in float32, bfloat16 and float16; fused LoRA, shared rows,
adapters merged, side by side and mixed; whole runs in full, 8 and 4 bits; torch.compile. *fast*: training and answering at
real dimensions, random weights, beside the plain way, each at its own best batch size. *where*: the profiler's tables. Each
part is a process of its own; a part that fails, hangs or does not fit the card is said, and the others are done. What is done
is kept in DIR/parts, bound to the card, torch and the code; to do a part again, remove its file. Writes DIR/summary.json and
DIR/summary.md. Exit code 0: nothing is wrong; 1: something is; 2: an unknown option or name; 3: nobody knows, as nothing was
compared or steps of right are left. No download.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gpu_parts import plan, report


def main(argv: Sequence[str] | None = None) -> int:
    """Do the parts and print them; returns the exit code."""
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="ends within so many; default: 8")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--shape", nargs="+", choices=plan.SHAPES, default=list(plan.MODELS), help="for fast and where")
    parser.add_argument("--parts", nargs="+", choices=plan.KINDS, default=list(plan.KINDS))
    parser.add_argument("--steps", nargs="+", metavar="NAME", help="these steps alone, as the lines name them")
    args = parser.parse_args(argv)
    if unknown := [step for step in args.steps or [] if step not in plan.STEPS]:
        print(f"on_gpu.py: --steps: there is no {unknown[0]!r}; there are {', '.join(plan.STEPS)}", file=sys.stderr)
        return 2
    ends = began + 60 * args.minutes - plan.SPARE
    screen, output = report.screen(), args.output.absolute()
    try:
        card = plan.describe_card(max(0.0, ends - began))
    except RuntimeError as error:
        print(f"on_gpu.py: {error}", file=sys.stderr)
        return 1
    planned = plan.parts(args.parts, args.shape, args.steps, on_cpu=card["device"] == "cpu")
    key, done = plan.made_by(card), []
    screen.print(f"{card['name']}, driver {card['driver'] or '-'}, torch {card['torch']}, CUDA {card['cuda'] or '-'}")
    for one in plan.run(planned, output, key, ends):
        done.append(one)
        for line in report.lines(one):
            screen.print(line)
    minutes = (time.time() - began) / 60
    command = f"python benchmarks/on_gpu.py {' '.join(sys.argv[1:] if argv is None else argv)}"
    summary = report.summarize(card, key, planned, done, output, minutes, command)
    for name, steps in summary["left"].items():
        screen.print(f"left     {name}: {', '.join(steps)}: time was up; the same command goes on")
    code, verdict = report.verdict(summary)
    screen.print(f"{minutes:.1f} minutes, {verdict}: {output / 'summary.md'}")
    return code


if __name__ == "__main__":
    sys.exit(main())

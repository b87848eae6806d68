"""Measure what the checksums of kept features cost: the share of training and of answering that they take.

Runs the drawings' training on features that are kept already; every checksum is timed, and so is the time that the run
takes. Answering is the run's own validation, which reads the same features.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.features import cache, stored
from blip2vqa.training.recipe import finetune
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.files import write_json_atomic


class Clock:
    """Adds up the seconds that a function takes."""

    def __init__(self, function):
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *args, **kwargs):
        start = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start
            self.calls += 1


def measure(steps: int, folder: Path) -> dict[str, float]:
    """Train, with kept features, and answer the validation questions; returns the share of each that the checksums took."""
    config = [
        "configs/drawings.json",
        "--bertscore_model",
        "none",
        "--disable_tqdm",
        "true",
        "--max_steps",
        str(steps),
    ]
    given, resolved = parse(FINETUNE_ARGUMENTS, "", [*config, "--output_dir", str(folder), "--eval_strategy", "no"])
    shares, checks = {}, Clock(stored.row_checksum)
    stored.row_checksum = cache.row_checksum = checks

    def make(run, loaded, features, data, answer):
        start, before = time.perf_counter(), checks.seconds
        answer(data.val, "")
        shares["answering"] = (checks.seconds - before) / (time.perf_counter() - start)
        trainer = VQATrainer(run, loaded, features, data, answer)
        train = trainer.train

        def timed(*args, **kwargs):
            start, before = time.perf_counter(), checks.seconds
            done = train(*args, **kwargs)
            shares["training"] = (checks.seconds - before) / (time.perf_counter() - start)
            return done

        trainer.train = timed
        return trainer

    start = time.perf_counter()
    finetune(Run(*given, resolved), make)
    shares["whole run"] = checks.seconds / (time.perf_counter() - start)
    stored.row_checksum = cache.row_checksum = checks.function
    return shares | {"checksums": checks.calls, "microseconds each": checks.seconds / checks.calls * 1e6}


def main() -> None:
    """Repeat the measurement and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of a run")
    parser.add_argument("--repetitions", type=int, default=3, help="runs; the first, which may encode, is not counted")
    parser.add_argument("--output", default="docs/measurements/checksums.json")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        runs = [measure(args.steps, Path(folder, str(number))) for number in range(args.repetitions + 1)][1:]
    result = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    write_json_atomic(
        args.output, {"steps": args.steps, "repetitions": args.repetitions, "median": result, "runs": runs}
    )
    print(result)


if __name__ == "__main__":
    main()

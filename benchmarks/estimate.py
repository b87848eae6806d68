"""What `finetune.py --estimate` foretells against what the same run takes: peak memory of training, seconds a batch.

    python benchmarks/estimate.py --base_model_id assets/tiny-blip2-opt --csv_path assets/drawings/train.csv \\
        --image_dir assets/drawings/images --output_dir /tmp/estimate          # a few seconds

Takes finetune.py's flags. Trains a few steps on the CPU, and reads /proc: Linux. The memory is that of training alone:
weights that are read from disk stay in memory twice as long as the system has room for them.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.parser import parse
from blip2vqa.estimate.estimate import estimate
from blip2vqa.training.recipe import finetune
from blip2vqa.training.run import Run
from blip2vqa.training.trainer import VQATrainer
from blip2vqa.utils.console import run_script
from measuring import peak_bytes

STEPS = "--max_steps 6 --eval_strategy no --bertscore_model none --use_cpu true --disable_tqdm true".split()


class _Done(Exception):
    """Training has been measured; what comes after it is of no interest."""


class _Measured(VQATrainer):
    def train(self, **kwargs):
        self.times = []
        peak = peak_bytes(lambda: super(_Measured, self).train(**kwargs), torch.device("cpu"))
        raise _Done(peak, statistics.median(self.times[1:]))

    def training_step(self, *args, **kwargs):
        start = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        self.times.append(time.perf_counter() - start)
        return loss


def main() -> None:
    parts, resolved = parse(FINETUNE_ARGUMENTS, __doc__, [*sys.argv[1:], *STEPS])
    run = Run(*parts, resolved)
    (base,) = estimate(run)["bases"]
    (foretold,) = (found for found in base["quantization"].values() if found["chosen"])
    expected = foretold["peak"] / 2**30, foretold["epoch_seconds"] / base["batches_per_epoch"]
    try:
        finetune(run, _Measured)
    except _Done as done:
        peak, seconds = done.args
    for label, one, other in zip(("peak, GiB", "seconds a batch"), expected, (peak / 2**30, seconds), strict=True):
        print(f"{label}: estimated {one:.3f}, measured {other:.3f} ({one / other - 1:+.0%})")
    print(f"at its most during {foretold['peak_during']}: {foretold['memory']}")


if __name__ == "__main__":
    run_script(main)

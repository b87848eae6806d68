"""A whole job on a real table, beside Trainer and PEFT as most people write them (`plain_trainer.py`), same epochs.

    python benchmarks/whole_job.py --data easy-vqa-dev --output FILE.json

`--data` is a folder with images/, train.csv and val.csv. Both start as processes of their own, one after the other. Ours does
more: it also scores the base, the swapped images and the blind baseline, and its features are computed for the first time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.models.loading import find_device
from measuring import circumstances

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, train.csv and val.csv")
    parser.add_argument("--base", default="assets/tiny-blip2-opt")
    parser.add_argument("--batch_size", type=int, default=64, help="questions in a step")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args()
    data = args.data.resolve()
    images, train, val = (str(data / name) for name in ("images", "train.csv", "val.csv"))
    result = {"command": f"python {' '.join(sys.argv)}", **circumstances(find_device())}
    with tempfile.TemporaryDirectory() as folder:
        ours = [
            "finetune.py", "--base_model_id", args.base, "--image_dir", images, "--csv_path", train, "--eval_csv_path", val,
            "--output_dir", f"{folder}/run", "--feature_cache", f"{folder}/features", "--dtype", "float32",
            "--batch_size", str(args.batch_size), "--epochs", str(args.epochs), "--learning_rate", str(args.learning_rate),
            "--lora_dropout", str(args.dropout), "--warmup_steps", "50", "--per_device_eval_batch_size", "128",
            "--bertscore_model", "none", "--logging_steps", "100", "--use_cpu", "--disable_tqdm", "true",
        ]  # fmt: skip
        settings = [str(value) for value in (args.batch_size, args.epochs, args.learning_rate, args.dropout)]
        plain = ["benchmarks/plain_trainer.py", args.base, images, train, val, *settings, f"{folder}/plain.json"]
        for name, command in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
            result[f"{name}_seconds"] = time.perf_counter() - start
        result["ours_accuracy"] = json.loads(Path(f"{folder}/run/metrics.json").read_text())["adapter"]["accuracy"]
        plain_figures = json.loads(Path(f"{folder}/plain.json").read_text())
    result |= {"plain_accuracy": plain_figures["accuracy"], "speedup": result["plain_seconds"] / result["ours_seconds"]}
    table = Table(title=f"{data.name}, {args.epochs:g} epochs, {args.base}")
    for column in ("", "seconds, whole job", "accuracy"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("plain", "ours"):
        table.add_row(name, f"{result[f'{name}_seconds']:.1f}", f"{result[f'{name}_accuracy']:.1%}")
    Console(highlight=False).print(table)
    print(f"faster {result['speedup']:.2f} ×")
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

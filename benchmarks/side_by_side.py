"""Three adapters on one table: `inference.py --systems` once, beside `inference.py` three times.

    python benchmarks/side_by_side.py --output side_by_side.json                          # the embedded base
    python benchmarks/side_by_side.py --shape blip2-opt-2.7b --images 16 --output OUT.json  # random weights

Whole processes, as a user starts them, imports and loading included. The three runs share one feature cache, and so do the
systems: the first of each computes it. Adapters have random weights; a base of real size is written to `--folder` first, with
the embedded base's tokenizer. Times are of one run each, unless `--repeats` says more; then the fastest. No download.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.models.loading import find_device, load_base, load_config, load_processor
from measuring import circumstances
from shapes import SHAPES, build, configuration

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = ROOT / "assets" / "tiny-blip2-opt"
TABLE = ROOT / "assets" / "drawings" / "val.csv"
NAMES = ("one", "two", "three")


def write_base(shape: str, folder: Path) -> Path:
    """A base of real size with random weights, in the Hub's layout."""
    config = configuration(shape)
    processor = load_processor(str(EMBEDDED), load_config(str(EMBEDDED)))
    processor.image_processor.size = {
        "height": config.vision_config.image_size,
        "width": config.vision_config.image_size,
    }
    processor.num_query_tokens = config.num_query_tokens
    config.image_token_index = processor.tokenizer.convert_tokens_to_ids("<image>")
    model = build(config, torch.bfloat16, torch.device("cpu"))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_adapters(base: Path, folder: Path) -> list[Path]:
    """Three adapters of rank 16 on every role of the language model, none of which does nothing."""
    loaded = load_base(str(base), device=torch.device("cpu"), quantization="none", parts=("language_model",))
    for number, name in enumerate(NAMES):
        wrap(loaded, LoraArguments(), seed=number)
        with torch.no_grad():
            for key, weight in loaded.model.named_parameters():
                if "lora_B" in key:
                    weight.normal_(0.0, 0.02)
        loaded.model.save_pretrained(folder / name)
        loaded.model = loaded.model.unload()
    return [folder / name for name in NAMES]


def write_table(images: int, folder: Path) -> Path:
    """The questions about the first `images` pictures of the embedded validation table."""
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = list(dict.fromkeys(row["image_name"] for row in rows))[:images]
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row["image_name"] in wanted)
    return path


def run(args, table: Path, cache: Path, output: Path, *flags: str) -> float:
    """Seconds of one process."""
    command = [
        sys.executable, ROOT / "inference.py", "--image_dir", ROOT / "assets" / "drawings" / "images", "--csv_path", table,
        "--output_path", output, "--batch_size", args.batch_size, "--bertscore_model", "none", "--feature_cache", cache,
        *flags,
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return time.perf_counter() - began


def measure(args, folder: Path) -> dict:
    """All figures of the JSON file, in seconds."""
    base = write_base(args.shape, folder / "base") if args.shape else EMBEDDED
    adapters, table = write_adapters(base, folder), write_table(args.images, folder)
    systems = folder / "systems.json"
    each = {"base_model_id": str(base), "quantization": "none"}
    systems.write_text(json.dumps([{"name": path.name, "lora_model_path": str(path)} | each for path in adapters]))
    separate, together = [], []
    for turn in range(args.repeats):
        at = folder / f"turn{turn}"
        flags = ("--quantization", "none", "--lora_model_path")
        separate.append([run(args, table, at / "cache", at / f"{path.name}.csv", *flags, path) for path in adapters])
        together.append(run(args, table, at / "cache2", at / "all.csv", "--systems", systems))
    alike = _same_answers(folder / "turn0")
    apart = min(map(sum, separate))
    given = {name: getattr(args, name) for name in ("shape", "images", "batch_size", "repeats")}
    return {
        **given, "command": f"python {' '.join(sys.argv)}", **circumstances(find_device()),
        "questions": sum(1 for _ in table.open()) - 1, "separate_seconds": separate, "together_seconds": together,
        "ratio": min(together) / apart, "share_of_equal_answers": alike,
    }  # fmt: skip


def _same_answers(folder: Path) -> float:
    """Share of questions to which a system gives the same answer alone and beside the others."""
    with (folder / "all.answers.csv").open(newline="") as file:
        together = list(csv.DictReader(file))
    same = total = 0
    for name in NAMES:
        with (folder / f"{name}.csv").open(newline="") as file:
            for row, other in zip(csv.DictReader(file), together, strict=True):
                same += row["generated_answer"] == other[name]
                total += 1
    return same / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", choices=SHAPES, help="a base of this size with random weights; default: the embedded one"
    )
    parser.add_argument("--images", type=int, default=120, help="pictures of the embedded validation table")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where bases and adapters are written; default: a temporary folder")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = measure(args, Path(folder))
    apart, together = min(map(sum, result["separate_seconds"])), min(result["together_seconds"])
    print(f"three runs {apart:.1f} s, side by side {together:.1f} s: {result['ratio']:.2f} of it")
    print(f"{result['share_of_equal_answers']:.1%} of the answers are the same")
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

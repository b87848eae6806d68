"""What a row of the table costs from a thousand rows to a million: time and memory of every step before the model.

    python benchmarks/scaling.py --rows 1000 10000 100000 1000000 --output scaling.json     # some minutes
    python benchmarks/scaling.py --rows 200 2000 --output /tmp/scaling.json                 # seconds

The package's own steps, on a CSV and small distinct pictures (BMP, 1.3 kB) written for it, each size in a process of its
own: reading the table, checking rows and pictures, splitting by picture, checking lengths, writing random features into a
store, looking them up, the order of an epoch, and collation of its first batches. For each step: seconds a row; the peak
of the process's own memory that it added a row; what of that stayed; and pages of mapped files, which the system takes
back where it needs room. Flat: at the largest size a row takes at most twice the time and the own memory that it took at
the best smaller one; in all, less than `NOISE` bytes are not told apart, nor less than `MOMENT` seconds. No download.
"""

import argparse
import csv
import gc
import itertools
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.data.examples import check_examples
from blip2vqa.data.splits import split_by_image
from blip2vqa.data.tables import load_table
from blip2vqa.evaluation.tasks import VQA
from blip2vqa.features.cache import FeatureStore
from blip2vqa.features.key import FeatureKey
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import load_config, load_processor
from blip2vqa.training.collators import TrainingCollator
from blip2vqa.training.trainer import AnsweredQuestions, RowSampler
from measuring import circumstances, free_unused, peak_bytes

CPU = torch.device("cpu")
BASE = Path(__file__).resolve().parent.parent / "assets" / "tiny-blip2-opt"  # for its tokenizer alone
PICTURE = 20  # pixels in width and height
SPACE = FeatureKey("query_output", "random", {}, torch.bfloat16, (16, 64))
BATCH, BATCHES = 16, 2000
STEPS = ("read", "check", "split", "lengths", "store", "look_up", "order", "collate")
MEASURES = ("seconds", "peak_bytes", "kept_bytes", "mapped_bytes")
NOISE, MOMENT, FLAT = 8 * 2**20, 0.1, 2.0  # memory that an earlier step gave back is used again unseen


def write_table(folder: Path, rows: int, questions_per_image: int) -> None:
    """`table.csv` and the pictures that it names, in `images`."""
    (folder / "images").mkdir()
    for number in range(-(-rows // questions_per_image)):
        pixels = number.to_bytes(4, "big") * (PICTURE * PICTURE * 3 // 4)
        Image.frombytes("RGB", (PICTURE, PICTURE), pixels).save(folder / "images" / f"{number:07d}.bmp")
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image_name", "question", "answer"))
        for row in range(rows):
            question = f"Is there a square left of circle {row % 1000} in the picture?"
            writer.writerow((f"{row // questions_per_image:07d}.bmp", question, ("yes", "no")[row % 2]))


class Steps:
    """Runs steps one after the other and notes what each took."""

    def __init__(self):
        self.taken: dict[str, dict[str, float]] = {}

    def run(self, name: str, count: int, function, *args, **kwargs):
        """The result of `function(…)`, whose cost is shared by `count` rows."""
        results = []

        def timed() -> float:
            start = time.perf_counter()
            results.append(function(*args, **kwargs))
            return time.perf_counter() - start

        before, own, mapped = peak_bytes(lambda: None, CPU), resident_bytes("Anon"), resident_bytes("File")
        seconds = []
        peak = peak_bytes(lambda: seconds.append(timed()), CPU)
        mapped = resident_bytes("File") - mapped
        free_unused()
        self.taken[name] = {
            "rows": count, "seconds": seconds[0], "peak_bytes": max(peak - before - max(mapped, 0), 0),
            "kept_bytes": resident_bytes("Anon") - own, "mapped_bytes": mapped,
        }  # fmt: skip
        return results[0]


def resident_bytes(kind: str) -> int:
    """Resident memory of this process: `Anon`, its own, or `File`, of mapped files."""
    return int(re.search(rf"Rss{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def run_steps(folder: Path, rows: int) -> dict:
    """Every step on the table in `folder`, as a fine-tuning run takes them."""
    config = load_config(str(BASE))
    text = family_of(config).text_encoder(load_processor(str(BASE), config), config)
    steps, path, images = Steps(), str(folder / "table.csv"), str(folder / "images")
    room, row_tokens = VQA.max_new_tokens, FinetuneArguments.tokens_per_row

    table, problems = steps.run("read", rows, load_table, path, None, require_answers=True)
    examples, _ = steps.run("check", rows, check_examples, table, problems, path, images, progress=False)
    del table
    train, val = steps.run("split", rows, split_by_image, examples, 0.2, 0)
    del examples
    steps.run("lengths", rows, text.check_lengths, train + val, room, row_tokens)
    digests = list(dict.fromkeys(example.digest for example in train + val))
    store = FeatureStore(folder / "store", SPACE)

    def fill() -> None:
        with store.writer() as writer:
            for start in range(0, len(digests), BATCH):
                chosen = digests[start : start + BATCH]
                writer.add(chosen, torch.randn(len(chosen), *SPACE.shape).to(SPACE.dtype))

    steps.run("store", rows, fill)

    def look_up():
        if store.missing(digests):
            raise RuntimeError("features are missing that were just written")
        return store.open(digests)

    features = steps.run("look_up", rows, look_up)
    order = steps.run("order", len(train), ordered, train)
    collator, asked = TrainingCollator(text, features, row_tokens), AnsweredQuestions(train, 0)
    first = min(len(train), BATCH * BATCHES)

    def collate() -> None:
        for indices in batches(itertools.islice(order, first)):
            collator([asked[index] for index in indices])

    steps.run("collate", first, collate)
    pictures = sum(file.stat().st_size for file in (folder / "images").iterdir())
    return {
        "rows": rows, "images": len(digests), "image_bytes": pictures, "feature_bytes": store.nbytes,
        "steps": {name: steps.taken[name] | each_row(steps.taken[name]) for name in STEPS},
    }  # fmt: skip


def each_row(taken: dict[str, float]) -> dict[str, float]:
    return {f"{measure}_per_row": taken[measure] / taken["rows"] for measure in MEASURES}


def ordered(train) -> Iterator[int]:
    """One epoch's order; all of it is drawn here."""
    return iter(RowSampler((example.digest for example in train), 0))


def batches(indices: Iterator[int]) -> Iterator[list[int]]:
    """`BATCH` at a time."""
    while batch := list(itertools.islice(indices, BATCH)):
        yield batch


def measure(rows: int, questions_per_image: int) -> dict:
    """One size, in a process of its own; the files are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder), rows, questions_per_image)
        # Forked from a process that has done nothing but import: a step is measured by what it adds.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            return pool.submit(run_steps, Path(folder), rows).result()


def verdicts(sizes: list[dict]) -> dict[str, dict]:
    """Of each step: how much more a row takes at the largest size than at the best smaller one, and whether it is flat."""
    *smaller, largest = sizes
    found = {}
    for step in STEPS:
        ratios = {}
        for name, least in (("seconds", MOMENT), ("peak_bytes", NOISE)):
            each = [max(size["steps"][step][name], least) / size["steps"][step]["rows"] for size in (*smaller, largest)]
            ratios[f"{name}_ratio"] = each[-1] / min(each[:-1], default=each[-1])
        found[step] = ratios | {"flat": max(ratios.values()) <= FLAT}
    return found


def print_table(result: dict) -> None:
    """The figures for people."""
    console = Console(highlight=False, width=110)
    for size in result["sizes"]:
        table = Table(title=f"{size['rows']:,} rows, {size['images']:,} pictures")
        for column in ("", "seconds", "µs a row", "peak, bytes a row", "kept, bytes a row", "mapped, bytes a row"):
            table.add_column(column, justify="right" if column else "left")
        for name, step in size["steps"].items():
            figures = f"{step['seconds']:.3f}", f"{1e6 * step['seconds_per_row']:.1f}"
            table.add_row(name, *figures, *(f"{step[f'{measure}_per_row']:,.0f}" for measure in MEASURES[1:]))
        console.print(table)
        grown = sum(size["steps"][name]["kept_bytes"] for name in ("store", "look_up", "order", "collate"))
        features, pictures = size["feature_bytes"], size["image_bytes"]
        print(f"features {features / 1e6:.1f} MB on disk, pictures {pictures / 1e6:.1f} MB;", end=" ")
        print(f"from storing features to collating, {grown / 1e6:.1f} MB of memory were added and kept")
    print("\na row at the largest size against the best smaller one:")
    for name, verdict in result["verdicts"].items():
        ratios = f"{verdict['seconds_ratio']:.2f} × the time, {verdict['peak_bytes_ratio']:.2f} × the memory"
        print(f"  {name:8} {ratios}: {'flat' if verdict['flat'] else 'NOT FLAT'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000], help="sizes")
    parser.add_argument("--questions_per_image", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # else every collection between two steps goes through all that was imported
    sizes = [measure(rows, args.questions_per_image) for rows in sorted(args.rows)]
    result = {"questions_per_image": args.questions_per_image, "command": f"python {' '.join(sys.argv)}"}
    result |= (
        {"moment_seconds": MOMENT, "noise_bytes": NOISE}
        | circumstances(CPU)
        | {"sizes": sizes, "verdicts": verdicts(sizes)}
    )
    print_table(result)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

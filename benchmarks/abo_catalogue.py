"""How fast a product archive is read, and in how much memory: listings of a catalogue's size in the archive's own layout.

    python benchmarks/abo_catalogue.py --output abo_catalogue.json                               # two minutes, 0.15 GB of disk
    python benchmarks/abo_catalogue.py --listings 2000 --images 5000 --output /tmp/abo_catalogue.json        # seconds

Writes 16 gzipped files of listings, half of them in other languages than English, and the table of their pictures, into a
temporary folder; no pictures. A process of its own, which only reads, then goes through them `--repeats` times: the best
time, from the first file opened to the last product, with unpacking and JSON, and the time of the processor, which is less
where others use it too. Peak memory is that of this whole process.
"""

import argparse
import csv
import gzip
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

FILES = 16
OTHER_LANGUAGES = ("de_DE", "es_MX", "nl_NL", "fr_FR", "it_IT", "ja_JP", "tr_TR", "pt_BR", "zh_CN")
ENGLISH = ("en_US", "en_US", "en_IN", "en_GB", "en_AE", "en_SG", "en_CA", "en_AU")
COLORS = ("Black", "White", "Multicolor", "Weiß", "Rouge Foncé", "Navy Blue", "Pack of 4", "Walnut")
LETTERS = "abcdefghijklmnopqrstuvwxyz" * 3 + "éüß’–"
PICTURES_A_LISTING = 4  # besides the main one, at most


def write_archive(folder: Path, listings: int, images: int, seed: int = 0) -> None:
    """`listings` lines of 2 to 6 KB, which gzip packs as well as those of the archive, and `images` rows of its table."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 11))) for _ in range(4000)]
    common = [1 / rank for rank in range(1, len(words) + 1)]  # as in any text, few words make up most of it
    sentences = [" ".join(draw.choices(words, common, k=draw.randint(8, 30))).capitalize() for _ in range(5000)]
    ids = [f"{number:x}{draw.getrandbits(40):010x}"[-11:] for number in range(images)]
    table = folder / "images/metadata/images.csv.gz"
    table.parent.mkdir(parents=True)
    (folder / "images/small/00").mkdir(parents=True)
    with gzip.open(table, "wt", compresslevel=6, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_id", "height", "width", "path"))
        for number, image_id in enumerate(ids):
            name = f"{number * 2_654_435_761 % 2**32:08x}"  # scattered over the folders, as the archive's are
            writer.writerow((image_id, draw.randint(100, 3000), draw.randint(100, 3000), f"{name[:2]}/{name}.jpg"))
    metadata = folder / "listings/metadata"
    metadata.mkdir(parents=True)
    for file_number in range(FILES):
        with gzip.open(metadata / f"listings_{file_number:x}.json.gz", "wb", compresslevel=6) as file:
            for number in range(file_number, listings, FILES):
                file.write(json.dumps(_listing(draw, number, ids, words, sentences)).encode() + b"\n")


def _listing(draw: random.Random, number: int, ids: list[str], words: list[str], sentences: list[str]) -> dict:
    language = draw.choice(ENGLISH if draw.random() < 0.5 else OTHER_LANGUAGES)
    topic = draw.choices(words, k=6)  # its keywords repeat each other

    def texts(values: list[str], language: str = language) -> list[dict]:
        return [{"language_tag": language, "value": value} for value in values]

    def phrases(count: int) -> list[str]:
        return [" ".join(draw.choices(topic, k=draw.randint(1, 3))) for _ in range(count)]

    size = {"unit": "inches", "value": draw.randint(1, 90) / 4}
    size = {"normalized_value": size, **size}
    color = draw.choice(COLORS)
    also = texts(draw.choices(sentences), draw.choice(OTHER_LANGUAGES)) if draw.random() < 0.3 else []
    return {
        "item_dimensions": {"height": size, "length": size, "width": size},
        "brand": texts(topic[:1]),
        "bullet_point": texts(draw.choices(sentences, k=draw.randint(2, 6))),
        "color": [{"language_tag": language, "standardized_values": [color], "value": color}],
        "item_id": f"B{number:09d}",
        "item_name": also + texts(draw.choices(sentences)),
        "item_weight": [size],
        "material": texts(phrases(draw.randint(0, 2))),
        "model_number": [{"value": f"AB-{number}"}],
        "product_type": [{"value": draw.choice(("CELLULAR_PHONE_CASE", "CHAIR", "SHOES", "HARDWARE"))}],
        "style": texts(phrases(1)),
        "main_image_id": draw.choice(ids),
        "other_image_id": draw.choices(ids, k=draw.randint(0, PICTURES_A_LISTING)),
        "item_keywords": texts(phrases(draw.randint(5, 50))),
        "country": language[-2:],
        "marketplace": "Amazon",
        "domain_name": "amazon.com",
        "node": [{"node_id": draw.getrandbits(33), "node_name": "/".join(["", "Categories", *phrases(2)])}],
    }


def read(folder: Path, repeats: int) -> dict:
    """Go through the archive: seconds of each pass, what was counted, and peak memory of this process in bytes."""
    from blip2vqa.generate.catalogue.abo import read_products
    from blip2vqa.generate.catalogue.abo_layout import find_archive

    times, processor = [], []
    for _ in range(repeats):
        counts, pictures = Counter(), 0
        start, used = time.perf_counter(), time.process_time()
        for product in read_products(find_archive(folder), counts):
            pictures += len(product.images)
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    # Not getrusage: its peak is passed on from the process that started this one.
    peak = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return {
        "times": times,
        "cpu": processor,
        "counts": dict(counts),
        "pictures": pictures,
        "peak_memory_bytes": int(peak[1]) * 1024,
    }


def measure(args, folder: Path) -> dict:
    """All figures of the JSON file; times in seconds, memory in bytes."""
    import torch

    from measuring import circumstances

    start = time.perf_counter()
    write_archive(folder, args.listings, args.images)
    written = time.perf_counter() - start
    files = sorted((folder / "listings/metadata").iterdir())
    size = sum(_unpacked_bytes(path) for path in files)
    command = [sys.executable, __file__, "--read", str(folder), "--repeats", str(args.repeats)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds = min(result["times"])
    return {
        "listings": args.listings, "images": args.images, "files": FILES, "repeats": args.repeats,
        "command": f"python {' '.join(sys.argv)}", **circumstances(torch.device("cpu")),
        "packed_bytes": sum(path.stat().st_size for path in files), "bytes_per_listing": size / args.listings,
        "write_seconds": written, "seconds": seconds, "all_seconds": result["times"],
        "cpu_seconds": min(result["cpu"]),
        "listings_per_second": args.listings / seconds, "counts": result["counts"], "pictures": result["pictures"],
        "peak_memory_bytes": result["peak_memory_bytes"],
    }  # fmt: skip


def _unpacked_bytes(path: Path) -> int:
    with gzip.open(path) as file:
        return sum(map(len, file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=150_000)
    parser.add_argument("--images", type=int, default=398_000, help="rows of the table of pictures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the archive is written; default: a temporary folder")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # the process that only reads
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, args.repeats)))
        return
    if not args.output:
        parser.error("the following arguments are required: --output")
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = measure(args, Path(folder))
    print(
        f"{result['listings']:,} listings of {result['bytes_per_listing']:.0f} bytes and {result['images']:,} pictures: "
        f"{result['seconds']:.1f} s ({result['cpu_seconds']:.1f} s of the processor), "
        f"{result['listings_per_second']:,.0f} listings a second, peak memory "
        f"{result['peak_memory_bytes'] / 2**20:.0f} MiB"
    )
    print(", ".join(f"{count:,} {name}" for name, count in result["counts"].items()))
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

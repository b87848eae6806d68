"""Adapters of real size through the exchange's operations: seconds and peak memory of each.

    python benchmarks/exchange.py --output exchange.json
    python benchmarks/exchange.py --only merge --output exchange.json

Adapters are of opt-2.7b's size (32 layers, hidden 2560, feed-forward 10240), every role, rank 16, with random weights, and so
is the base that they are checked against (7.5 GB in bfloat16); all in a temporary folder. Each operation runs in a process of
its own, from the files to the files; its time begins after the imports, and its memory counts all that the process holds. No
download.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from peft import LoraConfig
from rich.console import Console
from rich.table import Table

from blip2vqa.adapters.base.checkpoints import upstream_class, write_tensors
from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.files.adapter import PREFIX, save_adapter
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage.archive import export, import_adapter
from blip2vqa.adapters.storage.local import add, list_store
from blip2vqa.exchange.checking import check
from blip2vqa.exchange.inspecting import inspect
from blip2vqa.exchange.merging import merge, resize
from blip2vqa.utils.memory import peak_memory, reset_peak_memory
from measuring import circumstances
from shapes import configuration

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "tiny-blip2-opt"
LAYERS, HIDDEN, FEED_FORWARD, RANK = 32, 2560, 10240, 16
SHAPES = {  # module → (out, in)
    **{f"self_attn.{name}": (HIDDEN, HIDDEN) for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    "fc1": (FEED_FORWARD, HIDDEN),
    "fc2": (HIDDEN, FEED_FORWARD),
}

# Operation → what it does with a folder that holds the adapters `a` and `b`. Another one is another line.
OPERATIONS: dict[str, Callable[[Path], object]] = {
    "open": lambda folder: open_adapter(folder / "a"),
    "list of two": lambda folder: list_store(folder),
    "fingerprints of the base, anew": lambda folder: _fingerprint_anew(folder / "base"),
    "check, the base's fingerprints known": lambda folder: check(str(folder / "a"), str(folder / "base"), quick=True),
    "add to a store": lambda folder: add(folder / "a", "a", folder / "store"),
    "export": lambda folder: export(open_adapter(folder / "a"), folder / "a.zip"),
    "import": lambda folder: import_adapter(folder / "a.zip", "again", folder / "store"),
    "inspect": lambda folder: inspect(folder / "a"),
    "merge": lambda folder: merge(_both(folder), folder / "merge"),
    "merge to rank 16": lambda folder: merge(_both(folder), folder / "merge16", rank=16),
    "merge by concatenation": lambda folder: merge(_both(folder), folder / "cat", method="cat"),
    "resize to rank 8": lambda folder: resize(str(folder / "a"), folder / "resize", rank=8),
}
SLOW: dict[str, Callable[[Path], object]] = {  # on the entries of ΔW; only when asked for
    "ties": lambda folder: merge(_both(folder), folder / "ties", method="ties"),
    "dare": lambda folder: merge(_both(folder), folder / "dare", method="dare"),
}


def _fingerprint_anew(base: Path) -> None:
    (base / "model.safetensors").touch()  # what is known of the files as they were counts no more
    fingerprint_base(str(base))


def _both(folder: Path) -> dict[str, float]:
    return {str(folder / "a"): 0.7, str(folder / "b"): 0.3}


def write_adapter(folder: Path, seed: int, layers: int, base: dict) -> int:
    """An adapter of random weights, none of which does nothing, for a base with these fingerprints → its bytes."""
    generator = torch.Generator().manual_seed(seed)
    weights, modules = {}, []
    for layer in range(layers):
        for name, (out, width) in SHAPES.items():
            modules.append(f"language_model.model.decoder.layers.{layer}.{name}")
            key = f"{PREFIX}{modules[-1]}.lora_"
            weights[f"{key}A.weight"] = torch.randn(RANK, width, generator=generator) * width**-0.5
            weights[f"{key}B.weight"] = torch.randn(out, RANK, generator=generator) * 0.01
    where = str(folder.parent / "base")
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=modules, base_model_name_or_path=where)
    manifest = {"task": "vqa", "family": "BLIP-2 with OPT", "base_model_id": where, "rank": RANK} | (
        {"base": base} if base else {}
    )
    save_adapter(folder, config, weights, manifest)
    return sum(weight.nbytes for weight in weights.values())


def write_base(folder: Path, layers: int) -> None:
    """A base of random weights in the Hub's layout, one tensor at a time; tokenizer and processor are the embedded base's."""
    config = configuration("blip2-opt-2.7b")
    config.text_config.num_hidden_layers = layers
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config.architectures = ["Blip2ForConditionalGeneration"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in upstream_class(config)(config).named_parameters()}
    block = torch.randn(2**20, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16) * 0.02

    def read(name: str) -> torch.Tensor:
        count = torch.Size(shapes[name]).numel()
        return block.repeat(-(-count // len(block)))[:count].view(shapes[name])

    stored = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
    write_tensors(folder / "model.safetensors", stored, read)


def measure(operation: str, folder: Path) -> dict:
    """One operation in this process."""
    reset_peak_memory()
    began = time.perf_counter()
    ({**OPERATIONS, **SLOW})[operation](folder)
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_memory()}


def measure_apart(operation: str, folder: Path) -> dict:
    """One operation in a process of its own."""
    command = [sys.executable, __file__, "--measure", operation, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_table(result: dict) -> None:
    table = Table(title=f"{result['modules']} modules of rank {RANK}, {result['bytes'] / 1e6:.0f} MB")
    for name in ("operation", "seconds", "peak memory, GB"):
        table.add_column(name, justify="left" if name == "operation" else "right")
    for operation, row in result["operations"].items():
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}"
        table.add_row(operation, f"{row['seconds']:.2f}", peak)
    Console(highlight=False).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*OPERATIONS, *SLOW], help="default: all but the slow ones")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the language model")
    parser.add_argument("--folder", type=Path, help="where adapters are written; default: a temporary folder")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", choices=[*OPERATIONS, *SLOW], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder)))
        return
    if args.output is None:
        parser.error("--output: name a JSON file")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        base, asked = {}, args.only or OPERATIONS
        if any("base" in name for name in asked):
            write_base(Path(folder) / "base", args.layers)
            base = fingerprint_base(str(Path(folder) / "base"), progress=True)
        sizes = [write_adapter(Path(folder) / name, seed, args.layers, base) for seed, name in enumerate("ab")]
        result = {
            "command": f"python {' '.join(sys.argv)}",
            **circumstances(torch.device("cpu")),
            "layers": args.layers, "modules": args.layers * len(SHAPES), "rank": RANK, "bytes": sizes[0],
            "operations": {name: measure_apart(name, Path(folder)) for name in asked},
        }  # fmt: skip
    print_table(result)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

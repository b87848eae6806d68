"""A hundred adapters beside one base: how fast mixed batches are answered, within a limit to the adapters' memory.

    python benchmarks/many_adapters.py --output many_adapters.json                           # opt-2.7b's size, 5 GB of disk
    python benchmarks/many_adapters.py --shape tiny --adapters 20 --memory_gb 0.0003 --output /tmp/many.json   # seconds

Base and adapters have random weights; adapters of rank 16 on every role of the language model are written to a folder, in
`--dtype`, and opened as any other, checks included. Batches of `--batch_size` questions are answered one after the other, of
pictures whose features are there: by the base, by one adapter, by `--adapters_per_batch` of them in each batch where all that
take turns stay in memory, and by all of them in turn, where every batch brings its adapters from disk (the worst there is for
a limit that they do not fit in). All make `--answer_tokens` new tokens. One run of each after a batch to warm up. No download.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.adapters.files.adapter import PREFIX, save_adapter
from blip2vqa.adapters.lora import modules_to_adapt
from blip2vqa.adapters.multi import Adapters
from blip2vqa.adapters.ref import BASE, CURRENT, AdapterRef
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.config.roles import ROLES
from blip2vqa.features.encode import InMemoryFeatures
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.request import AnswerRequest, Decoding, use_adapters
from blip2vqa.models.families import family_of
from blip2vqa.models.family import leave_out
from blip2vqa.models.loading import LoadedModel, find_device, suit_generation
from blip2vqa.utils.memory import peak_memory, reset_peak_memory
from measuring import circumstances, free_unused, seconds, synchronize
from shapes import SHAPES, Question, RandomTokens, build, configuration, text_encoder

WAYS = ("base", "one", "held", "all")


def write_adapters(loaded: LoadedModel, args, folder: Path) -> int:
    """`--adapters` of them, named by number → the bytes of one."""
    roles = [role for role in ROLES if role in loaded.family.roles("language_model")]
    found = modules_to_adapt(loaded.base, loaded.family, tuple(roles), ("language_model",))
    layers = {name: loaded.base.get_submodule(name) for names in found.values() for name in names}
    sizes = {}
    for name, layer in layers.items():
        sizes[f"{PREFIX}{name}.lora_A.weight"] = (args.rank, layer.in_features)
        sizes[f"{PREFIX}{name}.lora_B.weight"] = (layer.out_features, args.rank)
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=list(layers))
    need = args.adapters * sum(rows * columns for rows, columns in sizes.values()) * getattr(torch, args.dtype).itemsize
    free = shutil.disk_usage(folder).free
    if need > 0.8 * free:
        raise SystemExit(
            f"{need / 1e9:.1f} GB of adapters, and {free / 1e9:.1f} GB are free in {folder}; name another --folder"
        )
    torch.manual_seed(0)
    weights = {
        key: torch.empty(size, dtype=getattr(torch, args.dtype)).normal_(0.0, 0.02) for key, size in sizes.items()
    }
    for number in range(args.adapters):
        for tensor in weights.values():
            tensor.view(-1)[:1000].normal_(0.0, 0.02)  # no two alike, and much faster than drawn anew
        save_adapter(folder / str(number), config, weights, {})
    return need // args.adapters


def serve(loaded: LoadedModel, text, features: InMemoryFeatures, args, batches: Sequence[Sequence[AdapterRef]]) -> None:
    """Answer batches one after the other; each holds the adapters of its rows."""
    for refs in batches:
        questions = [Question(f"{row}", str(row % args.images)) for row in range(len(refs))]
        requests = [AnswerRequest(text, Decoding(1, args.answer_tokens), adapter=ref) for ref in refs]
        for _ in answer_by_batch(loaded, features, questions, requests, batch_size=args.batch_size):
            pass


def batches_of(refs: Sequence[AdapterRef], args) -> list[list[AdapterRef]]:
    """`--batches` of them, `--adapters_per_batch` of `refs` in each, which take turns."""
    turns = [refs[turn % len(refs)] for turn in range(args.batches * args.adapters_per_batch)]
    starts = range(0, len(turns), args.adapters_per_batch)
    groups = [turns[start : start + args.adapters_per_batch] for start in starts]
    return [[group[row % len(group)] for row in range(args.batch_size)] for group in groups]


def measure(args, folder: Path, device: torch.device) -> dict:
    """All figures of the JSON file; times in seconds, memory in bytes."""
    config = configuration(args.shape)
    base = build(config, getattr(torch, args.dtype), device)
    loaded = LoadedModel(
        base, None, family_of(config), args.shape, None, device, getattr(torch, args.dtype), "none", []
    )
    suit_generation(base.language_model)
    size = write_adapters(loaded, args, folder)
    stage, _ = loaded.family.last_frozen_stage(("language_model",))
    leave_out(base, loaded.family.absent(loaded.family.rest(stage)))
    shape = loaded.family.stage(stage).shape(config)
    features = InMemoryFeatures(
        stage, {str(image): torch.randn(shape).to(loaded.dtype) for image in range(args.images)}
    )
    text = text_encoder(config, RandomTokens(args.prompt_tokens, args.answer_tokens), config.text_config.vocab_size)

    serve(loaded, text, features, args, [[CURRENT] * args.batch_size])  # the warm-up
    free_unused()
    reset_peak_memory()
    serve(loaded, text, features, args, [[CURRENT] * args.batch_size])
    before = peak_memory()
    adapters = loaded.adapters = Adapters(loaded, args.memory_gb)
    refs = [AdapterRef.named(str(number)) for number in range(args.adapters)]
    opening = seconds(lambda: [adapters.add(ref, open_adapter(folder / ref.name)) for ref in refs], device)

    def load(ref: AdapterRef) -> None:
        with use_adapters(loaded, [ref]):
            synchronize(device)

    loading = [seconds(lambda ref=ref: load(ref), device) for ref in refs[:3]]
    held = refs[: max(1, min(args.adapters, adapters.limit * 3 // adapters.nbytes))]  # as many as fit
    asked = {
        "base": [[BASE] * args.batch_size] * args.batches,
        "one": [[refs[0]] * args.batch_size] * args.batches,
        "held": batches_of(held, args),
        "all": batches_of(refs, args),
    }
    free_unused()
    reset_peak_memory()
    rates = {}
    for way in WAYS:
        if way == "held":
            for ref in held:
                load(ref)
        taken = seconds(lambda way=way: serve(loaded, text, features, args, asked[way]), device)
        rates[way] = args.batches * args.batch_size / taken
    given = {name: value for name, value in vars(args).items() if name not in ("output", "folder")}
    return {
        **given, "command": f"python {' '.join(sys.argv)}", **circumstances(device), "adapter_bytes": size,
        "open_seconds_each": opening / args.adapters, "load_seconds_each": min(loading), "adapters_that_fit": len(held),
        "held_bytes": adapters.nbytes, "questions_per_second": rates,
        "share_of_one": {way: rates[way] / rates["one"] for way in WAYS},
        "peak_memory_bytes": {"base": before, "adapters": peak_memory()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="blip2-opt-2.7b", choices=SHAPES)
    parser.add_argument("--adapters", type=int, default=100)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--memory_gb", type=float, default=1.0, help="what adapters may take of memory")
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--adapters_per_batch", type=int, default=4)
    parser.add_argument("--images", type=int, default=8, help="pictures that are asked about")
    parser.add_argument("--prompt_tokens", type=int, default=20)
    parser.add_argument("--answer_tokens", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--folder", type=Path, help="where adapters are written; default: a temporary folder")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = measure(args, Path(folder), find_device())
    rates, shares, memory = result["questions_per_second"], result["share_of_one"], result["peak_memory_bytes"]
    print(
        f"{args.adapters} adapters of {result['adapter_bytes'] / 1e6:.3g} MB, {result['adapters_that_fit']} fit in memory"
    )
    print(
        f"opened and checked in {result['open_seconds_each']:.3f} s each, loaded in {result['load_seconds_each']:.3f} s"
    )
    labels = ("the base alone", "one adapter", "mixed, all in memory", f"mixed, {args.adapters} in turn from disk")
    for way, label in zip(WAYS, labels, strict=True):
        print(f"{label}: {rates[way]:.3g} questions a second, {shares[way]:.2f} of one adapter's")
    if memory["base"]:
        print(
            f"peak memory {memory['base'] / 2**30:.2f} GiB without adapters, {memory['adapters'] / 2**30:.2f} GiB with them"
        )
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

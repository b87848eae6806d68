"""What moved, merged and resized adapters are worth: scores on the held-out drawings, with the embedded bases.

    python benchmarks/exchange_scores.py --folder runs/exchange --output docs/measurements/exchange-scores.json

Makes two more bases of the embedded OPT one, each by fine-tuning a part of it and fusing that in: `eyes`, another Q-Former and
projection under the same language model, as blip2-opt-2.7b-coco has; `tongue`, the same eyes and another language model. Takes
about twenty minutes on one thread; what is in the folder is not made again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT / "assets" / "drawings"
OPT, T5 = ROOT / "assets" / "tiny-blip2-opt", ROOT / "assets" / "tiny-blip2-flan-t5"
TABLE = ["--eval_csv_path", SCENES / "val.csv", "--image_dir", SCENES / "images"]
QUICK = ["--bertscore_model", "none", "--disable_tqdm", "true"]
T5_RATE = {"epochs": 9, "learning_rate": 0.004, "batch_size": 32, "warmup_steps": 0.05, "lora_dropout": 0.0}


def run(*words) -> str:
    """A command of the project; what it printed."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def make(folder: Path, *words, output: str = "--output") -> Path:
    """What a command writes into a folder, unless it is there."""
    if not folder.exists():
        print(folder.name, flush=True)
        run(*words, output, folder)
    return folder


def tune(folder: Path, *words) -> Path:
    return make(folder, "finetune.py", ROOT / "configs" / "drawings.json", *QUICK, *words, output="--output_dir")


def other_base(folder: Path, scope: str, rate: float) -> Path:
    """The embedded OPT base with a part of it fine-tuned on captions."""
    adapter = make(
        folder / f"{scope.split(',')[0]}-adapter", "finetune.py", "--task", "caption", "--base_model_id", OPT, "--image_dir",
        SCENES / "images", "--csv_path", SCENES / "captions_train.csv", "--eval_csv_path", SCENES / "captions_val.csv",
        "--lora_scope", scope, "--lora_r", 8, "--epochs", 2, "--batch_size", 16, "--learning_rate", rate, "--dtype", "float32",
        "--eval_strategy", "no", *QUICK, output="--output_dir",
    )  # fmt: skip
    return make(folder / f"{scope.split(',')[0]}-base", "exchange.py", "fuse", adapter)


def move(folder: Path, source: Path, target: Path, direct: Path, *words) -> dict:
    """A measured transfer."""
    asked = ["exchange.py", "transfer", source, target, *TABLE, "--direct", direct, "--dtype", "float32", "--json"]
    make(folder, *asked, *words)
    manifest = json.loads((folder / "blip2vqa.json").read_text())["origin"]
    measured = json.loads((folder / "transfer.json").read_text())
    rows = {row["name"]: row["accuracy"] for row in measured["systems"]}
    intervals = {row["name"]: row["interval"] for row in measured["systems"]}
    return {
        "method": manifest["method"], "state": manifest["state"], "accuracy": rows, "intervals": intervals,
        "gain": measured["gain"],
    }  # fmt: skip


def score(adapter: Path, folder: Path) -> dict:
    """Accuracy of an adapter on the held-out scenes, by type of question."""
    output = folder / f"answers-{adapter.name}.csv"
    if not output.exists():
        run("inference.py", "--lora_model_path", adapter, "--csv_path", SCENES / "val.csv", "--image_dir", SCENES / "images",
            "--output_path", output, "--batch_size", 64, "--bertscore_model", "none", "--dtype", "float32")  # fmt: skip
    found = json.loads(output.with_suffix(".metrics.json").read_text())["adapter"]
    return {"accuracy": found["accuracy"]} | {
        kind: cell["accuracy"] for kind, cell in found["by_question_type"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "exchange")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t5.json").write_text(json.dumps(T5_RATE))
    (folder / "opt.json").write_text(json.dumps(T5_RATE | {"learning_rate": 0.002, "tokens_per_row": 0}))
    source = tune(folder / "source")
    eyes, tongue = other_base(folder, "qformer,projection", 1e-3), other_base(folder, "language_model", 1e-3)
    direct = {base.name: tune(folder / f"direct-{base.name}", "--base_model_id", base) for base in (eyes, tongue)}
    direct_t5 = tune(folder / "direct-t5", "--base_model_id", T5, "--learning_rate", T5_RATE["learning_rate"])
    teach_opt = ["--csv_path", SCENES / "train.csv", "--finetune", folder / "opt.json"]
    teach = ["--csv_path", SCENES / "train.csv", "--finetune", folder / "t5.json"]
    moves = {
        "exact, to other eyes": move(folder / "to-eyes", source, eyes, direct[eyes.name]),
        "copy, to another language model": move(
            folder / "to-tongue", source, tongue, direct[tongue.name], "--method", "copy"
        ),
        "subspace, to another language model": move(
            folder / "to-tongue-subspace", source, tongue, direct[tongue.name], "--method", "subspace"
        ),
        "distil, to another language model": move(
            folder / "to-tongue-distil", source, tongue, direct[tongue.name], "--method", "distil", *teach_opt
        ),
        "distil, to FLAN-T5": move(folder / "to-t5", source, T5, direct_t5, *teach),
    }
    count, color = (tune(folder / kind, "--question_types", kind, "--max_steps", 200) for kind in ("count", "color"))
    merged = {
        name: make(folder / f"merged-{name}", "exchange.py", "merge", f"{count}={weight}", f"{color}={weight}", *words)
        for name, weight, words in (
            ("half", 0.5, []), ("sum", 1, []), ("ties", 1, ["--method", "ties"]), ("dare", 1, ["--method", "dare"]),
        )
    }  # fmt: skip
    sized = [make(folder / f"rank-{rank}", "exchange.py", "resize", source, "--rank", rank) for rank in (8, 4, 2, 1)]
    result = {
        "moves": moves,
        "merges": {path.name: score(path, folder) for path in (count, color, *merged.values())},
        "resizes": {path.name: score(path, folder) for path in (source, *sized)},
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

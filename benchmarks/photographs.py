"""What the photo base is worth on other people's questions about photographs, beside systems that see less or know less.

    python benchmarks/photographs.py --abo_vqa FOLDER --abo_photos FOLDER --folder runs/photographs \\
        --output docs/measurements/photographs.json

`--abo_vqa` holds images/, train.csv and val.csv; `--abo_photos` tar files of photographs and questions.csv. The parts `abo`,
`more` and `generated` train an adapter by `finetune.py configs/abo.json`, ask it by `inference.py` about the right pictures and
about others, and compare it with the base, the most common answers, a classifier of the question's words, and itself about the
other pictures; intervals are those of `inference.py --systems`. What is in the folder is not made again.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "assets"))

from photo_base.teacher import clean_name

from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.blind import BlindBaseline
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.utils.files import write_json_atomic

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "assets" / "photo-blip2-opt"
PARTS = ("quickstart", "abo", "more", "count", "color", "captions", "generated", "moved")
STYLES = ("concise", "detailed", "creative")
TASKS = {"count": "configs/tasks/counting.json", "color": "configs/tasks/color.json"}
QUIET = ["--disable_tqdm", "true"]
SHARED_ROWS = ["--tokens_per_row", "512"]
"""For the larger tables: all questions of an image in one row."""


def run(*words, **variables: str) -> float:
    """Run a command of the project, with more variables of the environment; returns its seconds."""
    begun, command = time.time(), [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return time.time() - begun


def read(path: Path) -> pd.DataFrame:
    """Read a table as texts."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def examples_of(table: pd.DataFrame, types: list[str] | None = None) -> list[Example]:
    """Make examples of a table's rows, without pictures."""
    kinds = types or [""] * len(table)
    rows = zip(table["image_name"], table["question"], table["answer"], kinds, strict=True)
    return [
        Example(row, None, name, "", question, (answer,), kind, {})
        for row, (name, question, answer, kind) in enumerate(rows)
    ]


def answer_from_words(train: pd.DataFrame, asked: pd.DataFrame) -> list[str]:
    """Answer questions by a classifier that reads their words, and pairs and triples of them, and sees no picture."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = CountVectorizer(ngram_range=(1, 3), token_pattern=r"\S+", binary=True, min_df=2)
    model = make_pipeline(words, LogisticRegression(C=3, max_iter=300))
    kept = train[train.groupby("answer")["answer"].transform("size") >= 2]
    return model.fit(kept["question"], kept["answer"].map(normalize_answer)).predict(asked["question"]).tolist()


def other_pictures(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Ask every question about another picture of the table."""
    names = sorted(set(table["image_name"]))
    order = np.random.default_rng(seed).permutation(len(names))
    other = {names[order[place]]: names[order[place - 1]] for place in range(len(names))}
    return table.assign(image_name=table["image_name"].map(other))


def ask(folder: Path, name: str, table: pd.DataFrame, images: Path, adapter: Path) -> list[str]:
    """Ask an adapter about a table."""
    output = folder / f"{name}.csv"
    if not output.exists():
        table.drop(columns="answer").to_csv(folder / f"{name}-asked.csv", index=False)
        run(
            "inference.py", "--lora_model_path", adapter, "--image_dir", images, "--csv_path", folder / f"{name}-asked.csv",
            "--output_path", output, "--batch_size", 128,
        )  # fmt: skip
    return read(output)["generated_answer"].tolist()


def calibration_of(adapter: Path) -> dict:
    """Read how far an adapter's confidences, and its calibrated probabilities, are off."""
    return json.loads((adapter / "blip2vqa.json").read_text())["calibration"]


def measure_quickstart(folder: Path) -> dict:
    """Run the quick start, on one thread as `accelerate launch` does on a CPU."""
    adapter = folder / "adapter"
    if not (adapter / "metrics.json").exists():
        settings = ROOT / "configs/quickstart.json"
        seconds = run("finetune.py", settings, "--output_dir", adapter, *QUIET, OMP_NUM_THREADS="1")
        write_json_atomic(folder / "seconds.json", {"all": seconds})
    metrics = json.loads((adapter / "metrics.json").read_text())
    systems = {
        name: {"accuracy": found["accuracy"], "bertscore_f1": found.get("bertscore_f1")}
        | {"by_question_type": {kind: values["accuracy"] for kind, values in found["by_question_type"].items()}}
        for name, found in metrics.items()
    }
    return {
        "questions": metrics["adapter"]["n"], "systems": systems, "calibration": calibration_of(adapter),
        "seconds": json.loads((folder / "seconds.json").read_text())["all"],
    }  # fmt: skip


def measure(folder: Path, images: Path, train: Path, val: Path, *options: str) -> dict:
    """Train an adapter, with further options of finetune.py, and compare it with what sees less."""
    adapter = folder / "adapter"
    if not (adapter / "metrics.json").exists():
        seconds = run(
            "finetune.py", ROOT / "configs/abo.json", "--image_dir", images, "--csv_path", train, "--eval_csv_path", val,
            "--output_dir", adapter, *options, *QUIET,
        )  # fmt: skip
        write_json_atomic(folder / "seconds.json", {"all": seconds})
    predictions, table, asked = read(adapter / "predictions.csv"), read(train), read(val)
    examples = examples_of(asked, predictions["question_type"].tolist())
    assert predictions["question"].tolist() == asked["question"].tolist()
    answers = {
        "adapter": predictions["generated_answer"].tolist(),
        "base": predictions["base_answer"].tolist(),
        "other pictures": ask(folder, "swapped", other_pictures(asked), images, adapter),
        "question's words": answer_from_words(table, asked),
        "most common answer": BlindBaseline(examples_of(table)).predict(examples),
    }
    found = compare(examples, [SystemRun(name, said, "", None, "none", "") for name, said in answers.items()])
    systems = {
        row["name"]: {
            "accuracy": row["accuracy"], "interval": row["interval"],
            "by_question_type": {kind: values["accuracy"] for kind, values in row["by_question_type"].items()},
        }
        for row in found["systems"] if row["name"] in answers
    }  # fmt: skip
    counts = predictions["question_type"].value_counts().to_dict()
    return {
        "questions": len(asked), "images": found["images"], "trained_on": len(table), "by_type": counts,
        "seconds": json.loads((folder / "seconds.json").read_text())["all"], "systems": systems,
        "more": {row["b"]: row for row in found["differences"] if row["a"] == "adapter"},
        "calibration": calibration_of(adapter),
    }  # fmt: skip


def measure_specialist(folder: Path, general: Path, kind: str, images: Path, train: Path, val: Path) -> dict:
    """Train an adapter for one type of questions by its settings in configs/tasks/, and compare it with the general one."""
    adapter = folder / "adapter"
    if not (adapter / "metrics.json").exists():
        settings = json.loads((ROOT / "configs/abo.json").read_text()) | json.loads((ROOT / TASKS[kind]).read_text())
        write_json_atomic(folder / "settings.json", settings)
        run(
            "finetune.py", folder / "settings.json", "--base_model_id", BASE, "--image_dir", images, "--csv_path", train,
            "--eval_csv_path", val, "--output_dir", adapter, *QUIET,
        )  # fmt: skip
    special, whole = read(adapter / "predictions.csv"), read(general / "predictions.csv")
    whole = whole[whole["question_type"] == kind]
    assert special["question"].tolist() == whole["question"].tolist()
    answers = {"general": whole["generated_answer"].tolist(), "specialist": special["generated_answer"].tolist()}
    found = compare(examples_of(whole), [SystemRun(name, said, "", None, "none", "") for name, said in answers.items()])
    rows = {row["name"]: {"accuracy": row["accuracy"], "interval": row["interval"]} for row in found["systems"]}
    return {"questions": len(whole), "systems": rows, "more": found["differences"][0]}


def captions_of(metadata: pd.DataFrame, style: str) -> pd.DataFrame:
    """Make captions in a style of products' names; products of whose name less than two words are left have none."""
    words = metadata["name"].map(clean_name).str.split()
    texts = {
        "concise": words.str[-4:].str.join(" "),
        "detailed": "The photo shows " + words.str.join(" ") + ".",
        "creative": "Treat yourself to a lovely " + words.str[-5:].str.join(" ") + " today!",
    }
    captions = pd.DataFrame({"image_name": metadata["image_name"], "caption": texts[style]})
    return captions[words.str.len() >= 2]


def measure_style(folder: Path, style: str, images: Path, train: pd.DataFrame, val: pd.DataFrame) -> dict:
    """Train an adapter that writes captions in a style, and read its scores beside the blind caption's."""
    adapter = folder / style
    if not (adapter / "metrics.json").exists():
        for name, table in (("train", train), ("val", val)):
            captions_of(table, style).to_csv(folder / f"{style}-{name}.csv", index=False)
        run(
            "finetune.py", "--task", "caption", "--style", style, "--base_model_id", BASE, "--dtype", "float32",
            "--image_dir", images, "--csv_path", folder / f"{style}-train.csv", "--eval_csv_path",
            folder / f"{style}-val.csv", "--output_dir", adapter, "--batch_size", 64, "--epochs", 4,
            "--learning_rate", 1e-3, "--lora_dropout", 0, "--max_new_tokens", 30, "--num_beams", 1,
            "--bertscore_model", "none", *QUIET,
        )  # fmt: skip
    metrics = json.loads((adapter / "metrics.json").read_text())
    return {name: {"cider": found["cider"], "n": found["n"]} for name, found in metrics.items()}


def measure_generated(folder: Path, archive: Path) -> dict:
    """Make questions about an archive in ABO's layout by `generate_vqa.py`, and measure an adapter trained on them."""
    table = folder / "vqa.csv"
    if not table.exists():
        run("generate_vqa.py", "--abo_dir", archive, "--output_path", table, "--num_images", 0)
    images = archive / "images" / "small"
    return measure(folder, images, folder / "vqa.train.csv", folder / "vqa.test.csv", *SHARED_ROWS)


def measure_moved(folder: Path, quickstart: Path, target: Path) -> dict:
    """Move the quick start's adapter, of its folder, to a base with another picture side, exactly and by distillation."""
    measure_quickstart(quickstart)
    photos, direct = ROOT / "assets" / "photos", folder / "direct"
    if not (direct / "metrics.json").exists():
        run(
            "finetune.py", ROOT / "configs/quickstart.json", "--base_model_id", target, "--output_dir", direct, *QUIET,
            OMP_NUM_THREADS="1",
        )  # fmt: skip
    settings = json.loads((ROOT / "configs/quickstart.json").read_text())
    rates = ("batch_size", "epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "lora_dropout")
    write_json_atomic(folder / "settings.json", {name: settings[name] for name in rates})
    moves = {}
    for method in ("exact", "distil"):
        moved = folder / method
        if not (moved / "transfer.json").exists():
            run(
                "exchange.py", "transfer", quickstart / "adapter", target, "--method", method,
                "--csv_path", photos / "train.csv", "--eval_csv_path", photos / "val.csv",
                "--image_dir", photos / "images", "--direct", direct,
                "--dtype", "float32", "--batch_size", 128, "--output", moved,
                *(("--finetune", folder / "settings.json") if method == "distil" else ()),
            )  # fmt: skip
        measured = json.loads((moved / "transfer.json").read_text())
        systems = {
            row["name"]: {"accuracy": row["accuracy"], "interval": row["interval"]} for row in measured["systems"]
        }
        moves[method] = {"systems": systems, "gain": measured["gain"]}
    return moves


def with_more_questions(abo_vqa: Path, abo_photos: Path, folder: Path) -> tuple[Path, Path]:
    """Put the pictures and training questions of both folders together; returns the images' folder and the table."""
    images, table = folder / "images", folder / "train.csv"
    if not table.exists():
        images.mkdir(parents=True, exist_ok=True)
        more, own = read(abo_photos / "questions.csv"), read(abo_vqa / "train.csv")
        needed = set(more["image_name"])
        for archive in sorted(abo_photos.glob("*.tar")):
            with tarfile.open(archive) as tar:
                tar.extractall(images, [one for one in tar if one.name in needed], filter="data")
        for path in (abo_vqa / "images").iterdir():
            (images / path.name).write_bytes(path.read_bytes())
        pd.concat([own, more])[["image_name", "question", "answer"]].drop_duplicates().to_csv(table, index=False)
    return images, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--abo_vqa", type=Path, required=True)
    parser.add_argument("--abo_photos", type=Path, required=True)
    parser.add_argument("--archive", type=Path, help="in ABO's layout, for `generated`, which is left out without it")
    parser.add_argument(
        "--other_base", type=Path, help="of assets/new_picture_side.py, for `moved`, which is left out without it"
    )
    parser.add_argument("--folder", type=Path, required=True, help="for adapters and answers")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    data, work = arguments.abo_vqa.resolve(), arguments.folder.resolve()
    images, train, val = data / "images", data / "train.csv", data / "val.csv"
    metadata = read(data / "metadata.csv")
    held = metadata["image_name"].isin(read(val)["image_name"])
    general = work / "abo" / "adapter"
    measures = {
        "quickstart": measure_quickstart,
        "abo": lambda folder: measure(folder, images, train, val),
        "more": lambda folder: measure(
            folder, *with_more_questions(data, arguments.abo_photos, folder), val, "--epochs", "3", *SHARED_ROWS
        ),
        "count": lambda folder: measure_specialist(folder, general, "count", images, train, val),
        "color": lambda folder: measure_specialist(folder, general, "color", images, train, val),
        "captions": lambda folder: {
            style: measure_style(folder, style, images, metadata[~held], metadata[held]) for style in STYLES
        },
        "generated": arguments.archive and (lambda folder: measure_generated(folder, arguments.archive.resolve())),
        "moved": arguments.other_base
        and (lambda folder: measure_moved(folder, work / "quickstart", arguments.other_base.resolve())),
    }
    for part in arguments.only:
        if measures[part]:
            (work / part).mkdir(parents=True, exist_ok=True)
            results[part] = measures[part](work / part)
            write_json_atomic(arguments.output, results)
            print(part, json.dumps(results[part].get("systems", results[part]))[:600], flush=True)


if __name__ == "__main__":
    main()

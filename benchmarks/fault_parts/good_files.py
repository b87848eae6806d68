"""A good example of every kind of file that the package reads, made in a folder."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

ROWS = [
    {
        "question_id": number,
        "image_name": f"{number % 3}.png",
        "question": f"What is number {number}?",
        "answer": answer,
    }
    for number, answer in enumerate(("red", "two", "Yes", "a dark blue", "no", "5"))
]


def holding(**files: str | bytes) -> Callable[[Path, Path], None]:
    """Make files of these contents; `__` in a name is a dot."""

    def make(materials: Path, folder: Path) -> None:
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def copy(*names: str) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        for name in names:
            source = materials / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / source.name)

    return make


def csv_text(sep: str = ",") -> str:
    lines = [sep.join(map(str, row.values())) for row in ROWS]
    return "\n".join([sep.join(ROWS[0]), *lines]) + "\n"


def make_picture(name: str, **options) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        from PIL import Image

        Image.effect_noise((24, 16), 60).convert("RGB").save(folder / name, **options)

    return make


def make_scored(materials: Path, folder: Path) -> None:
    copy("adapters/one")(materials, folder)
    scores = {"adapter": {"accuracy": 0.5, "n": 10}, "blind": {"accuracy": 0.25, "n": 10}}
    (folder / "one" / "metrics.json").write_text(json.dumps(scores))


def make_pickle(materials: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    copy("adapters/one")(materials, folder)
    weights = folder / "one" / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "one" / "adapter_model.bin")
    weights.unlink()


def make_features(materials: Path, folder: Path) -> None:
    from blip2vqa.features.cache import FeatureStore
    from helpers.feature_stores import KEY, digests, values

    with FeatureStore(folder / "features", KEY).writer() as writer:
        writer.add(digests(4), values(digests(4)))


def make_partial(materials: Path, folder: Path) -> None:
    import pandas as pd

    from blip2vqa.data.prediction_table import PredictionsTable

    table = PredictionsTable(folder / "out.csv", pd.DataFrame(ROWS), {"model": "opt", "answers": {}})
    table.add({"row": row, "status": "ok", "answer": f"answer {row}", "confidence": 0.25 * row} for row in range(4))
    table.close()


def make_ledger(materials: Path, folder: Path) -> None:
    from blip2vqa.generate.ledger import Ledger

    with Ledger(folder / "vqa.responses.jsonl") as ledger:
        ledger.add({f"key{number}": {"said": f"red {number}", "tokens": [number, 50]} for number in range(5)})


def make_abo(materials: Path, folder: Path) -> None:
    from helpers.abo_archive import drawn_archive

    drawn_archive(folder / "abo", products=4, files=1)


def make_catalogue(materials: Path, folder: Path) -> None:
    copy("catalogue/table.csv", "catalogue/images")(materials, folder)


def words_of_run(folder: Path) -> list[str]:
    """Return the command line of the run that `_begun_run` goes on with; its folder is `folder/out`."""
    materials = next(path / "materials" for path in folder.parents if (path / "materials").is_dir())
    return [
        f"--base_model_id={materials}/opt", f"--image_dir={materials}/drawn/images", f"--csv_path={materials}/drawn/table.csv",
        "--output_dir=out", "--dtype=float32", "--quantization=none", "--disable_tqdm=true", "--use_cpu", "--epochs=2",
        "--bertscore_model=none", "--learning_rate=1e-2", "--warmup_steps=2", "--val_split=0.34", "--batch_size=8",
    ]  # fmt: skip


def make_begun_run(materials: Path, folder: Path) -> None:
    from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
    from blip2vqa.config.parser import parse
    from blip2vqa.training.recipe import finetune
    from blip2vqa.training.run import Run

    os.chdir(folder)
    parts, resolved = parse(FINETUNE_ARGUMENTS, "", words_of_run(folder))
    finetune(Run(*parts, resolved))
    for name in ("metrics.json", "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json"):
        (folder / "out" / name).unlink()


def make_dataset(materials: Path, folder: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")


def make_frame(method: str, name: str) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        import pandas as pd

        getattr(pd.DataFrame(ROWS), method)(folder / name, index=False)

    return make


ASKED = [
    {key: row[key] for key in ("question_id", "question")} | {"image_id": number} for number, row in enumerate(ROWS)
]


ANNOTATORS = [{"answer": "red", "answer_id": 1, "answer_confidence": "yes"}, {"answer": "dark red", "answer_id": 2}]


ANNOTATED = [
    {
        "question_id": row["question_id"],
        "image_id": number,
        "multiple_choice_answer": row["answer"],
        "answers": ANNOTATORS,
    }
    for number, row in enumerate(ROWS)
]


SAID = [{"question_id": row["question_id"], "answer": "red"} for row in ROWS]


JSONL = "".join(json.dumps(row | {"answers": ["red", "dark red"]}) + "\n" for row in ROWS)


STYLE = json.dumps({"prompt": "A short line:", "max_new_tokens": 12, "num_beams": 1, "learning_rate": 1e-4})


PREDICTED = "\n".join(["question_id,generated_answer", *(f"{row['question_id']},red" for row in ROWS)]) + "\n"


VIZWIZ = [
    {
        "image": f"{number % 3}.png",
        "question": row["question"],
        "answers": ANNOTATORS,
        "answer_type": "other",
        "answerable": 1,
    }
    for number, row in enumerate(ROWS)
]


TEXTVQA = {
    "dataset_type": "val", "data": [row | {"image_id": f"{number}", "answers": ["red"] * 10} for number, row in enumerate(ROWS)]
}  # fmt: skip


COCO = {
    "images": [{"id": number, "file_name": f"{number}.png"} for number in range(3)],
    "annotations": [{"id": number, "image_id": number, "caption": f"square {number}"} for number in range(3)],
}


KARPATHY = {
    "images": [
        {"filename": f"{number}.png", "split": "train", "sentences": [{"raw": f"square {number}"}]} for number in range(3)
    ]
}  # fmt: skip


def make_captioned(**files: str) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        copy("drawn/images")(materials, folder)
        holding(**files)(materials, folder)

    return make

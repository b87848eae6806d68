"""Whatever the package reads from files: a good example of each, and the function that reads it as the commands do."""

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fault_parts.mutations import BINARY, JSON, TABLE, TEXT, WEIGHTS, gzipped, one_of

ROWS = [
    {
        "question_id": number,
        "image_name": f"{number % 3}.png",
        "question": f"What is number {number}?",
        "answer": answer,
    }
    for number, answer in enumerate(("red", "two", "Yes", "a dark blue", "no", "5"))
]


@dataclass(frozen=True)
class Reader:
    """One kind of file."""

    make: Callable[[Path, Path], None]
    """Write good files to a folder, given the folder of materials."""
    read: Callable[[Path], object]
    """Read them, as an object whose `repr` says all that matters. It raises what the user is told."""
    damage: Mapping[str, Callable] = field(default_factory=dict)
    """Pattern of the files that are damaged → how."""
    noticed: bool = False
    """Whether a checksum tells every damage: then nothing else than what is right may be read."""


def _write(**files: str | bytes) -> Callable[[Path, Path], None]:
    """Make files of these contents; `__` in a name is a dot."""

    def make(materials: Path, folder: Path) -> None:
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def _copy(*names: str) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        for name in names:
            source = materials / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / source.name)

    return make


def _csv(sep: str = ",") -> str:
    lines = [sep.join(map(str, row.values())) for row in ROWS]
    return "\n".join([sep.join(ROWS[0]), *lines]) + "\n"


def _table(name: str, annotations: str | None = None) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from blip2vqa.data.tables import load_table
        from blip2vqa.utils.errors import raise_all

        beside = annotations and str(folder / annotations)
        table, problems = load_table(str(folder / name), beside, require_answers=True)
        raise_all(problems)
        return table.frame.to_dict("split"), table.answers, table.images and len(table.images)

    return read


def _captions(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from blip2vqa.data.captions import load_captions

        found, bad = load_captions(str(folder / name), str(folder / "images"), progress=False)
        return [(one.image_name, one.answers) for one in found], bad

    return read


def _predictions(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from blip2vqa.data.examples import load_questions
        from blip2vqa.data.predictions import read_predictions

        return read_predictions(folder / name, load_questions(str(folder / "table.csv")))

    return read


def _picture(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from blip2vqa.data.images import ImageSource, open_image

        return hash(open_image(ImageSource(name, path=folder / name)).tobytes())

    return read


def _make_picture(name: str, **options) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        from PIL import Image

        Image.effect_noise((24, 16), 60).convert("RGB").save(folder / name, **options)

    return make


def _adapter(folder: Path) -> object:
    from blip2vqa.adapters.resolve import open_adapter

    adapter = open_adapter(str(folder / "one"))
    return adapter.config, adapter.manifest, adapter.digest


def _archive(folder: Path) -> object:
    from blip2vqa.adapters.storage.archive import import_adapter

    found = import_adapter(folder / "one.zip", "one", folder / "store")
    return {path.name: hash(path.read_bytes()) for path in found.iterdir()}


def _store(folder: Path) -> object:
    from blip2vqa.adapters.storage.local import list_store

    return list_store(folder)


def _scored(materials: Path, folder: Path) -> None:
    _copy("adapters/one")(materials, folder)
    scores = {"adapter": {"accuracy": 0.5, "n": 10}, "blind": {"accuracy": 0.25, "n": 10}}
    (folder / "one" / "metrics.json").write_text(json.dumps(scores))


def _pickle(folder: Path) -> object:
    from blip2vqa.adapters.storage.local import add

    return hash(
        (add(folder / "one", "new", folder / "store", convert_pickle=True) / "adapter_model.safetensors").read_bytes()
    )


def _make_pickle(materials: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    _copy("adapters/one")(materials, folder)
    weights = folder / "one" / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "one" / "adapter_model.bin")
    weights.unlink()


def _base(folder: Path) -> object:
    from blip2vqa.models.loading import load_config, load_processor

    config = load_config(str(folder / "opt"))
    processor = load_processor(str(folder / "opt"), config)
    return config.to_dict(), processor.tokenizer("What is red?")["input_ids"], processor.image_processor.to_dict()


def _base_weights(folder: Path) -> object:
    from blip2vqa.adapters.base.fingerprints import fingerprint_base

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return fingerprint_base(str(folder / "opt"))


def _make_fingerprints(materials: Path, folder: Path) -> None:
    _copy("opt")(materials, folder)
    _base_weights(folder)


def _features(folder: Path) -> object:
    """Read what the store has of four pictures; those that it has not are computed again by whoever asks."""
    from blip2vqa.features.cache import FeatureStore
    from helpers.feature_stores import KEY, digests

    store = FeatureStore(folder / "features", KEY)
    missing = store.missing(digests(4))
    left = [digest for digest in digests(4) if digest not in missing]
    features = store.open(left) if left else None
    return {digest: features.of([digest]).float().tolist() for digest in left}


def _make_features(materials: Path, folder: Path) -> None:
    from blip2vqa.features.cache import FeatureStore
    from helpers.feature_stores import KEY, digests, values

    with FeatureStore(folder / "features", KEY).writer() as writer:
        writer.add(digests(4), values(digests(4)))


def _partial(folder: Path) -> object:
    import pandas as pd

    from blip2vqa.data.prediction_table import PredictionsTable

    table = PredictionsTable(folder / "out.csv", pd.DataFrame(ROWS), {"model": "opt", "answers": {}})
    done = sorted(table.done)
    table.add(
        {"row": row, "status": "ok", "answer": "new", "confidence": 0.5} for row in range(len(ROWS)) if row not in done
    )
    written = table.finish()
    return done, written.to_dict("list")


def _make_partial(materials: Path, folder: Path) -> None:
    import pandas as pd

    from blip2vqa.data.prediction_table import PredictionsTable

    table = PredictionsTable(folder / "out.csv", pd.DataFrame(ROWS), {"model": "opt", "answers": {}})
    table.add({"row": row, "status": "ok", "answer": f"answer {row}", "confidence": 0.25 * row} for row in range(4))
    table.close()


def _ledger(folder: Path) -> object:
    from blip2vqa.generate.ledger import Ledger

    with Ledger(folder / "vqa.responses.jsonl") as ledger:
        return ledger.records()


def _make_ledger(materials: Path, folder: Path) -> None:
    from blip2vqa.generate.ledger import Ledger

    with Ledger(folder / "vqa.responses.jsonl") as ledger:
        ledger.add({f"key{number}": {"said": f"red {number}", "tokens": [number, 50]} for number in range(5)})


def _abo(folder: Path) -> object:
    from blip2vqa.generate.catalogue.abo import read_products
    from blip2vqa.generate.catalogue.abo_layout import find_archive

    return list(read_products(find_archive(folder / "abo"), Counter()))


def _make_abo(materials: Path, folder: Path) -> None:
    from helpers.abo_archive import drawn_archive

    drawn_archive(folder / "abo", products=4, files=1)


def _catalogue(folder: Path) -> object:
    from blip2vqa.generate.catalogue.table_catalogue import read_table_products

    return list(read_table_products(folder / "table.csv", folder / "images", Counter()))


def _catalogue_files(materials: Path, folder: Path) -> None:
    _copy("catalogue/table.csv", "catalogue/images")(materials, folder)


def _options(name: str, arguments: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
        from blip2vqa.config.generate import VQA_ARGUMENTS
        from blip2vqa.config.parser import parse
        from blip2vqa.utils.errors import raise_all

        known = {"finetune": FINETUNE_ARGUMENTS, "generate": VQA_ARGUMENTS}[arguments]
        parts, resolved = parse(known, "", [str(folder / name)])
        raise_all([problem for part in parts for problem in part.check()])
        return resolved

    return read


def _style(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from blip2vqa.config.styles import read_style

        return read_style(str(folder / name))

    return read


def _systems(folder: Path) -> object:
    from blip2vqa.inference.systems import read_systems

    return read_systems(str(folder / "systems.json"))


def _answers(folder: Path) -> object:
    from blip2vqa.models.answer_lists import read_answers

    return read_answers(str(folder / "answers.txt"))


def _begun_run(folder: Path) -> object:
    """Find where a run that was stopped goes on, as finetune.py does."""
    from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
    from blip2vqa.config.parser import parse
    from blip2vqa.training.checks import check
    from blip2vqa.training.resume import checkpoint_to_resume
    from blip2vqa.training.run import Run

    parts, resolved = parse(FINETUNE_ARGUMENTS, "", [*_words_of_run(folder), "--resume_from_checkpoint", "true"])
    run = Run(*parts, resolved)
    return checkpoint_to_resume(run, check(run))


def _words_of_run(folder: Path) -> list[str]:
    """Return the command line of the run that `_begun_run` goes on with; its folder is `folder/out`."""
    materials = next(path / "materials" for path in folder.parents if (path / "materials").is_dir())
    return [
        f"--base_model_id={materials}/opt", f"--image_dir={materials}/drawn/images", f"--csv_path={materials}/drawn/table.csv",
        "--output_dir=out", "--dtype=float32", "--quantization=none", "--disable_tqdm=true", "--use_cpu", "--epochs=2",
        "--bertscore_model=none", "--learning_rate=1e-2", "--warmup_steps=2", "--val_split=0.34", "--batch_size=8",
    ]  # fmt: skip


def _make_begun_run(materials: Path, folder: Path) -> None:
    from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
    from blip2vqa.config.parser import parse
    from blip2vqa.training.recipe import finetune
    from blip2vqa.training.run import Run

    os.chdir(folder)
    parts, resolved = parse(FINETUNE_ARGUMENTS, "", _words_of_run(folder))
    finetune(Run(*parts, resolved))
    for name in ("metrics.json", "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json"):
        (folder / "out" / name).unlink()


def _scorer(folder: Path) -> object:
    from blip2vqa.evaluation.bertscore import bertscore_scorer

    scorer = bertscore_scorer(str(folder / "scorer"))
    scorer.check()
    return scorer.compute(predictions=["red", "blue one"], references=["red", "red"])["scores"]


def _make_dataset(materials: Path, folder: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")


def _make_frame(method: str, name: str) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        import pandas as pd

        getattr(pd.DataFrame(ROWS), method)(folder / name, index=False)

    return make


_asked = [
    {key: row[key] for key in ("question_id", "question")} | {"image_id": number} for number, row in enumerate(ROWS)
]
_ANSWERS = [{"answer": "red", "answer_id": 1, "answer_confidence": "yes"}, {"answer": "dark red", "answer_id": 2}]
_annotated = [
    {
        "question_id": row["question_id"],
        "image_id": number,
        "multiple_choice_answer": row["answer"],
        "answers": _ANSWERS,
    }
    for number, row in enumerate(ROWS)
]
_said = [{"question_id": row["question_id"], "answer": "red"} for row in ROWS]
_jsonl = "".join(json.dumps(row | {"answers": ["red", "dark red"]}) + "\n" for row in ROWS)
_style_text = json.dumps({"prompt": "A short line:", "max_new_tokens": 12, "num_beams": 1, "learning_rate": 1e-4})
_PREDICTED = "\n".join(["question_id,generated_answer", *(f"{row['question_id']},red" for row in ROWS)]) + "\n"
_VIZWIZ = [
    {
        "image": f"{number % 3}.png",
        "question": row["question"],
        "answers": _ANSWERS,
        "answer_type": "other",
        "answerable": 1,
    }
    for number, row in enumerate(ROWS)
]
_TEXTVQA = {
    "dataset_type": "val", "data": [row | {"image_id": f"{number}", "answers": ["red"] * 10} for number, row in enumerate(ROWS)]
}  # fmt: skip
_COCO = {
    "images": [{"id": number, "file_name": f"{number}.png"} for number in range(3)],
    "annotations": [{"id": number, "image_id": number, "caption": f"square {number}"} for number in range(3)],
}
_KARPATHY = {
    "images": [
        {"filename": f"{number}.png", "split": "train", "sentences": [{"raw": f"square {number}"}]} for number in range(3)
    ]
}  # fmt: skip


def _captioned(**files: str) -> Callable[[Path, Path], None]:
    def make(materials: Path, folder: Path) -> None:
        _copy("drawn/images")(materials, folder)
        _write(**files)(materials, folder)

    return make


READERS = {
    "csv": Reader(_write(t__csv=_csv()), _table("t.csv"), {"t.csv": TABLE}),
    "tsv": Reader(_write(t__tsv=_csv("\t")), _table("t.tsv"), {"t.tsv": TABLE}),
    "csv.gz": Reader(
        _write(t__csv__gz=gzip.compress(_csv().encode(), mtime=0)), _table("t.csv.gz"), {"t.csv.gz": gzipped(TABLE)}
    ),
    "json": Reader(_write(t__json=json.dumps(ROWS)), _table("t.json"), {"t.json": JSON}),
    "jsonl": Reader(_write(t__jsonl=_jsonl), _table("t.jsonl"), {"t.jsonl": JSON}),
    "jsonl.gz": Reader(
        _write(t__jsonl__gz=gzip.compress(_jsonl.encode(), mtime=0)), _table("t.jsonl.gz"), {"t.jsonl.gz": gzipped(JSON)}
    ),
    "official json": Reader(
        _write(q__json=json.dumps({"questions": _asked}), a__json=json.dumps({"annotations": _annotated})),
        _table("q.json", "a.json"), {"*.json": JSON},
    ),
    "vizwiz": Reader(_write(t__json=json.dumps(_VIZWIZ)), _table("t.json"), {"t.json": JSON}),
    "textvqa": Reader(_write(t__json=json.dumps(_TEXTVQA)), _table("t.json"), {"t.json": JSON}),
    "parquet": Reader(_make_frame("to_parquet", "t.parquet"), _table("t.parquet"), {"t.parquet": BINARY}),
    "datasets": Reader(_make_dataset, _table("saved"), {"saved/*.json": JSON, "saved/*.arrow": BINARY}),
    "captions": Reader(
        _captioned(t__csv='image_name,caption\n0.png,a square\n1.png,"[""one"", ""two""]"\n'),
        _captions("t.csv"), {"t.csv": TABLE},
    ),
    "coco captions": Reader(_captioned(t__json=json.dumps(_COCO)), _captions("t.json"), {"t.json": JSON}),
    "karpathy": Reader(_captioned(t__json=json.dumps(_KARPATHY)), _captions("t.json"), {"t.json": JSON}),
    "flickr": Reader(
        _captioned(t__txt="0.png#0\ta square\n0.png#1\tone square\n1.png#0\ta disc\n"), _captions("t.txt"), {"t.txt": TABLE}
    ),
    "png": Reader(_make_picture("p.png"), _picture("p.png"), {"p.png": BINARY}),
    "jpeg": Reader(_make_picture("p.jpg"), _picture("p.jpg"), {"p.jpg": BINARY}),
    "webp": Reader(_make_picture("p.webp"), _picture("p.webp"), {"p.webp": BINARY}),
    "tiff": Reader(_make_picture("p.tiff"), _picture("p.tiff"), {"p.tiff": BINARY}),
    "predictions csv": Reader(
        _write(table__csv=_csv(), p__csv=_PREDICTED), _predictions("p.csv"), {"p.csv": TABLE}
    ),
    "predictions json": Reader(
        _write(table__csv=_csv(), p__json=json.dumps(_said)), _predictions("p.json"), {"p.json": JSON}
    ),
    "answer list": Reader(_write(answers__txt="red\ngreen\nyes\n"), _answers, {"answers.txt": TEXT}),
    "style json": Reader(_write(mine__json=_style_text), _style("mine.json"), {"mine.json": JSON}),
    "style yaml": Reader(_write(mine__yaml="prompt: 'A line:'\nnum_beams: 1\n"), _style("mine.yaml"), {"mine.yaml": TEXT}),
    "systems": Reader(
        _write(systems__json=json.dumps([{"name": "a", "base_model_id": "opt"}, {"name": "b", "prompt": "{question} A:"}])),
        _systems, {"systems.json": JSON},
    ),
    "finetune options": Reader(
        _write(run__json=json.dumps({"epochs": 2, "learning_rate": 1e-3, "lora_r": 8, "report_to": ["none"], "use_cpu": True})),
        _options("run.json", "finetune"), {"run.json": JSON},
    ),
    "finetune yaml": Reader(
        _write(run__yaml="epochs: 2\nlearning_rate: 1e-3\nreport_to: [none]\nuse_cpu: true\n"),
        _options("run.yaml", "finetune"), {"run.yaml": TEXT},
    ),
    "generate options": Reader(
        _write(vqa__run__json=json.dumps({"csv_path": "t.csv", "image_dir": "i", "num_questions": 3})),
        _options("vqa.run.json", "generate"), {"vqa.run.json": JSON},
    ),
    "adapter config": Reader(_copy("adapters/one"), _adapter, {"one/adapter_config.json": JSON}),
    "manifest": Reader(_copy("adapters/one"), _adapter, {"one/blip2vqa.json": JSON}),
    "weights": Reader(_copy("adapters/one"), _adapter, {"one/*.safetensors": WEIGHTS}),
    "pickled weights": Reader(_make_pickle, _pickle, {"one/*.bin": BINARY}),
    "metrics": Reader(_scored, _store, {"one/metrics.json": JSON}),
    "archive": Reader(_copy("one.zip"), _archive, {"one.zip": BINARY}, noticed=True),
    "feature shard": Reader(_make_features, _features, {"features/*/*.safetensors": WEIGHTS}, noticed=True),
    "partial": Reader(_make_partial, _partial, {"*.partial": JSON}),
    "ledger": Reader(_make_ledger, _ledger, {"*.jsonl": JSON}),
    "begun run": Reader(
        _make_begun_run, _begun_run,
        {"out/*.json": JSON, "out/checkpoints/*/trainer_state.json": JSON},
    ),
    "abo listings": Reader(_make_abo, _abo, {"abo/listings/*/*.gz": gzipped(JSON)}),
    "abo pictures": Reader(_make_abo, _abo, {"abo/images/*/*.gz": gzipped(TABLE)}),
    "catalogue": Reader(_catalogue_files, _catalogue, {"table.csv": TABLE}),
    "base config": Reader(_copy("opt"), _base, {"opt/*.json": one_of(JSON, JSON, JSON, BINARY)}),
    "base weights": Reader(_copy("opt"), _base_weights, {"opt/*.safetensors": WEIGHTS}),
    "fingerprints": Reader(_make_fingerprints, _base_weights, {"cache/*/*/*.json": JSON}, noticed=True),
    "scorer": Reader(_copy("scorer"), _scorer, {"scorer/*.json": JSON, "scorer/*.safetensors": WEIGHTS}),
}  # fmt: skip

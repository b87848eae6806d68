"""Whatever the package reads from files: a good example of each, and the function that reads it as the commands do."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fault_parts.good_files import (
    ANNOTATED,
    ASKED,
    COCO,
    JSONL,
    KARPATHY,
    PREDICTED,
    ROWS,
    SAID,
    STYLE,
    TEXTVQA,
    VIZWIZ,
    copy,
    csv_text,
    holding,
    make_abo,
    make_begun_run,
    make_captioned,
    make_catalogue,
    make_dataset,
    make_features,
    make_frame,
    make_ledger,
    make_partial,
    make_pickle,
    make_picture,
    make_scored,
    words_of_run,
)
from fault_parts.mutations import BINARY, JSON, TABLE, TEXT, WEIGHTS, gzipped, one_of


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


def _pickle(folder: Path) -> object:
    from blip2vqa.adapters.storage.local import add

    return hash(
        (add(folder / "one", "new", folder / "store", convert_pickle=True) / "adapter_model.safetensors").read_bytes()
    )


def _base(folder: Path) -> object:
    from blip2vqa.models.loading import load_config, load_processor

    config = load_config(str(folder / "opt"))
    processor = load_processor(str(folder / "opt"), config)
    return config.to_dict(), processor.tokenizer("What is red?")["input_ids"], processor.image_processor.to_dict()


def _base_weights(folder: Path) -> object:
    from blip2vqa.adapters.base.fingerprints import fingerprint_base

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return fingerprint_base(str(folder / "opt"))


def _features(folder: Path) -> object:
    """Read what the store has of four pictures; those that it has not are computed again by whoever asks."""
    from blip2vqa.features.cache import FeatureStore
    from helpers.feature_stores import KEY, digests

    store = FeatureStore(folder / "features", KEY)
    missing = store.missing(digests(4))
    left = [digest for digest in digests(4) if digest not in missing]
    features = store.open(left) if left else None
    return {digest: features.of([digest]).float().tolist() for digest in left}


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


def _ledger(folder: Path) -> object:
    from blip2vqa.generate.ledger import Ledger

    with Ledger(folder / "vqa.responses.jsonl") as ledger:
        return ledger.records()


def _abo(folder: Path) -> object:
    from blip2vqa.generate.catalogue.abo import read_products
    from blip2vqa.generate.catalogue.abo_layout import find_archive

    return list(read_products(find_archive(folder / "abo"), Counter()))


def _catalogue(folder: Path) -> object:
    from blip2vqa.generate.catalogue.table_catalogue import read_table_products

    return list(read_table_products(folder / "table.csv", folder / "images", Counter()))


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

    parts, resolved = parse(FINETUNE_ARGUMENTS, "", [*words_of_run(folder), "--resume_from_checkpoint", "true"])
    run = Run(*parts, resolved)
    return checkpoint_to_resume(run, check(run))


def _scorer(folder: Path) -> object:
    from blip2vqa.evaluation.bertscore import bertscore_scorer

    scorer = bertscore_scorer(str(folder / "scorer"))
    scorer.check()
    return scorer.compute(predictions=["red", "blue one"], references=["red", "red"])["scores"]


def make_fingerprints(materials: Path, folder: Path) -> None:
    copy("opt")(materials, folder)
    _base_weights(folder)


READERS = {
    "csv": Reader(holding(t__csv=csv_text()), _table("t.csv"), {"t.csv": TABLE}),
    "tsv": Reader(holding(t__tsv=csv_text("\t")), _table("t.tsv"), {"t.tsv": TABLE}),
    "csv.gz": Reader(
        holding(t__csv__gz=gzip.compress(csv_text().encode(), mtime=0)), _table("t.csv.gz"), {"t.csv.gz": gzipped(TABLE)}
    ),
    "json": Reader(holding(t__json=json.dumps(ROWS)), _table("t.json"), {"t.json": JSON}),
    "jsonl": Reader(holding(t__jsonl=JSONL), _table("t.jsonl"), {"t.jsonl": JSON}),
    "jsonl.gz": Reader(
        holding(t__jsonl__gz=gzip.compress(JSONL.encode(), mtime=0)), _table("t.jsonl.gz"), {"t.jsonl.gz": gzipped(JSON)}
    ),
    "official json": Reader(
        holding(q__json=json.dumps({"questions": ASKED}), a__json=json.dumps({"annotations": ANNOTATED})),
        _table("q.json", "a.json"), {"*.json": JSON},
    ),
    "vizwiz": Reader(holding(t__json=json.dumps(VIZWIZ)), _table("t.json"), {"t.json": JSON}),
    "textvqa": Reader(holding(t__json=json.dumps(TEXTVQA)), _table("t.json"), {"t.json": JSON}),
    "parquet": Reader(make_frame("to_parquet", "t.parquet"), _table("t.parquet"), {"t.parquet": BINARY}),
    "datasets": Reader(make_dataset, _table("saved"), {"saved/*.json": JSON, "saved/*.arrow": BINARY}),
    "captions": Reader(
        make_captioned(t__csv='image_name,caption\n0.png,a square\n1.png,"[""one"", ""two""]"\n'),
        _captions("t.csv"), {"t.csv": TABLE},
    ),
    "coco captions": Reader(make_captioned(t__json=json.dumps(COCO)), _captions("t.json"), {"t.json": JSON}),
    "karpathy": Reader(make_captioned(t__json=json.dumps(KARPATHY)), _captions("t.json"), {"t.json": JSON}),
    "flickr": Reader(
        make_captioned(t__txt="0.png#0\ta square\n0.png#1\tone square\n1.png#0\ta disc\n"), _captions("t.txt"), {"t.txt": TABLE}
    ),
    "png": Reader(make_picture("p.png"), _picture("p.png"), {"p.png": BINARY}),
    "jpeg": Reader(make_picture("p.jpg"), _picture("p.jpg"), {"p.jpg": BINARY}),
    "webp": Reader(make_picture("p.webp"), _picture("p.webp"), {"p.webp": BINARY}),
    "tiff": Reader(make_picture("p.tiff"), _picture("p.tiff"), {"p.tiff": BINARY}),
    "predictions csv": Reader(
        holding(table__csv=csv_text(), p__csv=PREDICTED), _predictions("p.csv"), {"p.csv": TABLE}
    ),
    "predictions json": Reader(
        holding(table__csv=csv_text(), p__json=json.dumps(SAID)), _predictions("p.json"), {"p.json": JSON}
    ),
    "answer list": Reader(holding(answers__txt="red\ngreen\nyes\n"), _answers, {"answers.txt": TEXT}),
    "style json": Reader(holding(mine__json=STYLE), _style("mine.json"), {"mine.json": JSON}),
    "style yaml": Reader(holding(mine__yaml="prompt: 'A line:'\nnum_beams: 1\n"), _style("mine.yaml"), {"mine.yaml": TEXT}),
    "systems": Reader(
        holding(systems__json=json.dumps([{"name": "a", "base_model_id": "opt"}, {"name": "b", "prompt": "{question} A:"}])),
        _systems, {"systems.json": JSON},
    ),
    "finetune options": Reader(
        holding(
            run__json=json.dumps({"epochs": 2, "learning_rate": 1e-3, "lora_r": 8, "report_to": ["none"], "use_cpu": True})
        ),
        _options("run.json", "finetune"), {"run.json": JSON},
    ),
    "finetune yaml": Reader(
        holding(run__yaml="epochs: 2\nlearning_rate: 1e-3\nreport_to: [none]\nuse_cpu: true\n"),
        _options("run.yaml", "finetune"), {"run.yaml": TEXT},
    ),
    "generate options": Reader(
        holding(vqa__run__json=json.dumps({"csv_path": "t.csv", "image_dir": "i", "num_questions": 3})),
        _options("vqa.run.json", "generate"), {"vqa.run.json": JSON},
    ),
    "adapter config": Reader(copy("adapters/one"), _adapter, {"one/adapter_config.json": JSON}),
    "manifest": Reader(copy("adapters/one"), _adapter, {"one/blip2vqa.json": JSON}),
    "weights": Reader(copy("adapters/one"), _adapter, {"one/*.safetensors": WEIGHTS}),
    "pickled weights": Reader(make_pickle, _pickle, {"one/*.bin": BINARY}),
    "metrics": Reader(make_scored, _store, {"one/metrics.json": JSON}),
    "archive": Reader(copy("one.zip"), _archive, {"one.zip": BINARY}, noticed=True),
    "feature shard": Reader(make_features, _features, {"features/*/*.safetensors": WEIGHTS}, noticed=True),
    "partial": Reader(make_partial, _partial, {"*.partial": JSON}),
    "ledger": Reader(make_ledger, _ledger, {"*.jsonl": JSON}),
    "begun run": Reader(
        make_begun_run, _begun_run,
        {"out/*.json": JSON, "out/checkpoints/*/trainer_state.json": JSON},
    ),
    "abo listings": Reader(make_abo, _abo, {"abo/listings/*/*.gz": gzipped(JSON)}),
    "abo pictures": Reader(make_abo, _abo, {"abo/images/*/*.gz": gzipped(TABLE)}),
    "catalogue": Reader(make_catalogue, _catalogue, {"table.csv": TABLE}),
    "base config": Reader(copy("opt"), _base, {"opt/*.json": one_of(JSON, JSON, JSON, BINARY)}),
    "base weights": Reader(copy("opt"), _base_weights, {"opt/*.safetensors": WEIGHTS}),
    "fingerprints": Reader(make_fingerprints, _base_weights, {"cache/*/*/*.json": JSON}, noticed=True),
    "scorer": Reader(copy("scorer"), _scorer, {"scorer/*.json": JSON, "scorer/*.safetensors": WEIGHTS}),
}  # fmt: skip

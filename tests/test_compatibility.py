"""Files of version 0.1 keep working: adapters, manifests, stores, archives, feature caches, configurations, stopped runs.

`fixtures/version_0_1` was written by that version's own scripts, on the embedded base and six of the drawings.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blip2vqa import load
from blip2vqa.exchange import check, import_adapter, inspect, list_store
from blip2vqa.features.cache import FeatureStore
from blip2vqa.features.key import FeatureKey
from helpers.finetune_runs import adapter_of
from helpers.launching import run_script
from helpers.paths import ROOT

WRITTEN = Path(__file__).parent / "fixtures" / "version_0_1"
BASE = "assets/tiny-blip2-opt"
IMAGES = "assets/drawings/images"


@pytest.fixture(scope="module")
def results() -> list[dict[str, str]]:
    """What version 0.1 answered with its adapter."""
    with (WRITTEN / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_adapter_answers_as_it_did(results):
    model = load(str(WRITTEN / "finished"), base_model_id=str(ROOT / BASE), dtype="float32")
    pictures = [ROOT / IMAGES / row["image_name"] for row in results]
    answers = model.answer_batch(pictures, [row["question"] for row in results])
    assert [answer.text for answer in answers] == [row["generated_answer"] for row in results]
    assert [answer.confidence for answer in answers] == pytest.approx(
        [float(row["confidence"]) for row in results], abs=1e-3
    )


def test_a_manifest_says_what_it_said():
    report = inspect(str(WRITTEN / "finished"))
    manifest = json.loads((WRITTEN / "finished" / "blip2vqa.json").read_text(encoding="utf-8"))
    told = {"task", "family", "prompt", "decoding", "rank", "alpha", "roles", "scopes", "data", "metrics", "versions"}
    assert {name: report["manifest"][name] for name in told} == {name: manifest[name] for name in told}


def test_an_adapter_fits_its_base_by_fingerprint():
    found = check(str(WRITTEN / "finished"), str(ROOT / BASE))
    assert found["verdict"] == "ok" and set(found["parts"].values()) == {"same"}


def test_a_store_lists_what_it_holds():
    (entry,) = list_store(str(WRITTEN / "store"))
    assert (entry["name"], entry["rank"], entry["problem"]) == ("kept", 2, None)
    assert entry["score"]["metric"] == "accuracy"


def test_an_archive_is_imported(tmp_path):
    folder = import_adapter(str(WRITTEN / "adapter.zip"), "again", str(tmp_path))
    assert (folder / "adapter_model.safetensors").read_bytes() == (
        WRITTEN / "finished" / "adapter_model.safetensors"
    ).read_bytes()


def test_kept_features_are_found_by_their_old_name(tmp_path):
    (before,) = (WRITTEN / "features").iterdir()
    fields = json.loads((before / "space.json").read_text(encoding="utf-8"))
    assert fields.pop("format") == 1 and fields.pop("about")
    key = FeatureKey(**fields | {"dtype": getattr(torch, fields["dtype"]), "shape": tuple(fields["shape"])})
    assert key.name == before.name
    shutil.copytree(WRITTEN / "features", tmp_path / "features")
    (shard,) = before.glob("*.safetensors")
    ((_, kept),) = load_file(shard).items()
    store, digests = FeatureStore(tmp_path / "features", key), _digests()
    assert store.missing(digests) == [] and len(kept) == len(digests)
    found = store.open(digests).of(digests)
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, kept.numpy()))


def _digests() -> list[str]:
    split = json.loads((WRITTEN / "finished" / "split.json").read_text(encoding="utf-8"))
    return [image["digest"] for side in ("train", "val") for image in split[side]]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder as that version had it: the embedded files, the table and its runs."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    return tmp_path


def same_run(folder: Path, output: str) -> None:
    """Both runs end in the adapter of the finished one, but for the last digits of another machine."""
    wanted, found = adapter_of(folder / "finished"), adapter_of(folder / output)
    assert wanted.keys() == found.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-2, atol=1e-3)


def test_a_configuration_repeats_its_run(folder):
    done = run_script("finetune.py", folder / "finished" / "run.json", "--output_dir", "again", folder=folder)
    assert done.returncode == 0, done.stderr
    same_run(folder, "again")


def test_a_stopped_run_goes_on(folder):
    given = folder / "stopped" / "run.json"
    done = run_script("finetune.py", given, "--resume_from_checkpoint", folder=folder)
    assert done.returncode == 0, done.stderr
    same_run(folder, "stopped")


def test_a_stopped_run_does_not_go_on_with_other_answers(folder):
    table = folder / "table.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",yes,", ",no,"), encoding="utf-8")
    done = run_script("finetune.py", folder / "stopped" / "run.json", "--resume_from_checkpoint", folder=folder)
    assert done.returncode == 2 and "questions, answers" in done.stderr

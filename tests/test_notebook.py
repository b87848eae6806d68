"""The notebook runs from top to bottom, as it is, on a few photographs and for a few steps."""

import json
import shutil

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from helpers.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "own_pictures.ipynb"
PICTURES = {"train": 6, "val": 3}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder that looks like the project's, with less data and fewer steps, in which nothing of the project is written."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "assets" / "photos").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "notebooks").mkdir()
    for name in ("blip2vqa", "requirements.txt", "assets/photo-blip2-opt", "assets/photos/images"):
        (folder / name).symlink_to(ROOT / name)
    for name, pictures in PICTURES.items():
        rows = pd.read_csv(ROOT / "assets" / "photos" / f"{name}.csv")
        few = rows[rows.image_name.isin(rows.image_name.unique()[:pictures])]
        few.to_csv(folder / "assets" / "photos" / f"{name}.csv", index=False)
    settings = json.loads((ROOT / "configs" / "quickstart.json").read_text()) | {"epochs": 1}
    (folder / "configs" / "quickstart.json").write_text(json.dumps(settings))
    shutil.copy(NOTEBOOK, folder / "notebooks")
    return folder


@pytest.fixture(scope="module")
def done(project):
    """The notebook with its outputs."""
    environment = {
        "BLIP2VQA_STORE": str(project / "store"),
        "PIP_NO_INDEX": "1",  # what the tests need is there: nothing is fetched, or installed
        "CUDA_VISIBLE_DEVICES": "",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        notebook = nbformat.read(project / "notebooks" / NOTEBOOK.name, as_version=4)
        return NotebookClient(
            notebook, timeout=240, resources={"metadata": {"path": str(project / "notebooks")}}
        ).execute()


def printed(done, cell: int) -> str:
    """All that a code cell, counted from 0, has printed and shown as text."""
    outputs = [one for one in done.cells if one.cell_type == "code"][cell].outputs
    return "\n".join(one.get("text") or str(one.get("data", {}).get("text/html", "")) for one in outputs)


def test_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def test_every_step_does_what_it_says(done, project):
    install, pictures, estimate, training, report, asked, kept = range(7)
    assert "ERROR" not in printed(done, install)
    assert "image_name" in printed(done, pictures)
    assert "4bit" in printed(done, estimate) and "11,779,072 parameters" in printed(done, estimate)
    (run,) = (path for path in (project / "runs").iterdir() if path.is_dir())
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"Validation: {metrics['adapter']['n']} questions" in printed(done, training)
    assert "Validation Loss" in printed(done, training), "the table that grows while it trains"
    assert "srcdoc=" in printed(done, report)
    question = pd.read_csv(project / "assets" / "photos" / "val.csv").question[0]
    assert question in printed(done, asked) and "caption:" in printed(done, asked)
    assert (project / "store" / run.name / "adapter_model.safetensors").is_file()
    assert run.with_name(f"{run.name}.zip").is_file() and str(project / "store") in printed(done, kept)


def test_what_the_adapter_answers_is_in_its_predictions(done, project):
    """The first question of the held-out table, asked by `load`, gets the answer that the run has written."""
    (run,) = (path for path in (project / "runs").iterdir() if path.is_dir())
    first = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False).iloc[0]
    lines = printed(done, 5)
    assert f"base:     {first.base_answer}\n" in lines and f"adapter:  {first.generated_answer} (" in lines

"""What trackers hold at the end of a run, read back: scores by step and by type, and sampled rows with their pictures."""

import csv
import io
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from blip2vqa.config import finetune as finetune_config
from blip2vqa.training import tracking
from blip2vqa.training.recipe import finetune
from blip2vqa.training.tracking import SHEET, SIDE, TABLE, ShownRow, draw_sheet
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import make_run

ENDS = (8, 16)
"""Steps of the two evaluations."""


def refuse(*args):
    raise AssertionError(f"a tracker has used the network: {args}")


@pytest.fixture(scope="module")
def tracked(tiny_opt, drawn, tmp_path_factory) -> tuple[Path, dict, list, Path]:
    """A run with two local trackers: its folder, its metrics, its history, and where trackio keeps what it was sent."""
    folder = tmp_path_factory.mktemp("tracked")
    assert "trackio" not in sys.modules, "it reads TRACKIO_DIR when it is imported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        for name in ("connect", "bind"):
            patch.setattr(socket.socket, name, refuse)
        flags = ("--report_to", "tensorboard", "trackio", "--logging_steps", "2", "--run_name", "mine")
        metrics = finetune(make_run(tiny_opt, drawn, folder / "run", *flags, "--project", "squares"))
    return folder / "run", metrics, json.loads((folder / "run" / "history.json").read_text()), folder / "trackio"


@pytest.fixture(scope="module")
def events(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (tracked[0] / "checkpoints" / "runs").iterdir()
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0}).Reload()


@pytest.fixture(scope="module")
def logs(tracked) -> list[dict]:
    """What trackio has stored."""
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("squares") == ["mine"]
    return SQLiteStorage.get_logs("squares", "mine")


@pytest.fixture(scope="module")
def predictions(tracked) -> list[dict[str, str]]:
    with (tracked[0] / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logged(history: list[dict], name: str) -> dict[int, float]:
    return {entry["step"]: pytest.approx(entry[name]) for entry in history if name in entry}


def test_history_holds_loss_and_scores_by_step(tracked):
    _, metrics, history, _ = tracked
    assert list(logged(history, "loss")) == list(range(2, 17, 2))
    assert tuple(logged(history, "eval_loss")) == tuple(logged(history, "eval_accuracy")) == ENDS
    # The adapter is the one of the best evaluation, and so are its scores by type.
    best = max((entry for entry in history if "eval_accuracy" in entry), key=lambda entry: entry["eval_accuracy"])
    by_type = {name: entry["accuracy"] for name, entry in metrics["adapter"]["by_question_type"].items()}
    assert best["eval_accuracy"] == metrics["adapter"]["accuracy"]
    assert {name: best[f"eval_accuracy_{name}"] for name in by_type} == by_type and len(by_type) == 3


def stored_scalars(events, logs) -> dict[str, dict[str, dict[int, float]]]:
    """Tracker → name → value by step."""
    board = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    names = dict.fromkeys(name for entry in logs for name in entry)
    step = "train/global_step"
    return {
        "tensorboard": board,
        "trackio": {name: {entry[step]: entry[name] for entry in logs if name in entry} for name in names},
    }


def test_trackers_hold_the_history(tracked, events, logs):
    history = tracked[2]
    for tracker, stored in stored_scalars(events, logs).items():
        assert stored["train/loss"] == logged(history, "loss"), tracker
        for name in ("loss", "accuracy", "accuracy_color", "accuracy_count", "accuracy_yes/no"):
            assert stored[f"eval/{name}"] == logged(history, f"eval_{name}"), (tracker, name)


def test_trackers_hold_the_scores_beside_the_adapters(tracked, events, logs):
    metrics = tracked[1]
    for tracker, stored in stored_scalars(events, logs).items():
        for name in ("base", "blind"):
            expected = dict.fromkeys((0, *ENDS), pytest.approx(metrics[name]["accuracy"]))
            assert stored[f"eval/{name}_accuracy"] == expected, (tracker, name)
        swapped = {ENDS[-1]: pytest.approx(metrics["swapped"]["accuracy"])}
        assert stored["eval/swapped_accuracy"] == swapped, tracker


def test_tensorboard_shows_the_rows(tracked, events, predictions):
    texts = {event.step: event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{TABLE}/text_summary")}
    assert tuple(texts) == ENDS
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in texts[kept_step(tracked)].splitlines()]
    assert lines[0] == ["row", "question", "truth", "answer", "right"]
    assert [line[1:4] for line in lines[2:]] == [
        [row["question"], row["answer"], row["generated_answer"]] for row in predictions
    ]
    right = [line[2] == line[3] for line in lines[2:]]
    assert [line[4] == "yes" for line in lines[2:]] == right and 0 < sum(right) < len(right)
    sheets = {event.step: Image.open(io.BytesIO(event.encoded_image_string)) for event in events.Images(SHEET)}
    assert tuple(sheets) == ENDS
    cell = sheets[kept_step(tracked)].height
    frames = [sheets[kept_step(tracked)].getpixel((place * cell, 0)) for place in range(len(right))]
    assert frames == [(0, 128, 0) if one else (255, 0, 0) for one in right]


def test_trackio_shows_the_rows_with_their_pictures(tracked, logs, predictions, drawn):
    tables = {entry["train/global_step"]: entry[TABLE]["_value"] for entry in logs if TABLE in entry}
    assert tuple(tables) == ENDS
    shown = tables[kept_step(tracked)]
    assert [(row["question"], row["truth"], row["answer"]) for row in shown] == [
        (row["question"], row["answer"], row["generated_answer"]) for row in predictions
    ]
    media = tracked[3] / "media"
    for row, said in zip(shown, predictions, strict=True):
        with (
            Image.open(media / row["picture"]["file_path"]) as stored,
            Image.open(drawn[0] / said["image_name"]) as own,
        ):
            assert stored.convert("RGB").tobytes() == own.tobytes()
    # Each picture is stored once, whatever is asked about it and however often.
    assert len(list(media.rglob("*.png"))) == len({row["image_name"] for row in predictions})


def kept_step(tracked) -> int:
    """The step of the evaluation that the predictions are of."""
    scored = {entry["step"]: entry["eval_accuracy"] for entry in tracked[2] if "eval_accuracy" in entry}
    return max(scored, key=scored.get)


class Recorder(TrainerCallback):
    """A tracker that shows no tables."""

    def __init__(self):
        self.heard = []
        RECORDERS.append(self)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append((state.global_step, set(logs)))

    def on_train_end(self, args, state, control, **kwargs):
        self.heard.append("end")


RECORDERS: list[Recorder] = []


def test_captions_and_a_tracker_without_tables(tiny_opt, drawn, write, tmp_path, monkeypatch):
    """Without an evaluation, too, all scores have come before the tracker closes its run."""
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "dvclive", Recorder)
    monkeypatch.setattr(finetune_config, "get_available_reporting_integrations", lambda: ["dvclive"])
    lines = [f"{number}.png,square {number}" for number in range(12)]
    captions = write("captions.csv", "\n".join(["image_name,caption", *lines]))
    flags = (
        "--task",
        "caption",
        "--report_to",
        "dvclive",
        "--max_steps",
        "1",
        "--eval_strategy",
        "no",
        "--max_new_tokens",
        "5",
    )
    metrics = finetune(make_run(tiny_opt, (drawn[0], captions), tmp_path / "run", *flags))
    heard = RECORDERS[-1].heard
    assert heard[0] == (0, {"eval_base_cider", "eval_blind_cider"})
    assert heard[-2:] == [(1, {"eval_swapped_cider"}), "end"]
    assert metrics["swapped"]["cider"] is not None


def test_the_same_rows_are_shown_at_each_evaluation(tiny_opt, drawn, tmp_path, monkeypatch):
    """A sample of them where there are many."""
    shown = []
    monkeypatch.setattr(tracking, "SHOWN_ROWS", 4)
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "dvclive", Recorder)
    monkeypatch.setattr(finetune_config, "get_available_reporting_integrations", lambda: ["dvclive"])
    monkeypatch.setitem(tracking.WRITERS, Recorder, lambda tracker: lambda rows, step: shown.append(rows))
    finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--report_to", "dvclive"))
    first, second = ([replace(row, answer="", right=None) for row in rows] for rows in shown)
    assert first == second and len({row.number for row in first}) == 4


def test_a_sheet_shows_every_picture_in_its_place():
    colors = [(10 * number, 0, 200) for number in range(13)]
    rows = [
        ShownRow(number, "", Image.new("RGB", (SIDE, SIDE // 2), color), "", "a cat", "a dog", None)
        for number, color in enumerate(colors)
    ]
    sheet = draw_sheet(rows)
    cell = SIDE + 2 * tracking.FRAME
    assert sheet.size == (10 * cell, 2 * cell)
    middle = [(place % 10 * cell + cell // 2, place // 10 * cell + cell // 2) for place in range(13)]
    assert [sheet.getpixel(one) for one in middle] == colors
    assert rows[0].cells() == {"row": 0, "truth": "a cat", "answer": "a dog"}


def test_a_tracker_that_is_not_installed_is_named_before_any_work(tiny_opt, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_config, "get_available_reporting_integrations", lambda: [])
    with pytest.raises(
        InputError, match=r"--report_to wandb: not installed; install it \(pip install wandb\)"
    ) as found:
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", "--report_to", "wandb"))
    assert found.value.exit_code == 2 and not (tmp_path / "run").exists()

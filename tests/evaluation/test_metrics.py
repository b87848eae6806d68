"""The registry of metrics: one file a metric, found by its folder, read by everything that shows scores."""

import subprocess
import sys

import pytest

from blip2vqa.adapters.files.card import model_card
from blip2vqa.data.examples import Example
from blip2vqa.evaluation import metrics
from blip2vqa.evaluation.metrics import METRICS, discover, metrics_of
from blip2vqa.evaluation.scores import score
from blip2vqa.evaluation.tasks import TASKS, VQA
from blip2vqa.reporting.tables import print_score_table

ONE_FILE = """
from blip2vqa.evaluation.metric import Metric, Needs, Result


def compute(rows):
    return Result.mean_of([len(row.text) for row in rows])


METRIC = Metric("letters", "letters", 15, Needs.ANSWERS, compute, digits=2)
"""


def test_every_metric_belongs_to_a_task():
    assert [metric.name for metric in metrics_of("vqa")] == ["accuracy", "vqa_accuracy", "anls", "bertscore_f1"]
    assert [metric.name for metric in metrics_of("caption")] == ["cider", "bleu4", "bertscore_f1", "mean_words"]
    assert {metric.name for task in TASKS for metric in metrics_of(task)} == METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_found_under_its_modules_name(name):
    assert METRICS[name].compute.__module__ == f"blip2vqa.evaluation.metrics.{name}"


def test_a_metric_is_added_by_one_file(tmp_path, monkeypatch, capsys, request):
    (tmp_path / "letters.py").write_text(ONE_FILE)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    monkeypatch.setattr(metrics, "METRICS", discover())
    request.addfinalizer(lambda: sys.modules.pop("blip2vqa.evaluation.metrics.letters"))
    examples = [Example(row, None, "a.jpg", "", "What?", ("red",), "what", {}) for row in range(2)]
    scores = score(examples, ["red", "blue!"])
    assert scores["letters"] == 4 and scores["accuracy"] == 0.5
    print_score_table({"adapter": scores}, "Scores")
    lines = [line.replace("┃", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["accuracy", "letters", "n"] in lines
    assert "| base + adapter | 50.0% | 4.00 | 2 |" in model_card({}, {"adapter": scores})
    assert VQA.find_best_metric("letters") == "letters"


def test_names_of_metrics_are_read_without_heavy_libraries():
    heavy = ("torch", "datasets", "evaluate", "pandas", "numpy", "pycocoevalcap", "bert_score")
    script = f"import sys, blip2vqa.evaluation.metrics; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

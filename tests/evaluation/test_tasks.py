"""What a task is scored by, and which metric may choose the best epoch."""

import pytest

from blip2vqa.evaluation.metrics import METRICS, metrics_of
from blip2vqa.evaluation.tasks import CAPTION, VQA
from blip2vqa.utils.errors import InputError


def test_every_metric_belongs_to_a_task_and_the_first_is_the_main_one():
    assert [metric.name for metric in metrics_of("vqa")] == ["accuracy", "vqa_accuracy", "anls", "bertscore_f1"]
    assert [metric.name for metric in metrics_of("caption")] == ["cider", "bleu4", "bertscore_f1", "mean_words"]
    assert (VQA.main, CAPTION.main) == ("accuracy", "cider")


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_found_under_its_modules_name(name):
    assert METRICS[name].compute.__module__ == f"blip2vqa.evaluation.metrics.{name}"


def test_any_metric_that_says_what_is_better_may_choose_the_best_epoch():
    assert [VQA.find_best_metric(name) for name in ("accuracy", "anls", "loss")] == ["accuracy", "anls", "loss"]
    assert [CAPTION.find_best_metric(name) for name in ("accuracy", "bleu4", "eval_loss")] == ["cider", "bleu4", "loss"]


@pytest.mark.parametrize(
    ("task", "name"), [(VQA, "cider"), (VQA, "accurracy"), (CAPTION, "mean_words"), (CAPTION, "anls")]
)
def test_a_name_that_cannot_choose_is_refused(task, name):
    with pytest.raises(InputError, match=f"--metric_for_best_model {name}: .* choose from .*loss"):
        task.find_best_metric(name)

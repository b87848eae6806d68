"""What a task is scored by, and which metric may choose the best epoch."""

import pytest

from blip2vqa.evaluation.tasks import CAPTION, VQA
from blip2vqa.utils.errors import InputError


def test_the_first_metric_of_a_task_is_its_main_one():
    assert (VQA.main, CAPTION.main) == ("accuracy", "cider")


def test_any_metric_that_says_what_is_better_may_choose_the_best_epoch():
    assert [VQA.find_best_metric(name) for name in ("accuracy", "anls", "loss")] == ["accuracy", "anls", "loss"]
    assert [CAPTION.find_best_metric(name) for name in ("accuracy", "bleu4", "eval_loss")] == ["cider", "bleu4", "loss"]


@pytest.mark.parametrize(
    ("task", "name"),
    [(VQA, "cider"), (VQA, "accurracy"), (VQA, "bertscore_f1"), (CAPTION, "mean_words"), (CAPTION, "anls")],
)
def test_a_name_that_cannot_choose_is_refused(task, name):
    with pytest.raises(InputError, match=f"--metric_for_best_model {name}: .* choose from .*loss"):
        task.find_best_metric(name)

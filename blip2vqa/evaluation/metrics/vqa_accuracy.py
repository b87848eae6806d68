"""VQA accuracy over several annotators, as in GT-Vision-Lab's PythonEvaluationTools/vqaEvaluation/vqaEval.py.

Each annotator in turn is left out, the rest give min(1, matches / 3), and the mean of that counts. Where annotators
differ, both sides are normalised. Where all gave the same answer, neither side is: a prediction "Yes" for ten times
"yes" is wrong. LAVIS's evaluator differs: it always normalises the prediction, and only strips punctuation from the
annotators' answers.

The published formula knows ten annotators. With fewer than four, a unanimous answer could not reach 1, so the divisor
is then the number of the others. An empty prediction is wrong, even where an annotator's answer is nothing but an
article.
"""

from collections.abc import Sequence

from blip2vqa.data.answers import vqa_score
from blip2vqa.evaluation.metric import Metric, Needs, Result, Row


def compute(rows: Sequence[Row]) -> Result:
    """Score each row 0 to 1 against all its annotators' answers; `n_several_answers` counts the rows."""
    scores = [vqa_score(row.text, list(row.example.answers)) for row in rows]
    return Result.mean_of(scores, {"n_several_answers": len(rows)})


METRIC = Metric(
    "vqa_accuracy", "VQA accuracy", 20, Needs.ANNOTATORS, compute, is_share=True, by_question_type=True, interval="vqa_interval"
)  # fmt: skip

"""BERTScore against one reference and against the nearest of several."""

from blip2vqa.evaluation.metrics import METRICS
from helpers.scored_rows import caption_rows, question_rows


class Alike:
    """An encoder for which texts are as near as the words that they share; it keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def compute(self, predictions, references):
        self.asked.append((predictions, references))
        pairs = [(set(a.split()), set(b.split())) for a, b in zip(predictions, references, strict=True)]
        scores = [len(a & b) / len(a | b) for a, b in pairs]
        f1 = sum(scores) / len(scores) if scores else None
        return {"f1": f1, "precision": 0.4, "recall": 0.6, "scorer": "stub_L1", "scores": scores}


def test_of_several_references_the_nearest_counts_of_equals_the_first():
    rows = caption_rows(["a red dog", "birds"], [["a stock report", "a red dog runs"], ["two birds", "birds fly"]])
    encoder = Alike()
    result = METRICS["bertscore_f1"].compute(rows, encoder)
    assert encoder.asked[-1] == (["a red dog", "birds"], ["a red dog runs", "two birds"])
    assert result.value == (3 / 4 + 1 / 2) / 2
    assert result.details == {"bertscore_precision": 0.4, "bertscore_recall": 0.6, "bertscore_scorer": "stub_L1"}


def test_an_answer_is_compared_with_the_tables_own_and_asked_once():
    encoder = Alike()
    assert METRICS["bertscore_f1"].compute(question_rows(["red"], [["blue", "red", "red"]]), encoder).value == 1
    assert encoder.asked == [(["red"], ["red"])]
    assert METRICS["bertscore_f1"].compute([], encoder).value is None

"""Account of the filters: which questions each one dropped and why, and counts of what is left."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from blip2vqa.generate.rows import KEPT, Question


@dataclass
class Funnel:
    """Questions as they pass the filters, and what each filter dropped."""

    left: list[Question]
    dropped: list[Question] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)

    def pass_through(self, step: str, reasons: Iterable[str | None]) -> None:
        """Apply one filter: `reasons` has, for each question left and in their order, None or why it is dropped."""
        judged = [
            (replace(question, verdicts=question.verdicts | {step: reason or KEPT}), reason)
            for question, reason in zip(self.left, reasons, strict=True)
        ]
        self.left = [question for question, reason in judged if not reason]
        self.dropped += [question for question, reason in judged if reason]
        # Without the model's answer or the confidence: these differ from row to row.
        counts = Counter(re.split(r' [("]', reason)[0] for _, reason in judged if reason)
        self.steps.append(
            {"step": step, "dropped": counts.total(), "left": len(self.left), "reasons": dict(counts.most_common())}
        )

    def drop(self, step: str, reasons: Mapping[int, str]) -> None:
        """Apply a filter that has named the places of the questions to drop, each with its reason."""
        self.pass_through(step, [reasons.get(place) for place in range(len(self.left))])


def summarize(kept: Sequence[Question], sides: dict[int, str], funnel: Funnel, about: dict) -> dict:
    """Count what the card and the screen show, in plain JSON types, and add it to `about`; keys: `report.data_card`."""
    types: dict[str, Counter] = {}
    for question in kept:
        types.setdefault(question.question_type, Counter())[question.answer] += 1
    pictures = {question.item.image_name: question.item for question in kept}
    counts = _counts(kept)
    return about | {
        "counts": {name: counts[name] for name in ("pictures", "questions", "products")},
        "splits": {
            split: _counts([question for question in kept if sides[question.item.group] == split])
            for split in ("train", "val", "test")
        },
        "question_types": {
            name: {"n": answers.total(), "answers": dict(answers.most_common())}
            for name, answers in sorted(types.items(), key=lambda pair: -pair[1].total())
        },
        "product_types": dict(Counter(item.product_type for item in pictures.values()).most_common()),
        "funnel": funnel.steps,
    }


def _counts(questions: Sequence[Question]) -> dict[str, int]:
    return {
        "questions": len(questions),
        "pictures": len({question.item.image_name for question in questions}),
        "products": len({question.item.item_id for question in questions}),
    }

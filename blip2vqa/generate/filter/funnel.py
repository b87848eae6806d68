"""What becomes of the questions on their way, and of which kinds those are that are left."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from blip2vqa.generate.rows import Question


@dataclass
class Funnel:
    """Questions as they pass the filters, and what each filter dropped."""

    left: list[Question]
    dropped: list[Question] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)

    def pass_through(self, step: str, reasons: Iterator[str | None] | Sequence[str | None]) -> None:
        """Apply one filter: for each question left, in order, None or why it goes."""
        kept, dropped = [], []
        for question, reason in zip(self.left, reasons, strict=True):
            judged = replace(question, verdicts=question.verdicts | {step: reason or "kept"})
            if reason:
                dropped.append((judged, reason))
            else:
                kept.append(judged)
        self.record(step, kept, dropped)

    def record(self, step: str, kept: list[Question], dropped: list[tuple[Question, str]]) -> None:
        """What one filter has made of the questions left, verdicts added."""
        self.left, self.dropped = kept, self.dropped + [question for question, _ in dropped]
        # Without what was answered, or how sure it was: these differ from row to row.
        reasons = dict(Counter(re.split(r' [("]', reason)[0] for _, reason in dropped).most_common())
        self.steps.append({"step": step, "dropped": len(dropped), "left": len(kept), "reasons": reasons})


def summarize(kept: Sequence[Question], sides: dict[int, str], funnel: Funnel, about: dict) -> dict:
    """What the card and the screen show: plain JSON types; see `reporting.data_card`."""
    types: dict[str, Counter] = {}
    for question in kept:
        types.setdefault(question.question_type, Counter())[question.answer] += 1
    pictures = {question.item.image_name: question.item for question in kept}
    splits = {}
    for split in ("train", "val", "test"):
        rows = [question for question in kept if sides[question.item.group] == split]
        splits[split] = {
            "questions": len(rows),
            "pictures": len({row.item.image_name for row in rows}),
            "products": len({row.item.item_id for row in rows}),
        }
    return about | {
        "counts": {
            "pictures": len(pictures), "questions": len(kept),
            "products": len({item.item_id for item in pictures.values()}),
        },
        "splits": splits,
        "question_types": {
            name: {"n": answers.total(), "answers": dict(answers.most_common())}
            for name, answers in sorted(types.items(), key=lambda pair: -pair[1].total())
        },
        "product_types": dict(Counter(item.product_type for item in pictures.values()).most_common()),
        "funnel": funnel.steps,
    }  # fmt: skip

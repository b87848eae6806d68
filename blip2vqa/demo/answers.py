"""Answers side by side: several requests in one batch, each by the base and the adapters that it names."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from blip2vqa.adapters.ref import BASE as ALONE
from blip2vqa.adapters.ref import CURRENT, AdapterRef
from blip2vqa.api import VQAModel
from blip2vqa.demo.pictures import GREY
from blip2vqa.inference.generation import Answer
from blip2vqa.inference.without_image import can_answer_without_image
from blip2vqa.utils.errors import InputError

BASE = "base"
"""How the page calls the base alone; no adapter may be called so."""
BATCH = 64


@dataclass(frozen=True)
class Asked:
    """One question about one picture, to be answered by each of the models named."""

    picture: Image.Image
    question: str
    models: tuple[str, ...]
    """Names of adapters, and `BASE`."""
    compared: bool = True
    """Whether each is asked without the picture, and about a grey one, too."""

    def check(self, model: VQAModel) -> None:
        """Raise `InputError` for what this request alone may be told."""
        if not self.models:
            raise InputError("No model: choose the base or an adapter")
        if not isinstance(self.question, str) or not self.question.strip():
            raise InputError("No question: write one")


def answer_all(model: VQAModel, asked: Sequence[Asked]) -> list[list[dict] | InputError]:
    """Answer all requests in common batches, `[{adapter, answer, confidence, …}]` for each, or what is wrong with it.

    What is wrong with one leaves the others as they are.
    """
    try:
        for one in asked:
            one.check(model)
        return _answer(model, asked)
    except InputError as error:
        if len(asked) == 1:
            return [error]
    return [found for one in asked for found in answer_all(model, [one])]


def _answer(model: VQAModel, asked: Sequence[Asked]) -> list[list[dict]]:
    blind = can_answer_without_image(model.request)
    keys = [[(name, _keys(number, one, name, blind)) for name in one.models] for number, one in enumerate(asked)]
    wanted = dict.fromkeys(key for named in keys for _, shown in named for key in shown.values() if key)
    said = model.answer_batch(
        [_OTHER_PICTURES[what] if number is None else asked[number].picture for *_, what, number in wanted],
        [question for _, question, *_ in wanted],
        BATCH,
        adapters=[None if name == BASE else name for name, *_ in wanted],
    )
    found = dict(zip(wanted, said, strict=True))
    return [
        [_row(name, {what: found.get(key) for what, key in shown.items()}) for name, shown in named] for named in keys
    ]


_OTHER_PICTURES = {"without_picture": None, "grey_picture": GREY}
Key = tuple[str, str, str, int | None]
"""Model, question, what is shown, and whose picture it is; None for the others, where equal questions of users are one."""


def _keys(number: int, one: Asked, name: str, blind: bool) -> dict[str, Key | None]:
    """List what one model is asked, by what is shown; None for what it is not asked, or cannot be."""
    asked = {"answer": True, "without_picture": one.compared and blind, "grey_picture": one.compared}
    return {
        what: (name, one.question, what, None if what in _OTHER_PICTURES else number) if is_asked else None
        for what, is_asked in asked.items()
    }


def _row(name: str, answers: dict[str, Answer | None]) -> dict:
    """Turn the answers of one model into JSON; a text is None where it was not asked so, or cannot be."""
    answer = answers["answer"]
    texts = {what: found and found.text for what, found in answers.items()}
    sure = {"confidence": answer.confidence, "probability_right": answer.probability_right}
    return {"adapter": name, **texts, **sure}


def loaded_names(model: VQAModel) -> list[str]:
    """Name the base, then the adapters beside it."""
    return [BASE, *(ref.name for ref in model.spec.adapters if ref != CURRENT)]


def names_for_questions(model: VQAModel) -> list[str]:
    """Name the base and the adapters that answer questions; those whose prompt has no place for one write captions."""
    return [BASE] + [
        ref.name
        for ref in model.spec.adapters
        if "{question}" in model.spec.request(ref).text.prompt
    ]  # fmt: skip


def ref_of(name: str) -> AdapterRef:
    """Refer to a model by its name on the page."""
    return ALONE if name == BASE else AdapterRef.named(name)

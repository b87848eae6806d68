"""A conversation about one picture: earlier turns stand in the prompt of bases that follow instructions."""

from collections.abc import Sequence
from dataclasses import dataclass

from blip2vqa.api import VQAModel
from blip2vqa.data.examples import Example
from blip2vqa.demo.answers import Asked, ref_of
from blip2vqa.inference.request import AnswerRequest

Turn = tuple[str, str]
"""A question, and its answer."""
MOST_TURNS = 20
"""Turns that are kept of a conversation."""


@dataclass(frozen=True)
class AskedInChat(Asked):
    """A question with the turns before it."""

    turns: Sequence[Turn] = ()
    in_prompt: int = 0
    """How many of them stand in `question`."""


def keeps_history(model: VQAModel) -> bool:
    """Tell whether earlier turns stand in the prompt; other bases are asked single questions."""
    return model.spec.family.follows_instructions


def describe_chat(model: VQAModel) -> str:
    """Say what the base does with a conversation."""
    if keeps_history(model):
        return "This base follows instructions: earlier questions and answers stand in its prompt."
    return (
        f"{model.spec.family.name} answers single questions: each is asked by itself, and earlier ones are not in its prompt. "
        "InstructBLIP and BLIP-2 with FLAN-T5 are given the conversation."
    )


def with_history(model: VQAModel, name: str, question: str, turns: Sequence[Turn]) -> tuple[str, int]:
    """Put earlier turns in front of a question, the latest that fit; returns the text to ask, and how many turns it holds.

    What is asked comes out as the model's own prompt, filled for one turn after the other: with "Question: {question} Answer:"
    it is "Question: Q1 Answer: A1. Question: Q2 Answer:".
    """
    if not keeps_history(model) or not turns:
        return question, 0
    request = model.spec.request(ref_of(name), **model.options)
    before, place, after = request.text.prompt.partition("{question}")
    if not place:
        return question, 0
    for first in range(len(turns) + 1):
        kept = turns[first:]
        text = "".join(f"{asked}{after} {answer}. {before}" for asked, answer in kept) + question
        if not kept or _fits(request, text):
            return text, len(kept)
    raise AssertionError("no turn at all always fits")


def _fits(request: AnswerRequest, text: str) -> bool:
    return not request.text.problems_by_row(
        [Example(0, None, "", "", text, (), "", {})], request.decoding.max_new_tokens
    )

"""Answers of a base that chooses among the outputs of a head."""

import torch

from blip2vqa.features.encode import Pixels
from blip2vqa.inference.request import Answer, AnswerRequest
from blip2vqa.models.answer_lists import RANKED
from blip2vqa.models.classes import ClassEncoder, class_scores
from blip2vqa.models.loading import LoadedModel


class ChosenAnswers:
    """As `generation.WrittenAnswers`, for a base that reads picture and question together."""

    share_batches = False  # a head with other outputs has batches of its own

    def prepare(self, *given) -> None:
        """Do nothing: nothing of a picture can be computed before its question is known."""

    def answer(
        self, loaded: LoadedModel, request: AnswerRequest, features: Pixels, memory, rows, digests, questions, prompts
    ) -> list[Answer]:
        """Choose the likeliest answer to each question, among those allowed, and name the next ones."""
        scores = class_scores(loaded, request.text, features, digests, questions, prompts)  # [questions, answers]
        answers = request.text.answers
        found = []
        for row, of_all in enumerate(scores):
            columns = torch.tensor(request.tree.of(row).rows) if request.tree else torch.arange(len(answers))
            best = of_all[columns].topk(min(RANKED, len(columns)))
            values, places = best.values.tolist(), columns[best.indices].tolist()
            ranked = tuple((answers[place], value) for place, value in zip(places, values, strict=True))
            found.append(Answer(*ranked[0], ranked))
        return found

    def first_scores(self, loaded: LoadedModel, text: ClassEncoder, pixels: Pixels, question: str) -> torch.Tensor:
        """Compute the probability of each answer [answers]."""
        return class_scores(loaded, text, pixels, list(pixels.images), [question])[0]

    def remembered(self, request: AnswerRequest) -> dict:
        return {"decoding": None, "end_token": None}

    def describe(self, request: AnswerRequest) -> list[tuple[str, str]]:
        listed = len((request.tree or request.text).answers)
        return [("answers", f"the likeliest of {listed:,}, outputs of the head"), ("prompt", request.text.prompt)]

"""Answer questions without a picture: the language model is given the prompt alone, and no token of an image."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from blip2vqa.inference.generation import answer_batch
from blip2vqa.inference.request import Answer, AnswerRequest, use_adapters
from blip2vqa.models.loading import LoadedModel
from blip2vqa.utils.errors import InputError


def can_answer_without_image(request: AnswerRequest) -> bool:
    """Tell whether the picture is a part of the text that can be left out; BLIP's and ViLT's is not."""
    return getattr(request.text, "num_query_tokens", 0) > 0


def answer_without_image(
    loaded: LoadedModel, questions: Sequence[str], requests: Sequence[AnswerRequest], batch_size: int
) -> list[Answer]:
    """Answer `questions[i]` as `requests[i]` asks it, with the image tokens left out of the prompt.

    Requests that decode alike share batches. Raises `InputError` for a base that cannot do without a picture.
    """
    if not all(map(can_answer_without_image, requests)):
        raise InputError(f"base model {loaded.base_model_id}: {loaded.family.name} cannot answer without a picture")
    kinds: dict[tuple, list[int]] = {}
    for row, request in enumerate(requests):
        kinds.setdefault((request.decoding, id(request.tree)), []).append(row)
    answers: dict[int, Answer] = {}
    for rows in kinds.values():
        rows.sort(key=lambda row: requests[row].adapter)  # which costs the adapters least
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            said = _answer(loaded, [questions[row] for row in batch], [requests[row] for row in batch])
            answers |= zip(batch, said, strict=True)
    return [answers[row] for row in range(len(questions))]


def _answer(loaded: LoadedModel, questions: list[str], requests: list[AnswerRequest]) -> list[Answer]:
    text = replace(requests[0].text, num_query_tokens=0)
    if not text.seq2seq:  # behind a picture the tokenizer puts the start token by itself
        text = replace(text, start_token_id=text.tokenizer("")["input_ids"][0])
    shape = loaded.family.stages[0].shape(loaded.base.config)
    # Features that stand nowhere in the text: there is no token whose place they would take.
    unused = torch.zeros(len(questions), *shape, dtype=loaded.dtype)
    prompts = [request.text.prompt for request in requests]
    with use_adapters(loaded, [request.adapter for request in requests]):
        return answer_batch(loaded, replace(requests[0], text=text), unused, questions, prompts)

"""Lists of answers in tensors: upstream's own search with a function for each beam, to the bit, and no wait for the device."""

import random

import pytest
import torch
from transformers import PrefixConstrainedLogitsProcessor

from blip2vqa.data.examples import Example
from blip2vqa.inference import generation
from blip2vqa.inference.allowed_tokens import AllowedTokens
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.request import AnswerRequest, Decoding
from blip2vqa.models.answer_lists import AnswerTree, AnswerTrees
from blip2vqa.models.loading import load_base
from helpers.device_waits import DeviceTraffic
from helpers.tiny_blip2 import GivenFeatures

END, PAD, VOCABULARY = 2, 1, 30
LISTS = [("red", "green", "blue", "yes", "no", "one", "one two", "red square"), ("yes", "no"), ("one two three", "one")]


class Numbers:
    """A text encoder whose answers are numbers of tokens, such as "4 7"."""

    end_token_id = END

    def answer_ids(self, answers):
        return [[*map(int, answer.split()), END] for answer in answers]


def looked_up(tree, beams, prompt, end_token_id):
    """What `AllowedTokens` stands for: upstream's processor, which asks a dictionary for every beam."""

    def allowed(row, ids):
        said, found = tuple(ids[prompt:].tolist()), {}
        for tokens in tree.of(row).by_tokens:
            if tokens[: len(said)] == said and len(tokens) > len(said):
                found[tokens[len(said)]] = None
        return list(found) or [end_token_id]

    return PrefixConstrainedLogitsProcessor(allowed, beams)


@pytest.mark.parametrize("beams", [2, 5])
def test_scores_are_those_of_a_lookup_for_each_beam(beams):
    """Beginnings of answers, whole and padded ones, and tokens that begin none, of one list and of a list for each row."""
    draw, generator = random.Random(beams), torch.Generator().manual_seed(beams)
    drawn = [
        tuple({" ".join(str(draw.randrange(3, 9)) for _ in range(draw.randrange(1, 5))): None for _ in range(size)})
        for size in (1, 4, 60)
    ]
    trees = [AnswerTree(answers, Numbers()) for answers in drawn]
    for tree in (trees[2], AnswerTrees([trees[0], trees[2], trees[1], trees[2]])):
        for prompt in (0, 3):
            ours = AllowedTokens(tree, beams, prompt, END)
            theirs = looked_up(tree, beams, prompt, END)
            for length in range(7):
                rows = []
                for row in range(4 * beams):
                    said = list(draw.choice(list(tree.of(row // beams).by_tokens)))
                    said = [draw.randrange(VOCABULARY), *said[1:]] if draw.random() < 0.2 else said
                    rows.append([5] * prompt + (said + [PAD] * length)[:length])
                scores = torch.randn(4 * beams, VOCABULARY, generator=generator)
                scores[beams : 2 * beams] = -torch.inf  # a question whose beams have all lost what they may say
                ids = torch.tensor(rows, dtype=torch.int64).view(4 * beams, -1)
                expected = theirs(ids, scores)
                assert torch.equal(ours(ids, scores), expected)
                assert expected.isfinite().any(1).all()


@pytest.fixture(scope="module", params=["opt", "t5"])
def asked(request, tiny_opt, tiny_t5):
    """A base, its text encoder, and eight questions on four images with their features."""
    base = tiny_opt if request.param == "opt" else tiny_t5
    loaded = load_base(str(base), dtype="float32", quantization="none", device=torch.device("cpu"))
    text = loaded.family.text_encoder(loaded.processor, loaded.base.config, "Question: {question} Answer:")
    questions = ["Red?", "What color is the square?", "How many squares are there?"]
    examples = [
        Example(row, None, "abcd"[row % 4], "abcd"[row % 4], questions[row % 3], (), "other", {}) for row in range(8)
    ]
    values = 2 * torch.randn(4, 4, 32, generator=torch.Generator().manual_seed(3))
    return loaded, text, examples, GivenFeatures("abcd", values)


def answer(asked, own: bool, batch_size: int = 8) -> list:
    """The answers to all questions, by one list or by a list for each row."""
    loaded, text, examples, features = asked
    trees = [AnswerTree(answers, text) for answers in LISTS]
    requests = [
        AnswerRequest(text, Decoding(1, 1), trees[row % 3 if own else 0], of_row=own) for row in range(len(examples))
    ]
    batches = answer_by_batch(loaded, features, examples, requests, batch_size=batch_size)
    return sorted((pair for batch in batches for pair in batch), key=lambda pair: pair[0])


@pytest.mark.parametrize("own", [False, True])
def test_answers_are_those_of_a_lookup_for_each_beam(own, asked, monkeypatch):
    found = answer(asked, own, batch_size=3)
    monkeypatch.setattr(generation, "AllowedTokens", looked_up)
    assert found == answer(asked, own, batch_size=3)
    assert len({said.confidence for _, said in found}) == 8


def test_a_list_waits_for_the_device_no_more_often_than_tokens_are_written(asked, monkeypatch):
    longest = AnswerTrees([AnswerTree(answers, asked[1]) for answers in LISTS]).longest
    with monkeypatch.context() as patch, DeviceTraffic(patch) as traffic:
        answer(asked, own=True)
    # Two reads of what has been found, at the end of the batch, and none while it is looked for.
    ours = {name: count for name, count in traffic.waits.items() if name in ("allowed_tokens.py", "generation.py")}
    assert ours == {"generation.py": 2} and longest >= 2
    total = traffic.waits.total()
    # The lookup reads every beam at every token, and copies the tokens that it allows.
    monkeypatch.setattr(generation, "AllowedTokens", looked_up)
    with monkeypatch.context() as patch, DeviceTraffic(patch) as traffic:
        answer(asked, own=True)
    assert traffic.waits.total() == total + 8 * 5 * longest
    assert traffic.copies["logits_process.py"] >= 8 * 5 * longest

"""Exact tensors of the collators, and the loss against a plain reference."""

import pytest
import torch
from transformers import Blip2ForConditionalGeneration

from blip2vqa.models.loading import load_base
from blip2vqa.models.text import IGNORE, pad
from blip2vqa.training.collators import AnswerLoss
from blip2vqa.training.trainer import AnsweredQuestions
from blip2vqa.utils.errors import InputError
from helpers.tiny_blip2 import NUM_QUERY_TOKENS, upstream_logits

PROMPT = "Question: {question} Answer in one word:"


@pytest.fixture
def loaded(tiny_base):
    return load_base(str(tiny_base), dtype="float32", quantization="none")


@pytest.fixture
def text(loaded):
    return loaded.family.text_encoder(loaded.processor, loaded.base.config, PROMPT)


def plain_rows(text, questions, answers):
    """Each row tokenized by itself, with nothing of the class under test."""
    tokenizer, image = text.tokenizer, [text.image_token_id] * NUM_QUERY_TOKENS
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        prompt = image + tokenizer(PROMPT.format(question=question)).input_ids
        blank = "" if text.seq2seq else " "
        rows.append((prompt, [*tokenizer(blank + answer, add_special_tokens=False).input_ids, text.end_token_id]))
    return rows


def test_training_batch_is_exact(text):
    questions, answers = ["What color is the square?", "Red?"], ["blue", "yes or no"]
    batch = text.training_batch(questions, answers)
    rows, padding = plain_rows(text, questions, answers), text.tokenizer.pad_token_id
    inputs = [prompt if text.seq2seq else prompt + target for prompt, target in rows]
    width = max(map(len, inputs))
    assert batch["input_ids"].tolist() == [row + [padding] * (width - len(row)) for row in inputs]
    assert batch["attention_mask"].tolist() == [[1] * len(row) + [0] * (width - len(row)) for row in inputs]
    if text.seq2seq:
        longest = max(len(target) for _, target in rows)
        assert batch["labels"].tolist() == [target + [IGNORE] * (longest - len(target)) for _, target in rows]
        shifted = [[0, *target[:-1]] + [padding] * (longest - len(target)) for _, target in rows]
        # Behind a short answer its own end token is an input too; no label looks at what follows it.
        for got, row, (_, target) in zip(batch["decoder_input_ids"].tolist(), shifted, rows, strict=True):
            assert got[: len(target)] == row[: len(target)]
    else:
        labels = [[IGNORE] * len(prompt) + target for prompt, target in rows]
        assert batch["labels"].tolist() == [row + [IGNORE] * (width - len(row)) for row in labels]


def test_only_the_answer_and_its_end_are_supervised(text):
    batch = text.training_batch(["Red?"], ["yes"])
    supervised = batch["labels"][batch["labels"] != IGNORE].tolist()
    assert text.tokenizer.decode(supervised[:-1]).strip() == "yes"
    assert supervised[-1] == text.end_token_id


def test_generation_batch_holds_prompts_alone_and_ends_where_generation_goes_on(text):
    questions = ["What color is the square?", "Red?"]
    batch = text.generation_batch(questions)
    prompts = [prompt for prompt, _ in plain_rows(text, questions, ["", ""])]
    width, padding = max(map(len, prompts)), text.tokenizer.pad_token_id
    for ids, mask, prompt in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), prompts, strict=True):
        fill = [padding] * (width - len(prompt))
        start = len(prompt) if text.seq2seq else NUM_QUERY_TOKENS
        assert ids == prompt[:start] + fill + prompt[start:]
        assert mask == [1] * start + [0] * len(fill) + [1] * (len(prompt) - start)
        assert sum(mask) == len(prompt)
        assert text.seq2seq or mask[-1] == 1


def test_a_question_that_spells_the_image_token_is_refused(text):
    with pytest.raises(ValueError, match="exactly 4 image tokens"):
        text.training_batch(["What is <image>?"], ["red"])


def test_rows_longer_than_the_positions_are_named(text):
    from blip2vqa.data.examples import Example

    long = Example(7, None, "a.png", "d", "why " * 40, ("red",), "other", {})
    short = Example(8, None, "a.png", "d", "why?", ("red",), "other", {})
    if text.seq2seq:  # T5 has relative positions
        text.check_lengths([long, short], 10)
        return
    with pytest.raises(InputError, match=r"row 7: \d+ tokens, but the base model has 64 positions") as caught:
        text.check_lengths([long, short], 10)
    assert len(caught.value.problems) == 1


def test_pad():
    assert pad([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]


def test_loss_equals_the_plain_one(loaded, text):
    """Sum over supervised tokens one by one, divided by the count of the whole step."""
    batch = text.training_batch(["What color?", "Red?", "How many squares are there?"], ["blue", "yes", "one two"])
    labels = batch.pop("labels")
    query_output = torch.randn(3, NUM_QUERY_TOKENS, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = upstream_logits(loaded.model, query_output, **batch)
        supervised = labels != IGNORE
        keep = supervised if text.seq2seq else supervised.roll(-1, dims=1)
        given = loaded.model(query_output=query_output, **batch, keep=keep)
    log_probabilities = logits.log_softmax(-1)
    expected, count = 0.0, 0
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            if labels[row, column] != IGNORE:
                at = column if text.seq2seq else column - 1
                expected -= log_probabilities[row, at, labels[row, column]].item()
                count += 1
    loss = AnswerLoss()
    assert loss(given, labels).item() == pytest.approx(expected / count, rel=1e-5)
    # With accumulation Trainer hands over the tokens of the whole step: each micro-batch counts by its tokens.
    assert loss(given, labels, num_items_in_batch=2 * count).item() == pytest.approx(expected / count / 2, rel=1e-5)


def test_the_model_computes_the_same_from_features_as_from_pixels(loaded, text):
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    batch = text.training_batch(["What color?", "Red?"], ["blue", "yes"])
    batch.pop("labels")
    with torch.no_grad():
        direct = loaded.model(pixel_values=pixels, **batch).logits
        features = loaded.model.encode(pixels)
        assert features.shape == (2, NUM_QUERY_TOKENS, 32)
        assert torch.equal(direct, loaded.model(query_output=features, **batch).logits)
        upstream = Blip2ForConditionalGeneration.forward(loaded.model, pixel_values=pixels, **batch).logits
    torch.testing.assert_close(direct, upstream)


def test_answers_are_drawn_in_proportion_and_again_alike():
    from blip2vqa.data.examples import Example

    example = Example(3, None, "a.png", "d", "Red?", ("yes",) * 8 + ("no",) * 2, "yes/no", {})
    dataset = AnsweredQuestions([example], seed=5)
    drawn = []
    for epoch in range(400):
        dataset.epoch = epoch
        drawn.append(dataset[0][1])
        assert dataset[0][1] == drawn[-1]  # the same epoch draws the same
    assert 0.72 < drawn.count("yes") / 400 < 0.88

"""Questions of one image in one row: the same loss and the same gradients as one row each."""

import itertools

import pytest
import torch

from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.data.examples import Example
from blip2vqa.models.loading import load_base
from blip2vqa.models.text import IGNORE, TextEncoder
from blip2vqa.training.collators import AnswerLoss, TrainingCollator
from blip2vqa.training.trainer import RowSampler
from helpers.tiny_blip2 import GivenFeatures, upstream_logits

PROMPT = "Question: {question} Answer in one word:"
QUESTIONS = [
    ("a", "What color is the square?", "blue"),
    ("b", "Red?", "no"),
    ("a", "How many squares are there?", "one two"),
    ("a", "Is it?", "yes"),
    ("c", "Is the square green, or is it red?", "red"),
    ("b", "What?", "a square"),
]


@pytest.fixture(scope="module")
def model(tiny_opt):
    loaded = load_base(str(tiny_opt), dtype="float32", quantization="none", device=torch.device("cpu"))
    wrap(loaded, LoraArguments(lora_r=4, lora_dropout=0.0), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.1, generator=generator)
    return loaded


@pytest.fixture(scope="module")
def items():
    return [
        (Example(row, None, digest, digest, question, (answer,), "other", {}), answer)
        for row, (digest, question, answer) in enumerate(QUESTIONS)
    ]


@pytest.fixture(scope="module")
def features(model):
    shape = (3, model.base.config.num_query_tokens, model.base.config.qformer_config.hidden_size)
    return GivenFeatures("abc", torch.randn(shape, generator=torch.Generator().manual_seed(2)))


def text_of(model) -> TextEncoder:
    return model.family.text_encoder(model.processor, model.base.config, PROMPT)


def loss_and_gradients(model, batch):
    model.model.zero_grad()
    labels = batch.pop("labels")
    loss = AnswerLoss()(model.model(**batch), labels)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("tokens_per_row", [512, 40, 60])
def test_loss_and_gradients_equal_those_of_one_row_a_question(model, items, features, tokens_per_row):
    plain, plain_gradients = loss_and_gradients(model, TrainingCollator(text_of(model), features)(items))
    shared, gradients = loss_and_gradients(model, TrainingCollator(text_of(model), features, tokens_per_row)(items))
    assert shared == pytest.approx(plain, rel=1e-6)
    largest = max(gradient.abs().max() for gradient in plain_gradients.values())
    assert largest > 0
    for name, gradient in plain_gradients.items():
        assert (gradients[name] - gradient).abs().max() <= 1e-5 * largest, name


def test_one_row_holds_one_image_and_its_questions_restart_behind_it(model, features, items):
    collator = TrainingCollator(text_of(model), features, 512)
    batch, image = collator(items), collator.text.num_query_tokens
    assert batch["query_output"].shape[0] == len(batch["input_ids"]) == 3  # images a, b, c in the order they come
    torch.testing.assert_close(batch["query_output"], features.values)
    tokenizer = collator.text.tokenizer
    expected, positions, segments = [collator.text.image_token_id] * image, list(range(image)), [0] * image
    for number, (question, answer) in enumerate([QUESTIONS[0][1:], QUESTIONS[2][1:], QUESTIONS[3][1:]], start=1):
        tokens = tokenizer(PROMPT.format(question=question)).input_ids
        tokens = [*tokens, *tokenizer(" " + answer, add_special_tokens=False).input_ids, collator.text.end_token_id]
        expected += tokens
        positions += range(image, image + len(tokens))
        segments += [number] * len(tokens)
    length = len(expected)
    assert batch["input_ids"][0, :length].tolist() == expected
    assert batch["position_ids"][0, :length].tolist() == positions
    for row in range(length):
        for column in range(length):
            sees = column <= row and segments[column] in (0, segments[row])
            assert batch["attention_mask"][0, 0, row, column].item() == sees
    assert batch["keep"].sum() == (batch["labels"] != IGNORE).sum()


def test_rows_stay_within_the_budget(model, features, items):
    collator = TrainingCollator(text_of(model), features, 40)
    batch = collator(items)
    lengths = (batch["attention_mask"].diagonal(dim1=2, dim2=3) & (batch["input_ids"] != 1).unsqueeze(1)).sum(-1)
    assert len(batch["input_ids"]) > 3 and lengths.max() <= 40


def test_kept_logits_are_those_of_the_whole_model(model, features, items):
    batch = TrainingCollator(text_of(model), features)(items)
    labels, keep = batch.pop("labels"), batch.pop("keep")
    with torch.no_grad():
        kept = model.model(keep=keep, **batch).logits
        whole = model.model(**batch).logits
        upstream = upstream_logits(model.base, **batch)
    torch.testing.assert_close(kept, whole[keep])
    torch.testing.assert_close(kept, upstream[keep])
    assert kept.shape[0] == (labels != IGNORE).sum()


def test_the_sampler_keeps_images_together_and_draws_anew(items):
    examples = [example for example, _ in items]
    sampler = RowSampler([example.digest for example in examples], seed=0)
    orders = []
    for epoch in range(20):
        sampler.epoch = epoch
        order = list(sampler)
        assert sorted(order) == list(range(len(examples)))
        digests = [examples[index].digest for index in order]
        changes = sum(one != other for one, other in itertools.pairwise(digests))
        assert changes == 2  # three images, each in one piece
        orders.append(tuple(order))
        assert list(sampler) == order
    assert len(set(orders)) > 10

"""Answers without a picture are those of the language model alone."""

import pytest
import torch

from blip2vqa.api import load
from blip2vqa.inference.without_image import can_answer_without_image
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.tiny_blip2 import make_table
from helpers.tiny_families import make_instructblip, make_vilt

QUESTIONS = ["What color is the square?", "Is the square red?", "How many squares are there, do you think?"]


@torch.inference_mode()
def by_language_model(base, question: str, tokens: int) -> str:
    """What upstream's `generate` of the language model alone says to the prompt."""
    model = load(base, dtype="float32")
    ids = model.text.tokenizer(model.text.fill([question])[0], return_tensors="pt")["input_ids"]
    said = model.loaded.base.language_model.generate(
        input_ids=ids, max_new_tokens=tokens, do_sample=False, eos_token_id=model.text.end_token_id,
        pad_token_id=model.text.pad_token_id,
    )  # fmt: skip
    said = said[0] if model.text.seq2seq else said[0][ids.shape[1] :]
    return model.text.tokenizer.decode(said, skip_special_tokens=True).strip()


@pytest.fixture(params=["opt", "t5", "llama"])
def base(request, tmp_path, tiny_opt, tiny_t5):
    return {"opt": tiny_opt, "t5": tiny_t5}.get(request.param) or make_instructblip(tmp_path / "base")


def test_it_is_what_the_language_model_says_alone(base):
    model = load(base, dtype="float32")
    said = model.answer_batch([None] * 3, QUESTIONS, 2)
    tokens = model.request.decoding.max_new_tokens
    assert [answer.text for answer in said] == [by_language_model(base, question, tokens) for question in QUESTIONS]
    assert len({answer.confidence for answer in said}) == 3


def test_pictures_and_none_in_one_call_keep_their_places(tiny_opt, tmp_path):
    images, _ = make_table(tmp_path, images=2)
    adapter = random_adapter(tiny_opt, tmp_path / "adapter", 1)
    model = load(tiny_opt, adapters={"a": adapter}, dtype="float32")
    pictures, adapters = [images / "0.png", None, images / "1.png", None], ["a", "a", None, None]
    together = model.answer_batch(pictures, ["What color is the square?"] * 4, adapters=adapters)
    for picture, name, answer in zip(pictures, adapters, together, strict=True):
        (alone,) = model.answer_batch([picture], ["What color is the square?"], adapters=[name])
        assert answer.text == alone.text and answer.confidence == pytest.approx(alone.confidence, rel=1e-4)


def test_a_base_whose_picture_is_no_part_of_the_text_cannot(tmp_path):
    model = load(make_vilt(tmp_path / "vilt"), dtype="float32")
    assert not can_answer_without_image(model.request)
    with pytest.raises(InputError, match="ViLT cannot answer without a picture"):
        model.answer_batch([None], ["what is it?"])

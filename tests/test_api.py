"""From Python: pictures, captions in styles, adapters by name, and the base alone."""

import pytest
import torch
from PIL import Image

from blip2vqa import load
from blip2vqa.api import open_picture
from blip2vqa.utils.errors import InputError
from helpers.caption_adapters import BASE, SCENES, caption_adapters, count_encoded
from helpers.family_bases import random_adapter
from helpers.tiny_families import make_vilt


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, str]:
    return caption_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    return count_encoded(monkeypatch)


def test_python_reads_pictures_as_tables_do(tmp_path):
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    picture.save(tmp_path / "clear.png")
    pixels = [open_picture(given).getpixel((0, 0)) for given in (picture, tmp_path / "clear.png")]
    assert pixels == [(255, 255, 255)] * 2
    with pytest.raises(InputError, match=r"image .*absent\.png: "):
        open_picture(tmp_path / "absent.png")


def test_captions_from_python(adapters, encoded):
    model = load(BASE, dtype="float32")
    picture = SCENES / "val-003.png"
    plain, detailed = model.caption(picture), model.caption(Image.open(picture), style="detailed")
    assert plain and len(detailed.split()) > len(plain.split())
    assert model.caption(str(picture), style="creative") == model.caption(picture, style="creative")
    encoded.clear()
    all_three = model.compare_styles(picture)
    assert list(all_three) == ["detailed", "concise", "creative"] and all_three["detailed"] == detailed
    assert sum(encoded) == 1
    with pytest.raises(InputError, match="style pirate: not known; choose from concise, creative, detailed"):
        model.caption(picture, style="pirate")


def test_adapters_by_name_and_the_base_alone_from_python(adapters, encoded):
    picture = SCENES / "val-003.png"
    model = load(BASE, adapters={name: adapters[name] for name in ("concise", "mine")}, dtype="float32")
    said = model.compare_styles(picture, ["mine", "creative", "concise", "detailed"])
    assert sum(encoded) == 1 and list(said) == ["mine", "creative", "concise", "detailed"]
    base = load(BASE, dtype="float32")
    assert said["detailed"] == base.caption(picture, style="detailed")
    assert said["concise"] == load(adapters["concise"], dtype="float32").caption(picture)
    assert model.caption(picture) == base.caption(picture) and model.caption(picture, "mine") == said["mine"]
    question = "how many shapes are there?"
    assert model.answer(picture, question) == base.answer(picture, question)


def test_a_base_that_cannot_caption_says_so(tmp_path):
    model = load(make_vilt(tmp_path / "vilt"), dtype="float32")
    for ask in (model.caption, model.compare_styles):
        with pytest.raises(InputError, match="ViLT cannot write captions"):
            ask(SCENES / "val-000.png")


def test_one_caption_adapter_writes_its_own_style_and_no_other(tmp_path, adapters):
    """Its base is not to be had beside it."""
    known = {"task": "caption", "style": "concise", "prompt": "a photo of", "decoding": {"max_new_tokens": 12}}
    model = load(random_adapter(BASE, tmp_path / "concise", 5, **known), dtype="float32")
    picture = SCENES / "val-003.png"
    assert model.caption(picture, style="concise") == model.caption(picture)
    with pytest.raises(InputError, match="style detailed: this model is the one adapter"):
        model.caption(picture, style="detailed")
    with pytest.raises(InputError, match="it writes captions"):
        model.answer(picture, "how many shapes are there?")


def test_an_adapter_with_dora_beside_others_says_what_it_says_alone(tmp_path, adapters):
    dora = str(random_adapter(BASE, tmp_path / "dora", 6, use_dora=True, task="caption", prompt="a photo of"))
    together = load(BASE, adapters={"dora": dora, "concise": adapters["concise"]}, dtype="float32")
    said = together.compare_styles(SCENES / "val-003.png", ["dora", "concise", "creative"])
    assert said["dora"] == load(dora, dtype="float32").caption(SCENES / "val-003.png")


def test_nobodys_random_numbers_change(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load(BASE, dtype="float32").caption(SCENES / "val-000.png", style="creative")
    assert torch.equal(torch.rand(3), expected)


def test_an_adapter_for_questions_that_captions_is_warned_of(tmp_path, caplog):
    folder = random_adapter(BASE, tmp_path / "vqa", 0, task="vqa", prompt="Question: {question} Answer:")
    picture, warning = (
        SCENES / "val-003.png",
        f"adapter {folder}: was trained to answer questions, not to write captions",
    )
    load(folder, dtype="float32").caption(picture)
    assert warning in caplog.text
    caplog.clear()
    model = load(BASE, adapters={"concise": folder}, dtype="float32")
    model.caption(picture)
    assert not caplog.text
    model.caption(picture, style="concise")
    assert warning in caplog.text


@pytest.mark.parametrize("question", ["", " \n", None, "half of a pair \ud83d"])
def test_an_empty_question_is_refused(question):
    model = load(BASE, dtype="float32")
    picture = SCENES / "val-003.png"
    for ask in (
        lambda: model.answer(picture, question),
        lambda: model.answer_batch([picture] * 2, ["how many?", question], adapters=[None, None]),
    ):
        with pytest.raises(InputError, match=r"question( 1)?: is .*; ask something, or `caption` the picture"):
            ask()
    with pytest.raises(InputError, match=r"question 1: \d+ tokens, but the base model has \d+ positions"):
        model.answer_batch([picture] * 2, ["how many?", "what " * 3000])

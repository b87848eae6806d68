"""What the page starts with."""

import pytest

from blip2vqa.config.demo import DemoArguments
from blip2vqa.demo import starting
from blip2vqa.demo.starting import EXAMPLES, example_pictures, load_model, name_of
from blip2vqa.utils.errors import InputError
from helpers.caption_adapters import BASE, SCENES
from helpers.family_bases import random_adapter


def test_without_arguments_the_photo_base_alone_where_no_quick_start_was_run(capsys, monkeypatch, tmp_path):
    (tmp_path / "configs").mkdir()
    settings = f'{{"base_model_id": "{BASE}", "output_dir": "runs/quickstart"}}'
    (tmp_path / "configs" / "quickstart.json").write_text(settings)
    monkeypatch.setattr(starting, "REPOSITORY", tmp_path)
    monkeypatch.setattr(starting, "QUICK_START", tmp_path / "configs" / "quickstart.json")
    assert list(load_model(DemoArguments(dtype="float32")).spec.adapters) == []
    assert capsys.readouterr().out == "No adapter in runs/quickstart, which the quick start makes: the base alone\n"
    random_adapter(BASE, tmp_path / "runs" / "quickstart", 3)
    assert [ref.name for ref in load_model(DemoArguments(dtype="float32")).spec.adapters] == ["quickstart"]
    monkeypatch.setattr(starting, "QUICK_START", tmp_path / "absent.json")
    with pytest.raises(InputError, match="--base_model_id: missing"):
        load_model(DemoArguments())


def test_names_of_adapters(two_adapters):
    model = load_model(DemoArguments(lora_model_path=[two_adapters["one"]], dtype="float32"))
    assert [ref.name for ref in model.spec.adapters] == ["one"] and model.spec.base_model_id == str(BASE)
    assert [name_of(path) for path in ("USER/NAME", "USER/NAME@v1", "patches")] == ["NAME", "NAME", "patches"]
    with pytest.raises(InputError, match="base is the base's own name here"):
        load_model(DemoArguments(lora_model_path=[f"base={two_adapters['one']}", f"b={two_adapters['two']}"]))


def test_example_pictures(tmp_path, image_dir):
    photos = example_pictures(None)
    assert len(photos) == EXAMPLES and all(path.is_file() for path in photos)
    assert len(example_pictures(str(SCENES))) == EXAMPLES
    with pytest.raises(InputError, match="holds no pictures"):
        example_pictures(str(tmp_path / "images" / ".."))

"""What the page starts with, and what is wrong with it in one line."""

import socket

import pytest

from blip2vqa.config.demo import DemoArguments
from blip2vqa.demo import starting
from blip2vqa.demo.starting import EXAMPLES, example_pictures, load_model, name_of
from blip2vqa.utils.errors import InputError
from helpers.caption_adapters import BASE, SCENES
from helpers.family_bases import random_adapter
from helpers.launching import run_script


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


def refusal(*argv: object, **environment: str) -> str:
    done = run_script("demo.py", *argv, **environment)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    return lines[0]


def test_wrong_starts_are_one_line(two_adapters, tiny_opt):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal("--port", port) == (
            f"error: --port {port}: cannot be had on 127.0.0.1: address already in use; choose another, or 0 for any that is free"
        )
    other = refusal("--port", 0, "--base_model_id", tiny_opt, "--lora_model_path", f"a={two_adapters['one']}")
    assert "does not fit base model" in other
    assert "is no address of this machine" in refusal("--host", "no.such.host.invalid")
    assert refusal("--port", 70000) == "error: --port: 70000 is out of range; it must be from 0 to 65,535"


def test_without_gradio_one_line_says_how_to_install_it(monkeypatch):
    from blip2vqa.cli import demo

    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r'gradio: is not installed, and the demo needs it; pip install "blip2vqa\[demo\]"'
    ):
        demo.main([])

"""Wrong starts of the demo, each in one line."""

import socket

import pytest

from blip2vqa.cli import demo
from blip2vqa.utils.errors import InputError
from helpers.caption_adapters import BASE
from helpers.family_bases import random_adapter
from helpers.launching import run_script


def refusal(*argv: object, **environment: str) -> str:
    done = run_script("demo.py", *argv, **environment)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    return lines[0]


def test_wrong_starts_are_one_line(tiny_opt, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal("--port", port) == (
            f"error: --port {port}: cannot be had on 127.0.0.1: address already in use; "
            "choose another, or 0 for any that is free"
        )
    adapter = random_adapter(BASE, tmp_path / "a", 1)
    other = refusal("--port", 0, "--base_model_id", tiny_opt, "--lora_model_path", f"a={adapter}")
    assert "does not fit base model" in other
    assert "is no address of this machine" in refusal("--host", "no.such.host.invalid")
    assert refusal("--port", 70000) == "error: --port: 70000 is out of range; it must be from 0 to 65,535"


def test_without_gradio_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r'gradio: is not installed, and the demo needs it; pip install "blip2vqa\[demo\]"'
    ):
        demo.main([])

"""Adapters into the store and into a file, by the names that a user gives them."""

import pytest
from jinja2 import Environment

from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange import add, export, import_adapter
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.plain_peft import peft_adapter


def test_a_folder_goes_into_the_store_and_from_there_into_a_file_and_back(tiny_opt, tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    folder, _ = peft_adapter(tiny_opt, tmp_path / "mine")
    assert add(str(folder)) == tmp_path / "store" / "mine"
    assert add("mine", "again") == tmp_path / "store" / "again"
    monkeypatch.chdir(tmp_path)
    assert export("again").name == "again.zip" and (tmp_path / "again.zip").is_file()
    copied = import_adapter(tmp_path / "again.zip", "third")
    assert open_adapter("third").digest == open_adapter(str(folder)).digest and copied.name == "third"


def test_the_prompt_stands_beside_an_archive_for_servers(tiny_opt, tmp_path):
    adapter = random_adapter(tiny_opt, tmp_path / "mine", 1, prompt="Q: {question} A:")
    export(str(adapter), tmp_path / "one.zip")
    template = (tmp_path / "one.jinja").read_text()
    assert Environment().from_string(template).render(messages=[{"role": "user", "content": "what?"}]) == "Q: what? A:"
    (tmp_path / "two.jinja").write_text("my own")
    export(str(adapter), tmp_path / "two.zip")
    assert (tmp_path / "two.jinja").read_text() == "my own"


def test_what_is_no_adapter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    (tmp_path / "empty").mkdir()
    for command in (add, export):
        with pytest.raises(InputError, match="empty"):
            command(str(tmp_path / "empty"))
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").iterdir())

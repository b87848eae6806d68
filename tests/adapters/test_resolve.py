"""What a user calls an adapter: a folder before a name in the store, before a Hub id."""

from pathlib import Path

import pytest

from blip2vqa.adapters.resolve import is_adapter, locate, open_adapter
from blip2vqa.adapters.storage.local import add
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter


@pytest.fixture
def made(tiny_opt, tmp_path, monkeypatch) -> Path:
    """An adapter in a folder, and a store with a copy of it called `kept`."""
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "store"))
    folder = random_adapter(tiny_opt, tmp_path / "made", seed=0)
    add(folder, "kept")
    return folder


def test_a_folder_comes_before_the_store(made, tmp_path, monkeypatch):
    assert locate(made) == (made, str(made), None)
    assert locate("kept", "v1") == (tmp_path / "store" / "kept", "kept", None)
    (tmp_path / "here" / "kept").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert locate("kept") == (Path("kept"), "kept", None)


def test_an_adapter_is_opened_under_the_name_that_the_user_gave(made, tmp_path):
    opened = open_adapter("kept")
    assert (opened.name, opened.folder, opened.revision) == ("kept", tmp_path / "store" / "kept", None)
    assert opened.digest == open_adapter(made).digest


def test_what_is_an_adapter(made, tiny_opt):
    assert is_adapter(str(made)) and is_adapter("kept")
    assert not any(is_adapter(name) for name in (str(tiny_opt), "absent", "someone/absent", "no name!"))


def test_what_is_found_nowhere_is_told_so(made):
    with pytest.raises(InputError, match="adapter absent: no such folder, and no such name in the store"):
        open_adapter("absent")
    with pytest.raises(InputError, match="adapter some/absent: no such folder, no whole copy of it in the Hub's cache"):
        open_adapter("some/absent@v1")


def test_the_one_adapter_in_a_folder_below_is_found_and_several_are_named(made, tiny_opt, tmp_path, caplog):
    (tmp_path / "named").mkdir()
    first = made.rename(tmp_path / "named" / "vqa")
    opened = open_adapter(tmp_path / "named")
    assert (opened.name, opened.folder) == (str(tmp_path / "named"), first) and is_adapter(str(tmp_path / "named"))
    assert f"it is in {first}" in caplog.text
    random_adapter(tiny_opt, tmp_path / "named" / "caption", seed=1)
    with pytest.raises(InputError, match=rf"holds 2 adapters, .*: {tmp_path}/named/caption, {tmp_path}/named/vqa"):
        open_adapter(tmp_path / "named")

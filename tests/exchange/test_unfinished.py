"""A folder that is made in several steps: begun once, gone on with by the same settings, and by one process at a time."""

import pytest

from blip2vqa.exchange.unfinished import making, note_of
from blip2vqa.utils.errors import InputError


def stop(folder, settings) -> None:
    """Begin a folder, and be stopped in the middle."""
    with pytest.raises(KeyboardInterrupt), making(folder, settings) as begun:
        folder.mkdir(exist_ok=True)
        assert not begun
        raise KeyboardInterrupt


def test_a_finished_folder_has_no_note_and_is_left_alone(tmp_path):
    with making(tmp_path / "out", {"seed": 1}) as begun:
        assert not begun and note_of(tmp_path / "out").is_file()
        (tmp_path / "out").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(InputError, match="is already there"), making(tmp_path / "out", {"seed": 1}):
        pytest.fail("it is finished")


def test_a_stopped_one_goes_on_with_the_same_settings(tmp_path):
    stop(tmp_path / "out", {"seed": 1})
    with making(tmp_path / "out", {"seed": 1}) as begun:
        assert begun
    assert not note_of(tmp_path / "out").exists()


def test_other_settings_are_refused(tmp_path):
    stop(tmp_path / "out", {"seed": 1})
    with pytest.raises(InputError, match="begun with other settings"), making(tmp_path / "out", {"seed": 2}):
        pytest.fail("it is another one")
    assert note_of(tmp_path / "out").is_file()


def test_what_fails_before_the_folder_is_there_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no such base"), making(tmp_path / "out", {}):
        raise InputError("no such base")
    assert not any(tmp_path.iterdir())


def test_a_note_without_its_folder_does_not_bind(tmp_path):
    stop(tmp_path / "out", {"seed": 1})
    (tmp_path / "out").rmdir()
    with making(tmp_path / "out", {"seed": 2}) as begun:
        assert not begun


def test_a_second_process_says_so(tmp_path):
    with making(tmp_path / "out", {}):
        with pytest.raises(InputError, match="another run is writing to it"), making(tmp_path / "out", {}):
            pytest.fail("both at once")

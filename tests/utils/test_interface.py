"""The interface that leads to machine 0."""

import os

import pytest

from blip2vqa.utils.interface import NAME, choose_interface


@pytest.fixture
def launched(monkeypatch):
    """Say in the environment what a launch over two machines says."""
    given = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(NAME, "")
    monkeypatch.delenv(NAME)  # what is set during the test is taken back
    return monkeypatch


def test_the_interface_of_machine_0s_address_is_used(launched):
    choose_interface()
    assert os.environ[NAME] == "lo"


@pytest.mark.parametrize(
    ("name", "value"), [("LOCAL_WORLD_SIZE", "2"), ("MASTER_ADDR", "no.such.host.invalid"), (NAME, "mine")]
)
def test_one_machine_an_unknown_address_and_the_users_own_choice_change_nothing(launched, name, value):
    launched.setenv(name, value)
    choose_interface()
    assert os.environ.get(NAME) == (value if name == NAME else None)

"""Requests about one picture: the fields sent, and when no more are begun."""

import os

import pytest

from blip2vqa.generate.ask.api.requester import Requester
from blip2vqa.generate.ask.api.responses import Responses
from blip2vqa.generate.ledger import Ledger
from blip2vqa.utils.errors import InputError
from helpers.api_runs import make_args
from helpers.chat_server import ChatServer, make_items

pytestmark = pytest.mark.usefixtures("endpoint")


def full(*_):
    raise OSError(28, "No space left on device")


def test_once_the_disk_is_full_no_request_is_begun(tmp_path, monkeypatch):
    items, ledger = make_items(tmp_path, 2), Ledger(tmp_path / "ledger.jsonl")
    with ChatServer() as server, ledger:
        responses = Responses(make_args(server), ledger, 5, 1)
        requester = Requester(responses)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            first, second = (requester.ask(responses.digest(item), item) for item in items)
        assert isinstance(first.error, InputError) and requester.stop.is_set()
        assert second.status == "unasked" and len(server.requests) == 1
        requester.client.close()

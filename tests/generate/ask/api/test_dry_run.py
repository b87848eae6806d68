"""The dry run shows the prompt and the cost, and sends nothing."""

from dataclasses import replace

import pytest

from blip2vqa.generate.ask.api.backend import ask_api
from blip2vqa.generate.ask.api.dry_run import dry_run
from blip2vqa.generate.ledger import Ledger
from blip2vqa.utils.errors import InputError
from helpers.api_runs import make_args
from helpers.chat_server import ChatServer, make_items

pytestmark = pytest.mark.usefixtures("endpoint")


def test_a_dry_run_sends_nothing(tmp_path, monkeypatch):
    items = make_items(tmp_path, 3)
    with ChatServer() as server, Ledger(tmp_path / "ledger.jsonl") as ledger:
        args = make_args(server)
        ask_api(items[:1], args, ledger, 5)
        sent = server.requests[0]
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.setattr("openai.OpenAI", None)
        text = dry_run(items, replace(args, dry_run=True), ledger, 5, 42)
        assert len(server.requests) == 1
    assert sent["messages"][0]["content"] in text and sent["messages"][1]["content"][0]["text"] in text
    assert items[0].digest in text and "8×6 pixels" in text and "base64" not in text
    assert (
        "requests: 2" in text
        and "1 are in the ledger" in text
        and "at most 2,000" in text
        and "cost: about $0.0" in text
    )
    # 2 requests of (picture 400 to 10,000) tokens and a text of about 800
    args = replace(
        args, dry_run=True, api_base_url=None, usd_per_million_input_tokens=0, usd_per_million_output_tokens=0
    )
    assert "unknown" in dry_run(items, args, {}, 5, 42)
    with pytest.raises(InputError, match="no picture to ask about"):
        dry_run([], args, {}, 5, 42)

"""How the API back end is run against a server on loopback."""

import json

from blip2vqa.config.generate import ApiArguments
from helpers.chat_server import ChatServer

KEY = "sk-secret-0123456789"


def make_args(server: ChatServer, **changes) -> ApiArguments:
    given = {
        "api_model": "seer",
        "api_base_url": server.url,
        "requests_per_minute": 60_000.0,
        "parallel_requests": 1,
        "request_seconds": 20.0,
        "max_retries": 1,
        "usd_per_million_input_tokens": 1.0,
        "usd_per_million_output_tokens": 4.0,
    }
    return ApiArguments(**given | changes)


PRICE = (1000 * 1.0 + 50 * 4.0) / 1e6  # of one answer of the server


def kept(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]

"""Key, address and arguments of the API back end, and its dry run."""

import logging
import subprocess
import sys
from dataclasses import replace

import pytest

from blip2vqa.config.generate import ApiArguments
from blip2vqa.generate.ask.api.endpoint import endpoint_problems, is_local
from blip2vqa.utils.errors import InputError
from helpers import chat_server
from helpers.api_runs import KEY
from helpers.chat_server import ChatServer
from helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("endpoint")


def test_the_key_is_nowhere(ask, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    echo = chat_server.error(400, f"bad request with Authorization: Bearer {KEY}")
    with ChatServer([chat_server.seen, echo]) as server:
        ask(server, 3)
        server.reply = echo
        with pytest.raises(InputError) as caught:
            ask(server, 20)
    assert f"Bearer [{'OPENAI_API_KEY'}]" in str(caught.value)
    out, err = capfd.readouterr()
    texts = [out, err, caplog.text, str(caught.value), (tmp_path / "ledger.jsonl").read_text()]
    assert not any(KEY in text for text in texts)


def test_a_local_server_needs_no_key(ask, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer() as server:
        assert ask(server).counts["answered"] == 1
    assert server.headers[0]["authorization"] == "Bearer none"


def test_the_address_may_come_from_the_environment(ask, monkeypatch):
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert ask(server, api_base_url=None).counts["answered"] == 1


def test_arguments_are_checked_together(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    wrong = ApiArguments(
        requests_per_minute=0, parallel_requests=0, request_seconds=float("nan"), max_retries=-1, max_output_tokens=0,
        usd_per_million_input_tokens=-1, usd_per_million_output_tokens=float("inf"), spending_limit_usd=0,
    )  # fmt: skip
    found = wrong.check() + endpoint_problems(wrong)
    flags = ["requests_per_minute", "parallel_requests", "request_seconds", "max_retries", "max_output_tokens"]
    flags += ["usd_per_million_input_tokens", "usd_per_million_output_tokens", "spending_limit_usd", "api_model"]
    assert len(found) == 10 and all(any(f"--{flag}" in line for line in found) for flag in flags)
    assert "OPENAI_API_KEY: not set; api.openai.com needs a key" in found[-1]
    assert wrong.check() == found[:8], "whatever the back end"
    assert ApiArguments().check() == []


@pytest.mark.parametrize(
    ("flag", "good", "bad"),
    [
        ("requests_per_minute", (0.01, float("inf")), (0.0, -5.0, float("nan"))),
        ("parallel_requests", (1, 64), (0, 65)),
        ("request_seconds", (0.1, 86400.0), (0.0, 1e12, float("nan"))),
        ("max_retries", (0, 20), (-1, 999)),
        ("max_output_tokens", (1, 10**6), (0, -1)),
        ("usd_per_million_input_tokens", (0.0, 1e3), (-1.0, float("inf"), float("nan"))),
        ("usd_per_million_output_tokens", (0.0, 1e3), (-1.0, float("inf"), float("nan"))),
        ("spending_limit_usd", (None, 0.01), (0.0, -1.0, float("inf"), float("nan"))),
    ],
)
def test_ranges(flag, good, bad):
    priced = replace(GOOD, usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=1.0)
    assert all(replace(priced, **{flag: value}).check() == [] for value in good)
    for value in bad:
        (line,) = replace(priced, **{flag: value}).check()
        assert line.startswith(f"--{flag}: {value!r} is out of range")


GOOD = ApiArguments(api_model="seer")


@pytest.mark.parametrize(
    ("changes", "key", "why"),
    [
        ({"api_model": None}, KEY, "--api_model: missing"),
        ({"spending_limit_usd": 5.0}, KEY, "--spending_limit_usd 5.0: cannot be kept without prices"),
        ({}, "", "OPENAI_API_KEY: not set"),
        ({}, "sk-1\nsk-2", "OPENAI_API_KEY: holds a space, a line break"),
        ({}, "sk-é", "OPENAI_API_KEY: holds"),
        ({"api_base_url": "http://example.com/v1"}, KEY, "would send the key unencrypted"),
        ({"api_base_url": "example.com/v1"}, KEY, "--api_base_url: not an address"),
        ({"api_base_url": "http://[::1/v1"}, KEY, "--api_base_url: not an address"),
        ({"api_base_url": "http://localhost:x/v1"}, KEY, "--api_base_url: not an address"),
        ({"api_base_url": f"https://me:{KEY}@example.com/v1"}, KEY, "--api_base_url: holds a password"),
        ({"api_base_url": f"https://example.com/v1?key={KEY}"}, KEY, "--api_base_url: holds a password or a query"),
    ],
)
def test_each_wrong_argument_is_one_line(monkeypatch, changes, key, why):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert GOOD.check() + endpoint_problems(GOOD) == []
    monkeypatch.setenv("OPENAI_API_KEY", key)
    wrong = replace(GOOD, **changes)
    (line,) = wrong.check() + endpoint_problems(wrong)
    assert why in line and KEY not in line and "\n" not in line


def test_local_addresses():
    local = "http://localhost:8000/v1 http://127.0.0.1 http://[::1]:1 http://10.1.2.3/v1 http://192.168.0.9 http://vllm:8000"
    assert all(is_local(url) for url in local.split())
    assert not any(
        is_local(url) for url in "https://api.openai.com/v1 http://8.8.8.8 http://localhost.example.com".split()
    )


def test_arguments_are_checked_without_a_client():
    code = "import sys; import blip2vqa.generate.ask.api.endpoint, blip2vqa.generate.ledger; "
    code += "print([name for name in ('openai', 'torch', 'PIL', 'transformers') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"
    code = "import sys; import blip2vqa.generate.ask.api.backend; "
    code += "print([name for name in ('openai', 'torch', 'transformers') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"

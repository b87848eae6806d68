"""Pace and spending limit of the API back end."""

import threading
import time
from dataclasses import replace

import pytest

from blip2vqa.generate.ask.api.limits import Budget, Pace
from helpers import chat_server
from helpers.api_runs import kept
from helpers.chat_server import ChatServer, question_fields

pytestmark = pytest.mark.usefixtures("endpoint")


def test_requests_keep_their_distance(ask):
    with ChatServer([chat_server.error(500)]) as server:
        ask(server, 4, parallel_requests=4, requests_per_minute=600.0)
    distances = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert len(distances) == 4 and min(distances) > 0.07 and sum(distances) > 0.37, "tries after a failure too"


def test_a_stopped_pace_lets_nobody_wait():
    pace, stop = Pace(1), threading.Event()
    assert pace.wait(stop)
    threading.Timer(0.05, stop.set).start()
    begun = time.monotonic()
    assert not pace.wait(stop) and time.monotonic() - begun < 5


def test_a_budget_waits_for_what_is_under_way():
    budget = Budget(limit=1.0, spent=0.25)
    assert budget.reserve(0.5)
    threading.Timer(0.05, budget.settle, (0.5, 0.125)).start()
    assert budget.reserve(0.5), "there is room once the first has cost less"
    budget.settle(0.5, 0.5)
    assert budget.spent == 0.875 and not budget.reserve(0.5) and budget.reserve(0.125)


@pytest.mark.parametrize("parallel", [1, 4])
def test_the_spending_limit_is_never_exceeded(ask, tmp_path, caplog, parallel):
    limit = 0.05
    with ChatServer(reply=lambda request: replace(chat_server.seen(request), seconds=0.01)) as server:
        asked = ask(server, 60, spending_limit_usd=limit, parallel_requests=parallel)
        spent = sum(record["usd"] for record in kept(tmp_path))
        asked_about = len(server.requests)
        assert limit - 0.02 < spent <= limit and asked.counts["usd"] == pytest.approx(spent)
        assert asked.counts["answered"] == asked_about == len(kept(tmp_path)) < 60
        assert asked.counts["unasked"] == 60 - asked_about
        assert f"{60 - asked_about} of 60 pictures were not asked about" in asked.counts["stopped"]
        assert len(asked.questions) == 2 * asked_about
        again = ask(server, 60, spending_limit_usd=limit, parallel_requests=parallel)
        assert len(server.requests) == asked_about, "earlier runs count"
        assert question_fields(again) == question_fields(asked)
        more = ask(server, 60, spending_limit_usd=1.0)
        assert len(server.requests) == 60 and more.counts["stopped"] is None


def test_a_limit_below_one_request_sends_nothing(ask):
    with ChatServer() as server:
        asked = ask(server, 2, spending_limit_usd=0.001)
        assert not server.requests and asked.counts["unasked"] == 2 and asked.questions == []


def test_the_reserve_is_above_what_a_prompt_takes(ask, tmp_path):
    # Output of more tokens than was asked for, of a server that passes over the limit: learned from.
    with ChatServer(reply=lambda request: chat_server.questions(("a?", "b", "color"), usage=(1000, 20_000))) as server:
        asked = ask(server, 20, spending_limit_usd=0.45)
        assert asked.counts["usd"] == 0.405 and asked.counts["stopped"] and asked.counts["answered"] == 5
        ask(server, 20, spending_limit_usd=0.45)
        assert len(server.requests) == 5, "the next run has learned it, too"


def test_an_endpoint_that_counts_no_tokens(ask, tmp_path, caplog):
    with ChatServer(reply=chat_server.questions(("a?", "b", "color"), usage=None)) as server:
        asked = ask(server)
    (record,) = kept(tmp_path)
    assert record["estimated"] and record["usd"] > 0 and asked.counts["input_tokens"] == record["input_tokens"] > 1000
    assert "gives no token counts; they are estimated" in caplog.text

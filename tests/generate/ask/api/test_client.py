"""The API back end against a real server that fails: what is tried again, counted, given up."""

import hashlib
from dataclasses import replace

import pytest

from blip2vqa.generate.ask.api.backend import ask_api
from blip2vqa.generate.ledger import Ledger
from blip2vqa.utils.errors import InputError
from helpers import chat_server
from helpers.api_runs import KEY, PRICE, kept, make_args
from helpers.chat_server import ChatServer, Reply, make_items, question_fields

pytestmark = pytest.mark.usefixtures("endpoint")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(ask, tmp_path, status):
    with ChatServer([chat_server.error(status), chat_server.error(status)]) as server:
        asked = ask(server, max_retries=2)
        assert len(server.requests) == 3
    assert asked.counts["answered"] == 1 and asked.counts["requests"] == 1 and len(kept(tmp_path)) == 1


def test_retry_after_is_kept_to(ask):
    with ChatServer([chat_server.error(429, retry_after_ms="400")]) as server:
        assert ask(server).counts["answered"] == 1
    assert server.times[1] - server.times[0] >= 0.4


FAULTS = {
    "429": (chat_server.error(429, "slow down"), "too many requests (429: slow down)"),
    "500": (chat_server.error(500, "on fire\nstack"), "answers 500: on fire"),
    "slow": (Reply(seconds=5), "no answer within 0.3 seconds"),
    "closed": (Reply(close=True), "the connection broke off"),
    "page": (Reply(body="<html>Log in</html>", content_type="text/html"), "no chat completion (<html>Log in</html>)"),
    "no choices": (Reply(body={"choices": []}), "no chat completion"),
    "choices by name": (Reply(body={"choices": {"a": 1}}), "no chat completion"),
    "an error as an answer": (
        Reply(body={"error": {"message": "upstream"}}),
        "no chat completion ({'message': 'upstream'})",
    ),
    "no JSON": (Reply(body="{"), "not JSON"),
    "no UTF-8": (Reply(body=b'{"id": "\xff"}'), "not JSON"),
    "deep": (Reply(body="[" * 100_000), "not JSON"),
    "a long number": (Reply(body='{"id": ' + "9" * 5000 + "}"), "not JSON"),
    "400": (chat_server.error(400, "response_format is unknown"), "an endpoint with JSON schema output"),
    "413": (chat_server.error(413, "too large"), "answers 413: too large"),
}


@pytest.mark.parametrize(("reply", "why"), FAULTS.values(), ids=FAULTS)
def test_a_picture_without_an_answer_is_asked_about_again(ask, tmp_path, caplog, reply, why):
    with ChatServer([chat_server.seen, reply, reply]) as server:  # two: the client tries once more
        if server.replies[1].status in (200, 400, 413) and not (reply.close or reply.seconds):
            server.replies.pop()
        asked = ask(server, 3, request_seconds=0.3)
        assert asked.counts["no_answer"] == 1 and asked.counts["answered"] == 2
        assert len(kept(tmp_path)) == 2
        (message,) = caplog.messages
        assert message.startswith("1 pictures got no answer, the last: ") and why in message
        asked = ask(server, 3, request_seconds=5)
    assert asked.counts["no_answer"] == 0 and asked.counts["answered"] == 3 and asked.counts["requests"] == 1
    (tmp_path / "ledger.jsonl").unlink()
    with ChatServer(reply=chat_server.seen) as server:
        assert question_fields(ask(server, 3)) == question_fields(asked), "as if nothing had happened"


@pytest.mark.parametrize(("reply", "why"), FAULTS.values(), ids=FAULTS)
def test_an_endpoint_that_keeps_failing_is_given_up(ask, tmp_path, reply, why):
    with ChatServer([chat_server.seen], reply=replace(reply, seconds=min(reply.seconds, 0.3))) as server:
        with pytest.raises(
            InputError, match=r"failed for 5 pictures in a row.*what came is kept: run the same"
        ) as caught:
            ask(server, 20, request_seconds=0.1 if reply.seconds else 20, max_retries=0)
        assert len(server.requests) < 20, "given up long before the last"
    assert why.replace("0.3", "0.1") in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert len(kept(tmp_path)) == 1


def test_failures_are_counted_in_a_row(ask):
    bad = chat_server.error(400)
    with ChatServer([*[bad] * 4, chat_server.seen] * 3) as server:
        asked = ask(server, 15)
    assert asked.counts["no_answer"] == 12 and asked.counts["answered"] == 3


def test_answers_that_cannot_be_read_are_counted_in_a_row(ask):
    nonsense = [chat_server.completion("nonsense")] * 2  # one picture's
    with ChatServer([*nonsense * 9, chat_server.seen] * 2) as server:
        asked = ask(server, 20)
    assert asked.counts["malformed"] == 18 and asked.counts["answered"] == 2


def test_failures_between_do_not_make_nonsense_readable(ask):
    nonsense = [chat_server.completion("nonsense")] * 2
    with ChatServer([*nonsense, chat_server.error(400)] * 30) as server:
        with pytest.raises(InputError, match="its answers about 10 pictures in a row cannot be read"):
            ask(server, 60)
        assert 29 <= len(server.requests) <= 32


def test_a_picture_that_cannot_be_sent_does_not_end_a_row_of_failures(tmp_path):
    items = make_items(tmp_path, 20)
    for place in range(3, 20, 4):
        items[place].path.write_bytes(b"no picture")
        items[place] = replace(items[place], digest=hashlib.sha256(b"no picture").hexdigest())
    with ChatServer(reply=chat_server.error(400)) as server, Ledger(tmp_path / "ledger.jsonl") as ledger:
        with pytest.raises(InputError, match="failed for 5 pictures in a row"):
            ask_api(items, make_args(server), ledger, 5)
        assert len(server.requests) <= 6


def test_a_fault_of_our_own_is_not_laid_on_the_endpoint(ask, monkeypatch):
    def fail(*_):
        raise ValueError("I/O operation on closed file")

    monkeypatch.setattr(Ledger, "add", fail)
    with ChatServer() as server, pytest.raises(ValueError, match="closed file"):
        ask(server, 2)


def test_what_is_billed_without_a_choice_is_kept(ask, tmp_path):
    # As of a prompt that a filter stopped: counted, and not asked about without end.
    reply = chat_server.completion(None)
    reply.body["choices"] = []
    with ChatServer(reply=reply) as server:
        for _ in range(2):
            counts = ask(server).counts
            assert (counts["malformed"], counts["answers"], counts["usd"]) == (1, 2, 2 * PRICE)
        assert len(server.requests) == 2
    with ChatServer(reply=chat_server.questions(("a?", "b", "color"), usage=(10**400, 1))) as server:
        (tmp_path / "ledger.jsonl").unlink()
        assert ask(server).counts["answered"] == 1, "a count that cannot be is estimated"


def test_few_pictures_that_all_fail_are_an_error(ask):
    with (
        ChatServer(reply=chat_server.error(500)) as server,
        pytest.raises(InputError, match="failed for every picture, the last: answers 500: at fault"),
    ):
        ask(server, 2, max_retries=0)


STOPS = {
    "401": (chat_server.error(401, f"Incorrect key: {KEY}"), "refuses the key in OPENAI_API_KEY (401)"),
    "403": (chat_server.error(403, f"not for {KEY}"), "refuses the key in OPENAI_API_KEY (403)"),
    "404": (chat_server.error(404, "no model seer"), "does not know the model seer (404: no model seer)"),
    "402": (chat_server.error(402, "pay"), "has no credit left (402: pay)"),
    "quota": (
        chat_server.error(429, "You exceeded it", "insufficient_quota"),
        "has no credit left (429: You exceeded it)",
    ),
}


@pytest.mark.parametrize(("reply", "why"), STOPS.values(), ids=STOPS)
def test_what_no_other_picture_mends_stops_at_once(ask, tmp_path, reply, why):
    with ChatServer([chat_server.seen, chat_server.seen, reply], reply=reply) as server:
        with pytest.raises(InputError) as caught:
            ask(server, 20, max_retries=3)
        assert len(server.requests) <= 4, "not even tried again"
        assert why in str(caught.value) and "run the same command again" in str(caught.value)
        server.reply = chat_server.seen
        asked = ask(server, 20)
    assert asked.counts["from_ledger"] >= 2 and asked.counts["answered"] == 20


def test_an_absent_endpoint_is_named(ask):
    with ChatServer() as server:
        pass
    with pytest.raises(InputError, match=r"http://127.0.0.1:\d+/v1: cannot be reached .*refused.*is it running"):
        ask(server, 3)


@pytest.mark.parametrize(
    ("data", "message"), [(None, "cannot be read any more"), (b"another", "has changed since it was checked")]
)
def test_a_picture_that_changed_is_not_sent(tmp_path, data, message):
    items = make_items(tmp_path, 9)
    path = items[2].path
    path.write_bytes(data) if data else path.unlink()
    with ChatServer() as server, Ledger(tmp_path / "ledger.jsonl") as ledger:
        with pytest.raises(InputError, match=rf"image .*2\.png: .*{message}") as caught:
            ask_api(items, make_args(server), ledger, 5)
        assert len(caught.value.problems) == 1
        assert len(server.requests) == len(ledger.records()) == 2, "and what came is kept"


def test_a_picture_that_cannot_be_decoded_is_not_the_endpoints_fault(tmp_path, caplog):
    items = make_items(tmp_path, 8)
    for place, item in enumerate(items[:6]):
        item.path.write_bytes(b"no picture")
        items[place] = replace(item, digest=hashlib.sha256(b"no picture").hexdigest())
    with ChatServer() as server, Ledger(tmp_path / "ledger.jsonl") as ledger:
        asked = ask_api(items, make_args(server), ledger, 5)
    assert asked.counts["no_answer"] == 6 and asked.counts["answered"] == 2
    assert "5.png: not an image" in caplog.text

"""The prompt's hash, and answers that are read from the ledger."""

from dataclasses import replace

import pytest

from blip2vqa.config.generate import ApiArguments
from blip2vqa.generate.ask.api.responses import Responses
from helpers import chat_server
from helpers.api_runs import PRICE, kept
from helpers.chat_server import ChatServer, make_items, question_fields

pytestmark = pytest.mark.usefixtures("endpoint")


def test_the_hash_is_of_all_that_is_sent(tmp_path):
    (item,) = make_items(tmp_path, 1)

    def digest(item=item, num_questions=5, seed=1, **changes):
        args = ApiArguments(api_model="seer")
        return Responses(replace(args, **changes), {}, num_questions, seed).digest(item)

    same = {digest(), digest(replace(item, facts=dict(reversed(item.facts.items())))), digest(parallel_requests=9)}
    assert len(same) == 1
    others = [
        digest(replace(item, digest="0" * 64)), digest(replace(item, name="Stool")), digest(num_questions=6),
        digest(replace(item, facts={"color": "red"})), digest(api_model="other"), digest(max_output_tokens=9),
        digest(seed=2),
    ]  # fmt: skip
    assert len({*same, *others}) == 8


NONSENSE = {
    "no JSON": chat_server.completion("Here are your questions: what color is it?"),
    "cut JSON": chat_server.completion('{"questions": [{"question": "What'),
    "deep": chat_server.completion("[" * 100_000),
    "empty": chat_server.completion(None),
    "a list": chat_server.completion('[{"question": "a?", "answer": "b", "question_type": "color"}]'),
    "another schema": chat_server.completion('{"items": []}'),
    "a number": chat_server.completion('{"questions": [{"question": "a?", "answer": 3, "question_type": "count"}]}'),
    "no text": chat_server.completion('{"questions": [{"question": " ", "answer": "b", "question_type": "color"}]}'),
    "no answer": chat_server.completion('{"questions": [{"question": "a?"}]}'),
    "text": chat_server.completion('{"questions": ["a?"]}'),
    "length": replace(chat_server.questions(("a?", "b", "color"), finish_reason="length")),
    "filter": replace(chat_server.questions(("a?", "b", "color"), finish_reason="content_filter")),
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
def test_what_cannot_be_read_is_asked_twice_at_most(ask, tmp_path, reply):
    with ChatServer([reply]) as server:
        asked = ask(server)
        assert len(server.requests) == 2
    assert asked.counts["answered"] == 1 and len(asked.questions) == 2
    assert asked.counts["requests"] == 2 and asked.counts["usd"] == pytest.approx(2 * PRICE), "both were paid"
    assert [record["attempt"] for record in kept(tmp_path)] == [1, 2]
    (tmp_path / "ledger.jsonl").unlink()
    with ChatServer([reply, reply]) as server:
        asked = ask(server, 2)
        again = ask(server, 2)
        assert len(server.requests) == 3
    assert asked.counts["malformed"] == 1 and asked.counts["answered"] == 1
    assert question_fields(again) == question_fields(asked) and again.counts["malformed"] == 1

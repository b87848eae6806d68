"""Limits for requests: how fast they may begin, and how much they may cost together."""

import json
import math
import threading
import time

from blip2vqa.generate.ask.prompts import RESPONSE_FORMAT

# A picture of 512 pixels is 85 to 400 tokens to most models; the dearest known count, OpenAI's of gpt-4o-mini, is 8,500.
PICTURE_TOKENS = 400
PICTURE_TOKENS_HIGH = 10_000


class Pace:
    """Spaces the beginnings of requests evenly, at most `per_minute` in a minute, whichever thread begins them."""

    def __init__(self, per_minute: float):
        self._interval = 60 / per_minute
        self._lock = threading.Lock()
        self._next = -math.inf  # of time.monotonic(), seconds

    def wait(self, stop: threading.Event) -> bool:
        """Wait for the next turn; returns False, at once, when `stop` is set before it comes."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._interval
        return not stop.wait(max(0.0, turn - time.monotonic()))


class Budget:
    """Keeps what was spent, and what requests under way may cost at most, below `limit` together; all in US dollars."""

    def __init__(self, limit: float | None, spent: float):
        self._limit = math.inf if limit is None else limit
        self._changed = threading.Condition()
        self.under_way: list[float] = []
        """What is set aside for each request that has not ended."""
        self.spent = spent

    def reserve(self, most: float) -> bool:
        """Set `most` aside for one request; returns False if there is no room for it.

        Requests under way mostly cost less than what is set aside for them, so their end is waited for before that.
        """
        with self._changed:
            while self.spent + sum(self.under_way) + most > self._limit:
                if not self.under_way:
                    return False
                self._changed.wait()
            self.under_way.append(most)
            return True

    def settle(self, most: float, cost: float) -> None:
        """End a request for which `most` was set aside, and which has cost `cost`."""
        with self._changed:
            self.under_way.remove(most)
            self.spent += cost
            self._changed.notify_all()


def most_input_tokens(messages: list[dict]) -> int:
    """Bound the tokens of a prompt with one picture from above: no tokenizer makes more of a text than its bytes."""
    text = "".join(json.dumps(part, ensure_ascii=False) for part in (messages, RESPONSE_FORMAT))
    return len(text.encode("utf-8", "replace")) + PICTURE_TOKENS_HIGH


def likely_input_tokens(messages: list[dict]) -> int:
    """Estimate the tokens of a prompt with one picture: one for four bytes of English, and an everyday picture."""
    return (most_input_tokens(messages) - PICTURE_TOKENS_HIGH) // 4 + PICTURE_TOKENS

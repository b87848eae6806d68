"""Send the requests about one picture within pace and spending limit, and keep what comes in the ledger."""

import base64
import threading
from datetime import UTC, datetime

from blip2vqa.data.images import BadImage
from blip2vqa.generate.ask import prompts
from blip2vqa.generate.ask.api.client import NotAnAnswer, Stopped, complete, explain, first_choice, open_client
from blip2vqa.generate.ask.api.endpoint import OPENAI_URL, endpoint_url
from blip2vqa.generate.ask.api.limits import Budget, Pace, most_input_tokens
from blip2vqa.generate.ask.api.responses import Outcome, Responses, record_key
from blip2vqa.generate.rows import Item

LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")
MOST_TOKENS = 10**9  # of one answer; a larger count is nonsense


class Requester:
    """Asks about one picture after another, in as many threads as call it.

    Once `stop` is set or `limit_reached`, it begins no request. What ends the run sets `stop`: where the disk is full, say, the
    next answer would be paid for and lost.
    """

    def __init__(self, responses: Responses):
        self.args, self._responses, self._ledger = responses.args, responses, responses.ledger
        records = self._ledger.records()
        self.stop = threading.Event()
        self.budget = Budget(self.args.spending_limit_usd, sum(record.get("usd", 0.0) for record in records))
        self.limit_reached = False
        self.estimated = False
        """Whether the endpoint gave no token counts."""
        self.client = open_client(self.args, Pace(self.args.requests_per_minute), self.stop)
        # OpenAI's newer models refuse max_tokens; Mistral refuses the newer name, and Ollama ignores it.
        self._limit_field = LIMIT_FIELDS[0] if endpoint_url(self.args) == OPENAI_URL else LIMIT_FIELDS[1]
        self._most_seen = {  # tokens of any one answer so far
            name: max((record.get(name, 0) for record in records), default=0)
            for name in ("input_tokens", "output_tokens")
        }

    def ask(self, digest: str, item: Item) -> Outcome:
        """Ask until the ledger tells what became of the picture, or there is nothing more to do about it.

        A failure of any kind, also a picture that is gone or has changed, is returned as the outcome's `error`. One that no
        other picture would fare better with sets `stop`, and leaves `why` empty.
        """
        try:
            for attempt in [number for number, record in self._responses.attempts(digest).items() if record is None]:
                outcome = self._ask_once(item, digest, attempt) or self._responses.outcome(digest)
                if outcome is not None:
                    break
        except Exception as error:
            try:
                outcome = Outcome("no_answer", explain(error, self.args), error=error)
            except Exception as final:  # raised again in the main thread, which collects the outcomes
                self.stop.set()
                outcome = Outcome("no_answer", error=final)
        return outcome

    def _ask_once(self, item: Item, digest: str, attempt: int) -> Outcome | None:
        """Ask once and keep the answer; returns what happened instead, if none came."""
        if self.stop.is_set() or self.limit_reached:
            return Outcome("unasked")
        try:
            jpeg, _ = prompts.encode_picture(item)
        except BadImage as bad:
            return Outcome("no_answer", f"{item.image_name}: {bad.reason}")
        most_input = max(most_input_tokens(self._responses.messages(item, "")), self._most_seen["input_tokens"])
        most = self._cost(most_input, max(self.args.max_output_tokens, self._most_seen["output_tokens"]))
        if not self.budget.reserve(most):
            self.limit_reached = True
            return Outcome("unasked")
        cost = 0.0
        try:
            picture_url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
            completion = self._send(self._responses.messages(item, picture_url))
            record = self._record(completion, most_input)
            cost = record["usd"]
            about = {"prompt_hash": digest, "image_name": item.image_name, "item_id": item.item_id, "attempt": attempt}
            self._ledger.add({record_key(digest, attempt): about | record})
            return None
        except Stopped:
            return Outcome("unasked")
        finally:
            self.budget.settle(most, cost)

    def _send(self, messages: list[dict]):
        """Send one request, with the other name of the token limit where the endpoint refuses the first."""
        body = {"model": self.args.api_model, "messages": messages, "response_format": prompts.RESPONSE_FORMAT}
        name, limit = self._limit_field, self.args.max_output_tokens
        try:
            return complete(self.client, **body, **{name: limit})
        except Exception as error:
            if getattr(error, "status_code", 0) not in (400, 422) or name not in str(error):
                raise
        self._limit_field = next(other for other in LIMIT_FIELDS if other != name)
        return complete(self.client, **body, **{self._limit_field: limit})

    def _record(self, completion, most_input: int) -> dict:
        """Make the ledger's record of an answer; tokens are estimated, on the high side, where the endpoint does not count."""
        usage = getattr(completion, "usage", None)
        counts = {"input_tokens": getattr(usage, "prompt_tokens", None)}
        counts["output_tokens"] = getattr(usage, "completion_tokens", None)
        counted = all(isinstance(count, int) and 0 <= count < MOST_TOKENS for count in counts.values())
        try:
            choice = first_choice(completion)
        except NotAnAnswer:
            if not counted:
                raise
            choice = None  # but billed, as by some where a filter stops a prompt: kept as an answer that cannot be read
        message = getattr(choice, "message", None)
        content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
        if counted:
            self._most_seen = {name: max(self._most_seen[name], count) for name, count in counts.items()}
        else:
            self.estimated = True
            characters = len(f"{content or ''}{refusal or ''}".encode("utf-8", "replace"))
            counts = {"input_tokens": most_input, "output_tokens": characters, "estimated": True}
        return {
            "model": getattr(completion, "model", None),
            "content": content if isinstance(content, str | None) else str(content),
            "refusal": str(refusal) if refusal else None,
            "finish_reason": getattr(choice, "finish_reason", None),
            **counts,
            "usd": self._cost(counts["input_tokens"], counts["output_tokens"]),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _cost(self, input_tokens: int, output_tokens: int) -> float:
        """Compute the price in US dollars."""
        prices = self.args.usd_per_million_input_tokens, self.args.usd_per_million_output_tokens
        return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6

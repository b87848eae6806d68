"""One picture at the endpoint: what the ledger holds of it, what asking may cost, the answer."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from blip2vqa.data.images import BadImage
from blip2vqa.generate.ask import prompts
from blip2vqa.generate.ask.api.client import NotAnAnswer, Stopped, complete, first_choice, open_client, refuses_field
from blip2vqa.generate.ask.api.endpoint import OPENAI_URL, endpoint_url
from blip2vqa.generate.ask.api.limits import Budget, Pace, most_input_tokens
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item

if TYPE_CHECKING:
    from blip2vqa.config.generate import ApiArguments

ATTEMPTS = 2  # at an answer that can be read
MOST_TOKENS = 10**9  # of one answer; a larger count is nonsense
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "questions", "strict": True, "schema": prompts.SCHEMA},
}


@dataclass
class Outcome:
    """What became of a picture."""

    status: str
    """answered, refused, malformed, no_answer or unasked."""
    why: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """(question, answer, question type)."""
    requests: int = 0
    """Answers that came in this run, read or not."""
    error: Exception | None = None
    """Why there is no answer, where the endpoint or the disk is at fault."""

    @property
    def came(self) -> bool:
        """Whether the endpoint said anything about the picture."""
        return self.status in ("answered", "refused", "malformed")


class Prompts:
    """The prompt of each picture, and what the ledger holds of its answers."""

    def __init__(self, args: "ApiArguments", ledger: Ledger | None, num_questions: int, seed: int):
        self.args, self._ledger, self._num_questions, self._seed = args, ledger, num_questions, seed

    def messages(self, item: Item, picture_url: str) -> list[dict]:
        """As `prompts.build_messages`."""
        return prompts.build_messages(item, self._num_questions, self._seed, picture_url)

    def digest(self, item: Item) -> str:
        """SHA-256 of all that is sent about a picture."""
        settings = {
            "max_output_tokens": self.args.max_output_tokens,
            "longest_side": prompts.LONGEST_SIDE,
            "quality": prompts.QUALITY,
        }
        messages = self.messages(item, prompts.digest_url(item))
        return prompts.prompt_hash(self.args.api_model, messages, prompts.SCHEMA, settings)

    def _attempts(self, digest: str) -> dict[int, dict | None]:
        """What is kept of each attempt, from 1: any may lack, since a user may have taken out its line."""
        ledger = {} if self._ledger is None else self._ledger
        return {attempt: ledger.get(_key(digest, attempt)) for attempt in range(1, ATTEMPTS + 1)}

    def records(self, digest: str) -> list[dict]:
        """The answers to a prompt, of one attempt after the other."""
        return [record for record in self._attempts(digest).values() if record is not None]

    def missing(self, digest: str) -> list[int]:
        """The attempts of which nothing is kept."""
        return [attempt for attempt, record in self._attempts(digest).items() if record is None]

    def outcome(self, digest: str) -> Outcome | None:
        """What became of a picture by the ledger alone; None if the endpoint has yet to be asked."""
        records = self.records(digest)
        outcomes = [_read(record, self.args.max_output_tokens) for record in records]
        final = next((outcome for outcome in outcomes if outcome.status != "malformed"), None)
        return final or (None if self.missing(digest) else outcomes[-1])


class Asker:
    """Asks about one picture after another, in as many threads as call it.

    Once `stop` is set, or the spending limit is reached (`limit_reached`), it begins no request.
    """

    def __init__(self, prompts_: Prompts, ledger: Ledger, args: "ApiArguments"):
        self.args, self._prompts, self._ledger = args, prompts_, ledger
        self.stop = threading.Event()
        self.budget = Budget(args.spending_limit_usd, sum(record.get("usd", 0.0) for record in ledger.records()))
        self.limit_reached = False
        self.estimated = False
        """Whether the endpoint gave no token counts."""
        self._client = open_client(args, Pace(args.requests_per_minute), self.stop)
        # OpenAI's newer models refuse max_tokens; Mistral refuses the newer name, and Ollama passes over it.
        self._limit_field = "max_completion_tokens" if endpoint_url(args) == OPENAI_URL else "max_tokens"
        self._seen = {  # most of one answer so far
            name: max((record.get(name, 0) for record in ledger.records()), default=0)
            for name in ("input_tokens", "output_tokens")
        }

    def ask(self, item: Item, digest: str) -> Outcome:
        """Ask until the ledger tells what became of the picture, or there is nothing more to do about it.

        Raises `InputError` for a picture that is gone or has changed since it was looked at.
        """
        requests = 0
        for attempt in self._prompts.missing(digest):  # as they were before: so many requests at most, whatever comes
            if self.stop.is_set() or self.limit_reached:
                outcome = Outcome("unasked")
                break
            failed = self._ask_once(item, digest, attempt)
            requests += failed is None
            outcome = failed or self._prompts.outcome(digest)
            if outcome is not None:
                break
        outcome.requests = requests
        return outcome

    def _ask_once(self, item: Item, digest: str, attempt: int) -> Outcome | None:
        """Ask once and keep the answer; what happened instead, if none came."""
        try:
            jpeg, _ = prompts.encode_picture(item)
        except BadImage as bad:
            return Outcome("no_answer", f"{item.image_name}: {bad.reason}")
        most_input = max(
            most_input_tokens(self._prompts.messages(item, ""), RESPONSE_FORMAT), self._seen["input_tokens"]
        )
        most = self._cost(most_input, max(self.args.max_output_tokens, self._seen["output_tokens"]))
        if not self.budget.reserve(most):
            self.limit_reached = True
            return Outcome("unasked")
        cost = 0.0
        try:
            completion = self._send(self._prompts.messages(item, prompts.data_url(jpeg)))
            record = self._record(completion, most_input)
            cost = record["usd"]
            about = {"prompt_hash": digest, "image_name": item.image_name, "item_id": item.item_id, "attempt": attempt}
            self._ledger.add(_key(digest, attempt), about | record)
            return None
        except Stopped:
            return Outcome("unasked")
        except Exception as error:  # told where the answers are gathered: a thread has nobody to raise to
            return Outcome("no_answer", error=error)
        finally:
            self.budget.settle(most, cost)

    def _send(self, messages: list[dict]):
        name = self._limit_field
        try:
            return self._create(messages, name)
        except Exception as error:
            if not refuses_field(error, name):
                raise
        self._limit_field = "max_tokens" if name == "max_completion_tokens" else "max_completion_tokens"
        return self._create(messages, self._limit_field)

    def _create(self, messages: list[dict], limit_field: str):
        limit = {limit_field: self.args.max_output_tokens}
        return complete(
            self._client, model=self.args.api_model, messages=messages, response_format=RESPONSE_FORMAT, **limit
        )

    def _record(self, completion, most_input: int) -> dict:
        usage = getattr(completion, "usage", None)
        counts = {"input_tokens": getattr(usage, "prompt_tokens", None)}
        counts["output_tokens"] = getattr(usage, "completion_tokens", None)
        counted = all(isinstance(count, int) and 0 <= count < MOST_TOKENS for count in counts.values())
        try:
            choice = first_choice(completion)
        except NotAnAnswer:
            if not counted:
                raise
            choice = None  # but billed, as some do where a filter stops a prompt: kept, as what cannot be read
        message = getattr(choice, "message", None)
        content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
        if counted:
            self._seen = {name: max(self._seen[name], count) for name, count in counts.items()}
        else:
            self.estimated = True
            said = len(f"{content or ''}{refusal or ''}".encode("utf-8", "replace"))
            counts = {"input_tokens": most_input, "output_tokens": said, "estimated": True}
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
        """US dollars."""
        prices = self.args.usd_per_million_input_tokens, self.args.usd_per_million_output_tokens
        return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6

    def close(self) -> None:
        """Hang up."""
        self._client.close()


def _key(digest: str, attempt: int) -> str:
    return f"{digest}:{attempt}"


def _read(record: dict, max_output_tokens: int) -> Outcome:
    """What a kept answer is."""
    if record.get("refusal"):
        return Outcome("refused", record["refusal"])
    if record.get("finish_reason") == "length":
        return Outcome("malformed", f"cut off at {max_output_tokens} tokens (--max_output_tokens)")
    if record.get("finish_reason") == "content_filter":
        return Outcome("malformed", "stopped by the endpoint's content filter")
    try:
        return Outcome("answered", rows=prompts.read_questions(record.get("content")))
    except ValueError as error:
        return Outcome("malformed", str(error))

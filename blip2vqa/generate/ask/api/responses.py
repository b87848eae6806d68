"""What an endpoint has answered about each picture, read from the ledger."""

import hashlib
import json
from dataclasses import dataclass, field

from blip2vqa.config.generate import ApiArguments
from blip2vqa.generate.ask import prompts
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item

ATTEMPTS = 2  # requests about one picture, until an answer can be read


@dataclass
class Outcome:
    """What became of a picture."""

    status: str
    """answered, refused, malformed, no_answer or unasked."""
    why: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """(question, answer, question type)."""
    error: Exception | None = None
    """Why there is no answer, where the endpoint or the disk is at fault."""

    @property
    def came(self) -> bool:
        """Whether the endpoint said anything about the picture."""
        return self.status in ("answered", "refused", "malformed")


@dataclass(frozen=True)
class Responses:
    """Builds the prompt of each picture, and finds the answers to it in the ledger."""

    args: ApiArguments
    ledger: Ledger | dict
    num_questions: int
    seed: int

    def messages(self, item: Item, picture_url: str) -> list[dict]:
        """Build the messages of the chat, as `prompts.build_messages` does."""
        return prompts.build_messages(item, self.num_questions, self.seed, picture_url)

    def digest(self, item: Item) -> str:
        """Hash all that is sent about a picture: SHA-256, hexadecimal."""
        sent = {
            "model": self.args.api_model,
            "messages": self.messages(item, prompts.digest_url(item)),
            "schema": prompts.SCHEMA,
            "settings": {
                "max_output_tokens": self.args.max_output_tokens,
                "longest_side": prompts.LONGEST_SIDE,
                "quality": prompts.QUALITY,
            },
        }
        return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()

    def attempts(self, digest: str) -> dict[int, dict | None]:
        """Find the answer of each attempt at a prompt; any may be missing, since a user may have removed its line."""
        return {attempt: self.ledger.get(record_key(digest, attempt)) for attempt in range(1, ATTEMPTS + 1)}

    def outcome(self, digest: str) -> Outcome | None:
        """Tell what became of a picture by the ledger alone; None if the endpoint has yet to be asked."""
        records = self.attempts(digest).values()
        outcomes = [_read(record, self.args.max_output_tokens) for record in filter(None, records)]
        final = next((outcome for outcome in outcomes if outcome.status != "malformed"), None)
        return final or (outcomes[-1] if all(records) else None)


def record_key(digest: str, attempt: int) -> str:
    """Return the ledger's key of one answer."""
    return f"{digest}:{attempt}"


def _read(record: dict, max_output_tokens: int) -> Outcome:
    if record.get("refusal"):
        return Outcome("refused", str(record["refusal"]))
    if record.get("finish_reason") == "length":
        return Outcome("malformed", f"cut off at {max_output_tokens} tokens (--max_output_tokens)")
    if record.get("finish_reason") == "content_filter":
        return Outcome("malformed", "stopped by the endpoint's content filter")
    try:
        return Outcome("answered", rows=prompts.read_questions(record.get("content")))
    except ValueError as error:
        return Outcome("malformed", str(error))

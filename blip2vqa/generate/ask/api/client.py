"""Open the `openai` client, send requests through it, and say what its failures mean."""

import threading
from typing import TYPE_CHECKING, NoReturn

from blip2vqa.config.generate import ApiArguments
from blip2vqa.generate.ask.api.endpoint import KEY_VARIABLE, NO_KEY, api_key, endpoint_url
from blip2vqa.generate.ask.api.limits import Pace
from blip2vqa.utils.errors import InputError

if TYPE_CHECKING:
    import openai

CONNECT_SECONDS = 10.0
SHOWN = 200  # characters of an endpoint's message


class Stopped(Exception):
    """A request that was not begun, since the run is stopping."""


class NotAnAnswer(Exception):
    """The endpoint answered, but not as a chat endpoint does; its text says how."""


def open_client(args: ApiArguments, pace: Pace, stop: threading.Event) -> "openai.OpenAI":
    """Open a client with the key of the environment.

    It retries by itself, and every try waits for its turn in `pace`; once `stop` is set, each raises `Stopped` instead.
    """
    import openai

    def begin(request) -> None:
        if not pace.wait(stop):
            raise Stopped

    def end(response) -> None:
        # A spent quota answers 429 as too many requests do, but waiting does not help.
        if response.status_code == 429 and b"insufficient_quota" in response.read():
            response.headers["x-should-retry"] = "false"

    seconds = args.request_seconds
    return openai.OpenAI(
        base_url=endpoint_url(args),
        api_key=api_key(),
        timeout=openai.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        max_retries=args.max_retries,
        http_client=openai.DefaultHttpxClient(event_hooks={"request": [begin], "response": [end]}),
    )


def complete(client: "openai.OpenAI", **body):
    """Send a request; returns a chat completion, or whatever text came.

    Raises the client's errors, and `NotAnAnswer` for a body that cannot be read.
    """
    response = client.chat.completions.with_raw_response.create(**body)
    try:
        return response.parse()
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers without end, lists in lists
        raise NotAnAnswer("answers what is not JSON") from error


def first_choice(completion):
    """Take the choice of a chat completion. Raises `NotAnAnswer` where there is none: error pages may come with status 200."""
    try:
        choice = completion.choices[0]
        choice.message.content  # noqa: B018
    except (AttributeError, LookupError, TypeError):
        said = completion if isinstance(completion, str) else getattr(completion, "error", None) or "no choices in it"
        raise NotAnAnswer(
            f"answers what is no chat completion ({_line(str(said))}); does its address end in /v1?"
        ) from None
    return choice


def give_up(args: ApiArguments, what: str) -> NoReturn:
    """Raise the `InputError` that ends a run."""
    raise InputError(f"{endpoint_url(args)}: {what}; what came is kept: run the same command again to go on")


def explain(error: Exception, args: ApiArguments) -> str:
    """Say why a picture got no answer.

    Raises `InputError` where no other picture would get one either, and `error` itself where it is not the endpoint's.
    """
    import openai

    if isinstance(error, NotAnAnswer):
        return str(error)
    if isinstance(error, openai.APITimeoutError):
        return f"no answer within {args.request_seconds:g} seconds (--request_seconds)"
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        if type(cause).__name__ == "ConnectError":  # by name: the client's HTTP library changes with its version
            give_up(args, f"cannot be reached ({_line(str(cause))}); is it running, and is its address right?")
        return f"the connection broke off ({_line(str(cause or error))})"
    if isinstance(error, openai.APIStatusError):
        return _explain_status(error, args)
    raise error


def _explain_status(error: "openai.APIStatusError", args: ApiArguments) -> str:
    status, body = error.status_code, error.body
    said = body.get("message") or body.get("detail") if isinstance(body, dict) else body
    said = _line(str(said or error.message))
    if status in (401, 403):
        # What the endpoint says is left out: some quote the key.
        give_up(args, f"refuses the key in {KEY_VARIABLE} ({status}); set one that it takes, for {args.api_model}")
    if status == 404:
        give_up(args, f"does not know the model {args.api_model} (404: {said}); is --api_model right, and the address?")
    if status == 402 or "insufficient_quota" in (error.code, error.type):
        give_up(args, f"has no credit left ({status}: {said}); add some")
    if status == 429:
        return f"too many requests (429: {said}); lower --requests_per_minute"
    if status in (400, 422) and ("response_format" in said or "json_schema" in said):
        return f"answers {status}: {said} (this back end needs an endpoint with JSON schema output)"
    return f"answers {status}: {said}"


def _line(text: str) -> str:
    """Cut a message to its first line, with the key replaced."""
    key = api_key()
    if key != NO_KEY:
        text = text.replace(key, f"[{KEY_VARIABLE}]")
    text = next(iter(text.strip().splitlines()), "")
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"

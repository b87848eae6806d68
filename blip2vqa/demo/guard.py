"""What is refused at the door, before Gradio sees it: requests too large, and files that were not uploaded here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BODY = 1_000_000
"""Bytes of a request that is no upload."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:"
)
"""What a browser may load for the page: nothing from elsewhere."""


class Guard:
    """An ASGI application in front of another one.

    Gradio takes a file by its path on this machine, or fetches it from an address, where a client names one in place of an
    upload; and what is wrong with one request of a batch fails all of them. So such requests are refused one by one here.
    """

    def __init__(self, app, uploads: Path):
        self.app, self.uploads = app, uploads.resolve()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "POST" and "/stream/" in scope["path"]:  # which would change a request that waits
            await _refuse(send, 404, "nothing here takes a stream")
            return
        headers = dict(scope["headers"])
        if scope["method"] == "POST" and not headers.get(b"content-type", b"").startswith(b"multipart/form-data"):
            body = await _read(receive)
            problem = "a request of this size is not taken" if body is None else self._problem(body)
            if problem:
                await _refuse(send, 413 if body is None else 400, problem)
                return
            receive = _again(body, receive)

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"content-security-policy", POLICY.encode())]}
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _problem(self, body: bytes) -> str | None:
        """Name the first file of a request that was not uploaded; None where there is none."""
        try:
            paths = list(_paths(json.loads(body or b"null")))
        except (ValueError, RecursionError):
            return "a request that is no JSON"
        for path in paths:
            if not _is_below(path, self.uploads):
                return "a file that was not uploaded: upload it first"
        return None


def _paths(value: Any) -> Iterator[Any]:
    """Yield what stands under the key `path`, wherever in a JSON value: so Gradio names files."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _paths(one)


def _is_below(path: Any, folder: Path) -> bool:
    try:
        return path is None or Path(path).resolve().is_relative_to(folder)
    except (TypeError, ValueError, OSError):
        return False


async def _read(receive) -> bytes | None:
    """Read the body of a request; None for one that is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > MAX_BODY:
            return None
    return b"".join(parts)


def _again(body: bytes, receive):
    """Return a `receive` that gives the body once more, then what comes after it."""
    given = False

    async def once():
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


async def _refuse(send, status: int, problem: str) -> None:
    body = json.dumps({"detail": problem, "error": problem}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

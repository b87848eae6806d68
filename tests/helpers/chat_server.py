"""A server on this machine that answers like OpenAI's chat completions with pictures, and fails on demand."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from blip2vqa.generate.rows import Item

WORDS = ("red", "blue", "green", "wood", "metal", "round", "square", "two", "three", "striped")


@dataclass(frozen=True)
class Reply:
    """What comes back."""

    status: int = 200
    body: dict | str | bytes = field(default_factory=dict)
    """Sent as JSON; text or bytes as they are."""
    headers: dict = field(default_factory=dict)
    seconds: float = 0.0
    """Silence before it."""
    close: bool = False
    """Hang up instead."""
    content_type: str = "application/json"


def completion(content: str | None, finish_reason: str = "stop", refusal: str | None = None, usage=(1000, 50)) -> Reply:
    """A chat completion; `usage` is (prompt tokens, completion tokens), or None."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "seer-2026",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
            }
        ],
    }
    if usage:
        body["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True)) | {
            "total_tokens": sum(usage)
        }
    return Reply(body=body)


def questions(*rows: tuple[str, str, str], **more) -> Reply:
    """A completion in the schema, of (question, answer, question type)."""
    names = ("question", "answer", "question_type")
    return completion(json.dumps({"questions": [dict(zip(names, row, strict=True)) for row in rows]}), **more)


def error(status: int, message: str = "at fault", code: str | None = None, **headers) -> Reply:
    """An error in OpenAI's form; the client is question_fields to try again at once."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return Reply(
        status, body, {"retry-after-ms": "1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    )


def refusal() -> Reply:
    return completion(None, refusal="I cannot help with that.")


def make_items(folder: Path, number: int) -> list[Item]:
    """Pictures of one color each, of products that differ in their names."""
    items = []
    for index in range(number):
        path = folder / f"{index}.png"
        Image.new("RGB", (8, 6), (index * 4, 100, 200)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = {"color": "blue", "object": "chair"}
        items.append(Item(path.name, path, digest, f"B{index}", "chair", f"Chair {index}", facts))
    return items


def question_fields(asked) -> list[tuple]:
    """Collect the fields of the questions, with pictures by their names."""
    return [
        (q.item.image_name, q.question, q.answer, q.question_type, q.raw_answer, q.prompt_hash) for q in asked.questions
    ]


def picture_of(request: dict) -> str:
    """A short digest of the picture in a request."""
    url = request["messages"][1]["content"][-1]["image_url"]["url"]
    return hashlib.sha256(url.encode()).hexdigest()[:8]


def seen(request: dict) -> Reply:
    """Answer with two questions that tell which picture was sent."""
    name = picture_of(request)
    word = WORDS[int(name, 16) % len(WORDS)]
    return questions((f"What marks  {name}?", f" {word.title()}. ", "color"), (f"Is {name} here?", "Yes", "yes/no"))


class ChatServer(ThreadingHTTPServer):
    """Answers with `replies` in turn, then with `reply`; each a `Reply`, or a function from the request to one."""

    daemon_threads = True

    def __init__(self, replies: Iterable = (), reply: Reply | Callable[[dict], Reply] = seen):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.replies = list(replies)
        self.reply = reply
        self.lock = threading.Lock()
        self.requests: list[dict] = []
        """Bodies, in the order in which they came."""
        self.headers: list[dict] = []
        """Of the same requests, names in lower case."""
        self.times: list[float] = []
        self.most_at_once = self._at_once = 0
        self.closing = threading.Event()

    def take(self, headers: dict, body: dict) -> Reply:
        with self.lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            reply = self.replies.pop(0) if self.replies else self.reply
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        reply = reply(body) if callable(reply) else reply
        self.closing.wait(reply.seconds)
        with self.lock:
            self._at_once -= 1
        return reply

    def pictures(self) -> list[str]:
        """Which pictures were asked about, in order."""
        with self.lock:
            return [picture_of(request) for request in self.requests]

    def handle_error(self, request, client_address) -> None:
        """Quiet, where a client has hung up."""

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: in two, the second waits 40 ms for the first one's acknowledgement

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path != "/v1/chat/completions":
            reply = error(404, f"no such path: {self.path}")
        else:
            reply = self.server.take({name.lower(): value for name, value in self.headers.items()}, body)
        if reply.close:
            self.close_connection = True
            return
        content = json.dumps(reply.body) if isinstance(reply.body, dict) else reply.body
        content = content.encode() if isinstance(content, str) else content
        self.send_response(reply.status)
        for name, value in {"Content-Type": reply.content_type, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass

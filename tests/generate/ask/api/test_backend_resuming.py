"""A stopped run of the API back end goes on where it was, and nothing is paid for twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blip2vqa.generate.ask.api.backend import ask_api
from blip2vqa.generate.ledger import Ledger
from blip2vqa.utils.errors import InputError
from helpers import chat_server
from helpers.api_runs import KEY, kept, make_args
from helpers.chat_server import ChatServer, Reply, make_items, question_fields
from helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("endpoint")


CHILD = """
import json, signal, sys
sys.path[:0] = sys.argv[4:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
from pathlib import Path
from helpers.chat_server import make_items, question_fields
from blip2vqa.utils.console import run_script
from blip2vqa.config.generate import ApiArguments
from blip2vqa.generate.ask.api.backend import ask_api
from blip2vqa.generate.ledger import Ledger
from blip2vqa.utils import progress
progress.LINE_SECONDS = 0.0
def main():
    folder = Path(sys.argv[1])
    with Ledger(folder / "ledger.jsonl") as ledger:
        asked = ask_api(make_items(folder, 40), ApiArguments(**json.loads(sys.argv[2])), ledger, 5, seed=1)
    Path(sys.argv[3]).write_text(json.dumps([question_fields(asked), asked.counts]))
run_script(main)
"""


def start(folder: Path, server: ChatServer, output: str) -> subprocess.Popen:
    args = vars(make_args(server, parallel_requests=4))
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(folder),
        json.dumps(args),
        str(folder / output),
        str(ROOT),
        str(ROOT / "tests"),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, ChatServer() as server, Ledger(folder / "ledger.jsonl") as ledger:
        patch.setenv("OPENAI_API_KEY", KEY)
        return ask_api(make_items(folder, 40), make_args(server), ledger, 5, seed=1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, uninterrupted, how):
    slow = lambda request: replace(chat_server.seen(request), seconds=0.1)  # noqa: E731
    with ChatServer(reply=slow) as server:
        process = start(tmp_path, server, "first.json")
        while len(server.requests) < 14 and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, how)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 1)
        assert "Traceback" not in said and KEY not in said and not (tmp_path / "first.json").exists()
        with Ledger(tmp_path / "ledger.jsonl") as ledger:  # drops half a line, as the next run does
            paid = {record["image_name"] for record in ledger.records()}
        before = server.pictures()
        assert 8 <= len(paid) < 40
        if how == signal.SIGINT:
            assert "interrupted" in said and len(paid) == len(before), "what was under way has come"
        server.reply = chat_server.seen
        second = start(tmp_path, server, "second.json")
        said, _ = second.communicate(timeout=60)
        assert second.returncode == 0 and "asking: 40 of 40 pictures (100%)" in said and "$0.0480" in said, said
        pictures = server.pictures()
    rows, counts = json.loads((tmp_path / "second.json").read_text())
    assert [tuple(row) for row in rows] == question_fields(uninterrupted)
    assert counts["from_ledger"] == len(paid) and counts["requests"] == 40 - len(paid)
    assert counts == uninterrupted.counts | {name: counts[name] for name in ("requests", "from_ledger")}
    assert len(pictures) == len(before) + 40 - len(paid) and len(set(pictures)) == 40, "nothing is paid for twice"


def test_ctrl_c_twice_leaves_what_is_under_way(tmp_path):
    with ChatServer(reply=Reply(seconds=60)) as server:
        process = start(tmp_path, server, "first.json")
        while len(server.requests) < 4 and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=10)
    assert process.returncode == 1 and "Ctrl-C again leaves them" in said and "Traceback" not in said


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_stops_with_one_line(ask, tmp_path, monkeypatch):
    with ChatServer() as server:
        ask(server, 2)
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"ledger\.jsonl: cannot be written: No space left on device"):
            ask(server, 9)
        assert len(server.requests) == 3, "what cannot be kept is not paid for"
        monkeypatch.undo()
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert len(kept(tmp_path)) == 2
        assert ask(server, 9).counts["from_ledger"] == 2


@pytest.mark.parametrize("removed", [[0], [1], [0, 1]])
@pytest.mark.parametrize("reply", [chat_server.completion("nonsense"), chat_server.seen], ids=["nonsense", "answer"])
def test_what_a_removed_line_held_is_asked_anew(ask, tmp_path, removed, reply):
    nonsense = chat_server.completion("nonsense")
    path = tmp_path / "ledger.jsonl"
    with ChatServer([nonsense, nonsense]) as server:
        ask(server)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for place, line in enumerate(lines) if place not in removed))
        server.requests.clear()
        server.replies, server.reply = [reply] * 5, lambda request: pytest.fail("asked without end")
        asked = ask(server)
        expected = len(removed) if reply == nonsense else 1
        assert len(server.requests) == asked.counts["requests"] == expected
        assert asked.counts["malformed" if reply == nonsense else "answered"] == 1
        written = kept(tmp_path)
        assert len({record["key"] for record in written}) == len(written) == 2 - len(removed) + expected
        assert asked.counts["usd"] == pytest.approx(sum(record["usd"] for record in written))
        assert ask(server).counts == asked.counts | {"requests": 0, "from_ledger": 1}


def test_a_run_without_an_answer_leaves_no_ledger(ask, tmp_path):
    with ChatServer(reply=chat_server.error(401)) as server:
        with pytest.raises(InputError, match="refuses the key"):
            ask(server, 3)
        assert not (tmp_path / "ledger.jsonl").exists()
        server.replies = [chat_server.seen]
        with pytest.raises(InputError, match="refuses the key"):
            ask(server, 3)
    assert len(kept(tmp_path)) == 1

"""The ledger: what was added is there after a kill, half a line is not, and nobody else writes to it."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None

from blip2vqa.generate.ledger import Ledger
from blip2vqa.utils import locked_file
from blip2vqa.utils.errors import InputError

LINE = '{"key": "a", "usd": 1.5}\n'


def test_what_was_added_is_found_again(tmp_path):
    path = tmp_path / "folder" / "ledger.jsonl"
    with Ledger(path) as ledger:
        assert len(ledger.records()) == 0 and ledger.get("a") is None
        ledger.add({"a": {"usd": 1.5}})
        ledger.add({"b": {"content": "café\n\u2028 \ud800"}})  # half a surrogate pair too
        assert len(ledger.records()) == 2
    assert path.read_text().startswith(LINE)
    with Ledger(path) as ledger:
        assert ledger.get("a") == {"key": "a", "usd": 1.5}
        assert ledger.get("b")["content"] == "café\n\u2028 \ud800"
        assert [record["key"] for record in ledger.records()] == ["a", "b"]
        ledger.add({"a": {"usd": 2.0}})
    with Ledger(path) as ledger:
        assert len(ledger.records()) == 2 and ledger.get("a")["usd"] == 2.0
    assert path.read_text().startswith(LINE), "earlier lines are never rewritten"


@pytest.mark.parametrize("half", ['{"key": "b", "us', '{"key', "{", '{"key": "b", "content": "caf\udcc3'])
def test_half_a_line_is_cut_off(tmp_path, half):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes((LINE + half).encode("utf-8", "surrogateescape"))
    with Ledger(path) as ledger:
        assert len(ledger.records()) == 1
        assert path.read_text() == LINE
        ledger.add({"c": {}})
    assert path.read_text() == LINE + '{"key": "c"}\n'


def test_a_last_line_that_lacks_its_end_alone_is_kept(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(LINE.rstrip())
    with Ledger(path) as ledger:
        assert ledger.get("a")["usd"] == 1.5
        ledger.add({"b": {}})
    assert path.read_text() == LINE + '{"key": "b"}\n'


@pytest.mark.parametrize("broken", ["nonsense", "[1]", '{"usd": 1}', '{"key": 3}', "", "\x00\x00"])
def test_a_broken_line_is_named_and_nothing_is_changed(tmp_path, broken):
    path = tmp_path / "ledger.jsonl"
    text = LINE + broken + "\n" + LINE
    path.write_text(text)
    with pytest.raises(InputError, match="line 2: not a JSON object with a key"):
        Ledger(path)
    assert path.read_text() == text
    path.write_text(LINE)
    Ledger(path).close()  # a refused file is not left locked


def test_a_second_process_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    code = f"import sys; from blip2vqa.generate.ledger import Ledger; l = Ledger({str(path)!r}); l.add({{'a': {{}}}}); "
    code += "print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="another run is writing to it"):
            Ledger(path)
        os.kill(other.pid, signal.SIGKILL)
    with Ledger(path) as ledger:
        assert len(ledger.records()) == 1


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locked_file.fcntl, "flock", refuse)
    path = tmp_path / "ledger.jsonl"
    Ledger(path).close()
    assert path.exists(), "another run may be writing to it"
    with Ledger(path) as ledger:
        ledger.add({"a": {}})


@pytest.mark.skipif(resource is None, reason="files have no limit of size here")
def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.add({"a": {"usd": 1.5}})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(LINE) + 5, hard))  # room for five bytes of the next line
        try:
            with pytest.raises(InputError, match=r"File too large.*is kept") as caught:
                ledger.add({"b": {}})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(caught.value.problems) == 1 and ledger.get("b") is None
        assert path.read_text() == LINE
        ledger.add({"b": {}})
    assert path.read_text() == LINE + '{"key": "b"}\n'


def test_an_empty_one_is_not_left(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        assert path.exists()
    assert not path.exists()
    ledger.close()
    path.write_text('{"key": "a')  # a kill left half of the first line
    Ledger(path).close()
    assert not path.exists()


@pytest.mark.parametrize("text", [LINE, LINE.rstrip(), "nonsense\n"])
def test_one_with_a_line_is_left(tmp_path, text):
    path = tmp_path / "ledger.jsonl"
    path.write_text(text)
    try:
        Ledger(path).close()
    except InputError:
        assert text.startswith("nonsense")
    assert path.read_text().rstrip() == text.rstrip()


def test_only_its_own_file_is_removed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path):
        (tmp_path / "other").write_text(LINE)
        os.replace(tmp_path / "other", path)
    assert path.read_text() == LINE
    path.unlink()
    with Ledger(path):
        with pytest.raises(InputError, match="another run is writing to it"):
            Ledger(path)
        assert path.exists()
        path.unlink()  # by the user


def test_one_that_another_run_removes_while_it_is_opened_is_made_anew(tmp_path, monkeypatch):
    path, flock = tmp_path / "ledger.jsonl", locked_file.fcntl.flock

    def end_of_another(*args):
        monkeypatch.undo()
        path.unlink()
        flock(*args)

    monkeypatch.setattr(locked_file.fcntl, "flock", end_of_another)
    with Ledger(path) as ledger:
        ledger.add({"a": {"usd": 1.5}})
    assert path.read_text() == LINE


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be opened for writing"):
        Ledger(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be opened for writing"):
        Ledger(tmp_path / "file" / "ledger.jsonl")


def test_threads_share_it(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:

        def add(thread):
            for number in range(25):
                ledger.add({f"{thread}-{number}": {"text": "x" * 1000}})

        threads = [threading.Thread(target=add, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Ledger(path) as ledger:
        assert {record["key"] for record in ledger.records()} == {f"{t}-{n}" for t in range(4) for n in range(25)}
        assert len(path.read_text().splitlines()) == 100


def test_a_kill_in_the_middle_loses_no_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    code = f"from blip2vqa.generate.ledger import Ledger; l = Ledger({str(path)!r})\n"
    code += "for n in range(10**6):\n    l.add({str(n): {'text': 'x' * 5000}}); print(n, flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 20:
                os.kill(process.pid, signal.SIGKILL)
                break
        said = [int(line) for line in process.stdout.read().split()]
    with Ledger(path) as ledger:
        last = max([20, *said])
        assert all(ledger.get(str(number)) for number in range(last + 1))
        assert len(ledger.records()) <= last + 2

"""What strangers write does nothing to a terminal, whichever way it gets there."""

import io
import logging
import os
import sys
import warnings

import pytest

from blip2vqa.reporting.tables import format_block, make_table, plain, print_score_table, terminal
from blip2vqa.utils.console import run_script
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.terminal import LONGEST, half_pair, name_on_disk, one_line, readable_name, some_lines

HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\nerror: all lost\x9b31m\u202egpj.\u2028\x7f\ud83d"
PLAIN = r"a\x1b[2J\x1b]0;title\x07\r\nerror: all lost\x9b31m\u202egpj.\u2028\x7f\ud83d"


def test_a_hostile_text_becomes_one_plain_line():
    assert one_line(HOSTILE) == PLAIN
    assert some_lines(HOSTILE) == PLAIN.replace(r"\n", "\n")
    assert one_line("größe 写真 👩‍👩‍👧 😀") == "größe 写真 👩‍👩‍👧 😀"
    assert len(one_line("\x1b" * 10**6)) == LONGEST


@pytest.fixture
def script(monkeypatch):
    """Run a function as a script, with a logger of its own; hands back its exit code, output and errors."""

    def script(main) -> tuple[int, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2)]
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            try:
                run_script(main)
                code = 0
            except SystemExit as ended:
                code = ended.code
        for stream in streams:
            stream.flush()
        return code, *(stream.buffer.getvalue().decode() for stream in streams)

    yield script
    monkeypatch.undo()


def test_errors_log_lines_and_warnings_are_plain(script):
    def main():
        logging.getLogger("blip2vqa.x").warning("%s: no such thing", HOSTILE)
        print(warnings.formatwarning(HOSTILE, UserWarning, "x.py", 1), file=sys.stderr)
        raise InputError(HOSTILE, "second")

    code, _, said = script(main)
    assert code == 2
    first, *_ = lines = said.splitlines()
    assert first == f"WARNING {PLAIN}: no such thing"
    assert lines[-2:] == [f"error: {PLAIN}", "error: second"]
    assert not any(sign in said for sign in "\x1b\x07\r\x9b\u202e\u2028")


def test_what_a_stream_cannot_write_costs_nothing(script):
    code, said, _ = script(lambda: print("half \ud83d"))
    assert (code, said) == (0, "half \\ud83d\n")


def test_a_name_too_long_for_a_file_is_one_line(script, tmp_path):
    code, _, said = script(lambda: open(tmp_path / ("x" * 400)))
    assert code == 2 and said.startswith("error: ") and said.endswith("the name is too long for a file\n")


def test_tables_and_blocks_are_plain(capsys):
    block = format_block(HOSTILE, {HOSTILE: HOSTILE})
    assert block.splitlines() == [
        PLAIN,
        f"  {PLAIN}:  {PLAIN.split(chr(92) + 'n')[0]}",
        " " * (len(PLAIN) + 5) + PLAIN.split(r"\n")[1],
    ]
    scores = {"adapter": {"accuracy": 0.5, "n": 2, "by_question_type": {HOSTILE: {"accuracy": 0.5, "n": 2}}}}
    print_score_table(scores, HOSTILE)
    terminal().print(make_table([HOSTILE, "n"], [[HOSTILE, "1"]], HOSTILE, caption=HOSTILE))
    terminal().print(plain(f"[red]{HOSTILE}"))
    said = capsys.readouterr().out
    assert "[red]a\\x1b[2J" in said and not any(sign in said for sign in "\x1b\x07\r\x9b\u202e\u2028\ud83d")


def test_names_that_are_no_utf8_are_readable_and_found_again():
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80.jpg")
    assert half_pair(name) and not half_pair("😀")
    assert readable_name(name) == r"caf\xe9 😀.jpg" and name_on_disk(r"caf\xe9 😀.jpg") == name
    assert readable_name("größe.jpg") == "größe.jpg" and name_on_disk("größe.jpg") == "größe.jpg"

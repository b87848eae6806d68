"""JSON from strangers: what is plain is read, and what other readers would see differently is refused."""

import json
import time

import pytest

from blip2vqa.utils.strict_json import MAX_DEPTH, MAX_KEYS, check_tree, parse_json, read_json, shown


def test_plain_json_is_read():
    assert parse_json('{"é": [1, 2.5, null, true, "x"]}'.encode()) == {"é": [1, 2.5, None, True, "x"]}
    assert parse_json(b'{"a": Infinity}', finite=False) == {"a": float("inf")}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands there twice"),
        (b"NaN", "NaN is no JSON number"),
        (b"1e999", "the number '1e999' is too large"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b'[{"\\ud800": 1}]', "half of a surrogate pair"),
        (json.dumps({str(key): 1 for key in range(MAX_KEYS + 1)}).encode(), "more than 100,000 keys"),
        (b"[" + b'{"a": 1},' * MAX_KEYS + b'{"a": 1}]', "more than 100,000 keys"),
    ],
)
def test_what_is_not_plain_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(data)


def test_a_value_is_shown_on_one_short_line():
    assert shown("a\nb\u202e") == "'a\\nb\\u202e'"
    assert len(shown("x" * 500)) <= 80


def test_many_keys_take_no_longer_each(tmp_path):
    (tmp_path / "many.json").write_text(json.dumps({str(key): 1 for key in range(150_000)}))
    start = time.process_time()
    assert len(read_json(tmp_path / "many.json")) == 150_000
    twice = b"{" + b",".join(b'"%d": 1' % (key % 99_999) for key in range(100_000)) + b"}"
    with pytest.raises(ValueError, match="the key '0' stands there twice"):
        parse_json(twice)
    assert time.process_time() - start < 10  # in quadratic time: many minutes


def test_a_value_that_holds_itself_or_one_list_a_million_times():
    one = []
    one.append(one)
    with pytest.raises(ValueError, match="nested too deeply"):
        check_tree(one)
    wide = ["x"]
    for _ in range(MAX_DEPTH - 2):
        wide = [wide] * 1000
    check_tree(wide)


def test_files_are_read_within_limits(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        read_json(tmp_path / "a.json", max_bytes=5)
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        read_json("/dev/zero")

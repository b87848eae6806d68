"""JSON from strangers: what is plain is read, and what other readers would see differently is refused."""

import pytest

from blip2vqa.utils.strict_json import MAX_DEPTH, parse_json, shown


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
    ],
)
def test_what_is_not_plain_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(data)


def test_a_value_is_shown_on_one_short_line():
    assert shown("a\nb\u202e") == "'a\\nb\\u202e'"
    assert len(shown("x" * 500)) <= 80

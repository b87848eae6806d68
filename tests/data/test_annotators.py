"""A cell of answers: what counts as one answer, what as the answers of several annotators, and what is neither."""

from datetime import datetime

import pytest

from blip2vqa.data.annotators import looks_like_list, parse_answers


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ("red", ("red",)),
        (" red ", (" red ",)),
        (4, ("4",)),
        (0.5, ("0.5",)),
        ("", ()),
        ("  ", ()),
        (None, ()),
        (float("nan"), ()),
        ([], ()),
        (["", " "], ()),
        (["yes", "no"], ("yes", "no")),
        ([1, "two"], ("1", "two")),
        ([{"answer": "yes", "answer_confidence": "maybe"}, {"answer": "no"}], ("yes", "no")),
        ({"answer": ["yes", "no"], "answer_confidence": ["maybe", "yes"]}, ("yes", "no")),
        # As cells of a CSV hold them.
        ('["yes", "no", 1.10]', ("yes", "no", "1.10")),
        ("['yes', \"it's\", 'no']", ("yes", "it's", "no")),
        ("[1, 2]", ("1", "2")),
        ('[{"answer": "yes"}, {"answer": "no"}]', ("yes", "no")),
        ("[{'answer': 'yes', 'answer_id': 1}, {'answer': 'no', 'answer_id': 2}]", ("yes", "no")),
        ("{'answer': ['yes', 'no'], 'answer_id': [1, 2]}", ("yes", "no")),
        ("{'answer': 'yes', 'answer_confidence': 'yes'}", ("yes",)),
        ({"answer": "yes", "answer_id": 1}, ("yes",)),
        ("('yes', 'no', 'no')", ("yes", "no", "no")),
        ("{'yes', 'no'}", ("no", "yes")),
        # As numpy prints them.
        ("array(['yes', 'no'], dtype='<U3')", ("yes", "no")),
        ("['yes' 'no'\n 'yes']", ("yes", "no", "yes")),
        ("array(['yes', 'no'], dtype=object)", ("yes", "no")),
        ("[{'answer': 'yes', 'answer_id': 1}\n {'answer': 'no', 'answer_id': 2}]", ("yes", "no")),
        # Texts that only begin like a list.
        ("[sic] yes", ("[sic] yes",)),
        ("[a sign]", ("[a sign]",)),
        ("[", ("[",)),
        ("[1", ("[1",)),
        ('["a", "b"', ('["a", "b"',)),
        ("[yes, no]", ("[yes, no]",)),
        ("{curly}", ("{curly}",)),
        ("(2, 3)", ("(2, 3)",)),
        ("{2, 3}", ("{2, 3}",)),
        ("(a) red", ("(a) red",)),
        ("(red)", ("(red)",)),
        ("('red')", ("('red')",)),
        ("{'a', b}", ("{'a', b}",)),
        ("[__import__('os')]", ("[__import__('os')]",)),
        ("[" * 5000 + "]" * 5000, ("[" * 5000 + "]" * 5000,)),
    ],
)
def test_answers(cell, answers):
    assert parse_answers(cell) == answers


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (True, "true or false"),
        (False, "true or false"),
        ({"yes": 3}, "an object"),
        ('{"total": "12"}', "an object"),
        ("{'a': 3}", "an object"),
        ("{}", "an object"),
        ("{'answers': ['a', 'b']}", "an object"),
        ({"answer": {"yes": 3}}, "an object"),
        ("[('a', 'b')]", "a list of lists"),
        (datetime(2020, 1, 2), "a date or a time"),
        (b"yes", "bytes"),
        ({}, "an object"),
        ([["yes"], ["no"]], "a list of lists"),
        (["yes", ["no"]], "a list of lists"),
        (["yes", True], "true or false"),
        (["yes", {"text": "no"}], "an object"),
        (["yes", None], "nothing in a place"),
        ("[[1, 2], [3, 4]]", "a list of lists"),
        ("['yes', None]", "nothing in a place"),
        ("[true, false]", "true or false"),
        (b"yes", "bytes"),
    ],
)
def test_what_is_no_answer(cell, reason):
    with pytest.raises(ValueError, match=reason):
        parse_answers(cell)


def test_what_may_have_been_meant_as_a_list():
    assert looks_like_list("[yes, no]") and not looks_like_list("yes")

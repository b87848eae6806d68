"""A cell of answers: what counts as one answer, what as the answers of several annotators, and what is neither."""

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
        # As numpy prints them.
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
        ('{"total": "12"}', ('{"total": "12"}',)),
        ("(2, 3)", ("(2, 3)",)),
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
        ({"answer": "yes"}, "an object"),
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

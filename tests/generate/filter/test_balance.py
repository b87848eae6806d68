"""What is too much is dropped: exactly as much as that, evenly over the pictures, drawn by the seed alone."""

import random
from collections import Counter
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from blip2vqa.generate.filter.balance import PAIRS, Balance, balance
from blip2vqa.generate.rows import Item, Question

NO_LIMITS = {"max_answer_share": 1, "max_yes_no_share": 1, "num_questions": 1000, "seed": 42}
POLAR = ("yes", "no", "taller", "wider", "height", "width")


def asked(answer="red", kind="color", about="", picture="a.jpg", question="What is it?") -> Question:
    return Question(
        Item(picture, Path(picture), "digest", "B0", "SHOES", "Boot", {}), question, answer, kind, "t", about
    )


def each_of_its_own_picture(answers, **more) -> list[Question]:
    return [asked(answer, picture=f"{number}.jpg", **more) for number, answer in enumerate(answers)]


def left(questions, **limits) -> list[Question]:
    dropped = balance(questions, **NO_LIMITS | limits)
    return [question for place, question in enumerate(questions) if place not in dropped]


def a_data_set(seed: int) -> list[Question]:
    """20 pictures: yes or no about two values, and questions of three kinds with one common answer among five."""
    rng = random.Random(seed)
    questions = []
    for picture in map(str, range(20)):
        for value in ("red", "blue", "green")[: rng.randint(1, 3)]:
            text, about = f"Is it {value}?", f"color={value}"
            questions.append(asked(rng.choice(("yes", "no", "no")), "yes/no", about, picture, text))
        for kind in ("color", "shape", "material")[: rng.randint(1, 3)]:
            questions.append(asked(rng.choice("aaabcde"), kind, kind, picture, f"What {kind}?"))
    return questions


def of_type(questions) -> dict[str, Counter]:
    """Question type → answers, of those with more than two possible ones."""
    counts = {}
    for question in questions:
        if question.answer not in POLAR:
            counts.setdefault(question.question_type, Counter())[question.answer] += 1
    return counts


def about_values(questions) -> dict[str, Counter]:
    """What is asked about → answers, of those with two possible ones."""
    counts = {}
    for question in questions:
        if question.answer in POLAR:
            counts.setdefault(question.about, Counter())[question.answer] += 1
    return counts


def most_that_may_stay(sizes: tuple[int, ...], share: Fraction) -> int:
    """By trying every way to keep some of each answer: no answer above its share of all that is kept."""
    share = max(share, Fraction(1, len(sizes)))
    ways = product(*(range(size + 1) for size in sizes))
    return max(sum(kept) for kept in ways if max(kept) <= share * sum(kept))


# Sizes for each number of answers; a share that few answers cannot meet is that of as many equal ones.
@pytest.mark.parametrize("share", [Fraction(1, 4), Fraction(1, 3), Fraction(2, 5), Fraction(1, 2), Fraction(1)])
@pytest.mark.parametrize(
    "sizes",
    [(7,), (1, 9), (4, 4), (1, 2, 9), (5, 5, 5), (9, 8, 1), (1, 1, 1, 1), (2, 3, 4, 9), (1, 1, 6, 6),
     (1, 1, 1, 1, 6), (1, 2, 3, 4, 5)],
)  # fmt: skip
def test_as_many_answers_stay_as_their_share_allows(sizes, share):
    questions = each_of_its_own_picture("".join(letter * size for letter, size in zip("abcde", sizes, strict=False)))
    counts = Counter(question.answer for question in left(questions, max_answer_share=float(share)))
    assert counts.total() == most_that_may_stay(sizes, share)
    most = max(counts.values())
    assert most <= max(share, Fraction(1, len(sizes))) * counts.total()
    assert [counts[letter] for letter, _ in zip("abcde", sizes, strict=False)] == [min(size, most) for size in sizes]


def test_an_answer_may_have_its_share_to_the_last_question():
    questions = each_of_its_own_picture("a" * 40 + "b" * 29 + "c" * 29 + "d" * 13)
    assert 0.29 * 100 < 29, "as computers reckon"
    assert of_type(left(questions, max_answer_share=0.29)) == {"color": {"a": 29, "b": 29, "c": 29, "d": 13}}


def test_each_question_type_has_a_share_of_its_own():
    questions = each_of_its_own_picture("aaab") + each_of_its_own_picture("aab", kind="shape")
    questions += each_of_its_own_picture("aaaa", kind="style")  # one answer alone is left as it is
    dropped = balance(questions, **NO_LIMITS | {"max_answer_share": 0.5})
    kept = of_type(question for place, question in enumerate(questions) if place not in dropped)
    assert kept == {"color": {"a": 1, "b": 1}, "shape": {"a": 1, "b": 1}, "style": {"a": 4}}
    reasons = Counter(dropped.values())
    assert reasons == {f"an answer above its share of {kind} questions": n for kind, n in (("color", 2), ("shape", 1))}


@pytest.mark.parametrize(("one", "other"), [("yes", "no"), ("taller", "wider"), ("width", "height")])
def test_as_many_stay_with_one_answer_as_with_the_other_about_each_value(one, other):
    counts = {"color=red": (3, 5), "color=blue": (4, 1), "object=boot": (2, 2), "object=rug": (3, 0)}
    questions = [
        asked(answer, "yes/no", about, f"{about}{answer}{number}")
        for about, numbers in counts.items()
        for answer, size in zip((one, other), numbers, strict=True)
        for number in range(size)
    ]
    # The limit on answers is not for questions that have two.
    dropped = balance(questions, **NO_LIMITS | {"max_answer_share": 0.25})
    assert set(dropped.values()) == {"one answer outweighs the other"}
    kept = about_values(question for place, question in enumerate(questions) if place not in dropped)
    assert kept == {about: {one: least, other: least} for about, (*_, least) in
                    {about: sorted(numbers, reverse=True) for about, numbers in counts.items()}.items() if least}  # fmt: skip


def test_those_worded_by_a_back_end_are_evened_together():
    """Their texts are seldom asked twice: each for itself, all would go."""
    answers = ["yes", "yes", "yes", "yes", "no", "no"]
    rows = [asked(answer, "yes/no", picture=str(n), question=f"Is it {n}?") for n, answer in enumerate(answers)]
    others = [asked(str(n), "object", picture=str(n)) for n in range(40)]
    kept = [question.answer for question in left(rows + others) if question.question_type == "yes/no"]
    assert sorted(kept) == ["no", "no", "yes", "yes"]


def test_of_those_worded_by_a_back_end_each_pair_of_answers_is_evened_by_itself():
    sizes = {"taller": 50, "wider": 50, "width": 4, "height": 3, "no": 1}  # no partner: alone it would be guessed
    rows = [
        asked(answer, "comparison", picture=f"{answer}{number}", question=f"Which is {number}?")
        for answer, size in sizes.items()
        for number in range(size)
    ]
    kept = Counter(question.answer for question in left(rows))
    assert kept == {"taller": 50, "wider": 50, "width": 3, "height": 3}
    alone = [row for row in rows if row.answer != "width"]
    assert Counter(question.answer for question in left(alone)) == {"taller": 50, "wider": 50}


def test_two_answers_are_told_by_the_answer():
    assert all(answer in PAIRS for answer in POLAR)
    assert not any(answer in PAIRS for answer in ("red", "tall", "", "none"))


@pytest.mark.parametrize(
    ("others", "share", "room"),
    [(30, "0.4", 20), (30, "0.5", 30), (18, "0.1", 2), (27, "0", 0), (94, "0.06", 6),
     (30, "0.8", 40), (30, "1", 40), (0, "0.4", 0)],
)  # fmt: skip
def test_two_answers_have_at_most_their_share_of_all(others, share, room):
    assert room == 40 or room == int(Fraction(share) / (1 - Fraction(share)) * others)
    questions = each_of_its_own_picture(["yes", "no"] * 20, kind="yes/no", about="color=red")
    questions += each_of_its_own_picture(["red"] * others)
    dropped = balance(questions, **NO_LIMITS | {"max_yes_no_share": float(share)})
    kept = Counter(question.answer for place, question in enumerate(questions) if place not in dropped)
    assert kept["yes"] + kept["no"] == room and kept["red"] == others
    assert set(dropped.values()) <= {"more than the share of yes/no"}


def test_no_picture_has_more_than_asked_for():
    sizes = {"a": 1, "b": 3, "c": 4, "d": 9}
    questions = [asked("red", picture=name, question=f"{n}?") for name, size in sizes.items() for n in range(size)]
    dropped = balance(questions, **NO_LIMITS | {"num_questions": 3})
    kept = Counter(question.item.image_name for place, question in enumerate(questions) if place not in dropped)
    assert kept == {"a": 1, "b": 3, "c": 3, "d": 3}
    assert set(dropped.values()) == {"more than asked for a picture"}


@pytest.mark.parametrize("polar_share", [0.3, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_every_promise_holds_at_once(seed, polar_share):
    questions = a_data_set(seed)
    kept = left(questions, max_answer_share=0.3, max_yes_no_share=polar_share, num_questions=3)
    assert max(Counter(question.item.image_name for question in kept).values()) <= 3
    for about, counts in about_values(kept).items():
        assert counts["yes"] == counts["no"], about
    for kind, counts in of_type(kept).items():
        assert max(counts.values()) <= max(0.3, 1 / len(counts)) * counts.total(), kind
    assert sum(question.answer in PAIRS for question in kept) <= polar_share * len(kept)
    assert len(kept) >= 0.33 * len(questions), "no more is dropped than must be"


def remaining(sizes: list[int], number: int) -> list[int]:
    """Each time one of the picture with the most left."""
    for _ in range(number):
        sizes = sorted(sizes)
        sizes[-1] -= 1
    return sorted(sizes)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 6, 10, 14, 15, 99])
def test_drops_fall_on_the_pictures_with_the_most_left(number):
    sizes = {"a": 7, "b": 4, "c": 3, "d": 1}
    questions = [asked(picture=name, question=f"{n}?") for name, size in sizes.items() for n in range(size)]
    state = Balance(questions, seed=1)
    state.drop(range(len(questions)), number, "why")
    counts = Counter(dict.fromkeys(sizes, 0) | Counter(question.item.image_name for _, question in state.left()))
    assert sorted(counts.values()) == remaining(list(sizes.values()), min(number, 15))
    assert list(state.dropped.values()) == ["why"] * min(number, 15)


def test_questions_that_are_not_dropped_count_for_their_picture():
    questions = [asked("red", picture="few"), asked("red", picture="many")]
    questions += [asked("blue", picture="many"), asked("green", picture="few"), asked("pink", picture="many")]
    for seed in range(10):
        state = Balance(questions, seed)
        state.drop([0, 1], 1, "why")
        assert state.dropped == {1: "why"}
        state.drop([2, 3], 1, "later")  # two against two now
        assert len(state.dropped) == 2
        state.drop([place for place, _ in state.left()], 0, "none")
        assert len(state.dropped) == 2
    state = Balance([asked(question=f"{n}?") for n in range(3)], seed=1)
    state.drop([0, 1, 2], 1, "first")
    assert [list(map(len, by_answer)) for by_answer in state.groups(lambda q: q.answer).values()] == [[2]]


def test_the_seed_decides_whatever_the_order():
    limits = {"max_answer_share": 0.3, "max_yes_no_share": 0.3, "num_questions": 4}

    def content(questions, **more):
        return sorted((q.item.image_name, q.question, q.answer) for q in left(questions, **limits | more))

    others = 0
    for number in range(15):
        questions = a_data_set(number)
        first = content(questions)
        assert content(questions) == first
        shuffled = random.Random(number).sample(questions, len(questions))
        assert content(shuffled) == first
        others += content(questions, seed=43) != first
    assert others > 10


def test_nothing_goes_where_nothing_is_too_much():
    questions = each_of_its_own_picture("abcd") + each_of_its_own_picture(["yes", "no"], kind="yes/no")
    limits = {"max_answer_share": 0.25, "max_yes_no_share": Fraction(1, 3), "num_questions": 2}
    assert balance(questions, **limits, seed=1) == {}
    assert balance([], **limits, seed=1) == {}
    assert balance([], **NO_LIMITS) == {}

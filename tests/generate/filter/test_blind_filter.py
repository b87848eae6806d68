"""Questions thinned until their text gives little away, to classifiers that the filter does not know either."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.naive_bayes import ComplementNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from blip2vqa.evaluation.question_only import blind_score
from blip2vqa.generate.filter import blind_filter
from blip2vqa.generate.filter.blind_filter import FILTER, Guessed, thin
from blip2vqa.generate.filter.funnel import Funnel
from blip2vqa.generate.rows import Item, Question

THINGS = [f"thing{number}" for number in range(20)]
WORDS = {
    "color": "black white red blue green brown grey pink yellow orange purple gold".split(),
    "material": "plastic wood metal leather cotton glass ceramic rubber".split(),
    "shape": "round square rectangular oval".split(),
}
ASKED = {
    "color": ["What color is the {}?", "What is the color of the {}?", "Which color does the {} have?"],
    "material": ["What is the {} made of?", "Which material is the {}?"],
    "shape": ["What shape is the {}?", "What is the shape of the {}?"],
    "object": ["What is shown here?", "Which product is this?"],
}
JUDGES = {
    "support vectors": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC(C=0.5)),
    "complement": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), ComplementNB(alpha=0.1)),
    "tree": lambda: make_pipeline(CountVectorizer(), DecisionTreeClassifier(min_samples_leaf=3, random_state=0)),
    "neighbours": lambda: make_pipeline(TfidfVectorizer(), KNeighborsClassifier(15)),
    "regression": lambda: make_pipeline(CountVectorizer(), LogisticRegression(max_iter=50)),
}


def catalogue(products: int = 220, seed: int = 0) -> list[Question]:
    """What a careless generator asks: of each thing one color, material and shape is far likelier than the others."""
    rng, questions = random.Random(seed), []
    likely = {(thing, kind): rng.sample(words, len(words)) for thing in THINGS for kind, words in WORDS.items()}
    for product in range(products):
        thing = rng.choices(THINGS, [1 / (rank + 1) for rank in range(len(THINGS))])[0]
        facts = {
            kind: rng.choices(likely[thing, kind], [0.4**rank for rank in range(len(words))])[0]
            for kind, words in WORDS.items()
        }
        for view in range(rng.choice([1, 1, 2])):
            name = f"{product}_{view}.jpg"
            item = Item(name, Path(name), name, f"product {product}", thing, thing, facts)
            asked = [(rng.choice(ways).format(thing), (facts | {"object": thing})[kind], kind)
                     for kind, ways in ASKED.items() for _ in range(2)]  # fmt: skip
            for kind in WORDS:
                wrong = rng.choice([word for word in WORDS[kind] if word != facts[kind]])
                answer, word = rng.choice([("yes", facts[kind]), ("yes", facts[kind]), ("no", wrong)])
                asked.append((f"Is the {thing} {word}?", answer, "yes/no"))
            questions += [Question(item, *one, "templates") for one in asked]
    return questions


def judge(questions: list[Question], name: str) -> float:
    """Accuracy on questions about products held out."""
    texts, answers = (
        [question.question for question in questions],
        np.array([question.answer for question in questions]),
    )
    groups = products(questions)
    folds = GroupKFold(5, shuffle=True, random_state=7)
    return float(np.mean(cross_val_predict(JUDGES[name](), texts, answers, groups=groups, cv=folds) == answers))


def products(questions: list[Question]) -> list[str]:
    return [question.item.item_id for question in questions]


class Found(NamedTuple):
    """What the filter has made of a list of questions."""

    kept: list[Question]
    dropped: list[tuple[Question, str]]
    """With the reason."""
    after: float | None


def thin_products(questions: list[Question], limit: float, seed: int = 0) -> Found:
    places, after = thin(questions, limit, seed, products(questions))
    funnel = Funnel(questions)
    funnel.drop(FILTER, places)
    dropped = [(question, question.verdicts[FILTER]) for question in funnel.dropped]
    assert [reason for _, reason in dropped] == [places[place] for place in sorted(places)]
    return Found(funnel.left, dropped, after)


def score(questions: list[Question], seed: int = 0) -> float:
    asked, answers = [one.question for one in questions], [one.answer for one in questions]
    return blind_score(asked, answers, products(questions), seed=seed).score


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return catalogue()


@pytest.fixture(scope="module")
def thinned(questions) -> Found:
    return thin_products(questions, 0.35)


def test_the_score_comes_down_and_is_the_one_reported(questions, thinned):
    assert score(questions) > 0.5
    assert thinned.after == score(thinned.kept) <= 0.35
    assert max(score(thinned.kept, seed) for seed in range(1, 4)) <= 0.36


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:The least populated class")
@pytest.mark.parametrize("name", JUDGES)
def test_other_classifiers_guess_no_better(name, questions, thinned):
    assert judge(questions, name) > 0.4
    assert judge(thinned.kept, name) <= 0.36


def test_no_more_are_dropped_than_it_takes(questions, thinned):
    """Leaving out rows that are right, R of n, takes (R - tn) / (1 - t) of them, if all others stay right or wrong."""
    enough = (score(questions) - 0.35) * len(questions) / (1 - 0.35)
    assert len(thinned.dropped) <= 1.2 * enough
    kinds, left = Counter(q.question_type for q in questions), Counter(q.question_type for q in thinned.kept)
    assert all(left[kind] >= 0.1 * count for kind, count in kinds.items())
    # What the text does not give away stays.
    assert left["object"] >= 0.9 * kinds["object"]


@pytest.mark.parametrize(("large", "least", "most"), [(20_000, 0.4, 0.55), (3_000, 0.8, 0.95)])
def test_a_round_drops_half_of_what_is_too_much_and_of_a_large_table_more(large, least, most, questions, monkeypatch):
    """What is left is guessed otherwise than before, so that steps of all there is would drop too much."""
    monkeypatch.setattr(blind_filter, "MOST_ROUNDS", 1)
    monkeypatch.setattr(blind_filter, "MOST_LARGE_ROUNDS", 1)
    monkeypatch.setattr(blind_filter, "LARGE", large)
    aim = 0.35 - 2 * blind_filter.MARGIN
    enough = (score(questions) - aim) * len(questions) / (1 - aim)
    assert least * enough <= len(thin_products(questions, 0.35).dropped) <= most * enough


def test_a_large_table_comes_down_in_few_rounds(questions, thinned, monkeypatch):
    monkeypatch.setattr(blind_filter, "LARGE", 1_000)
    monkeypatch.setattr(blind_filter, "MOST_LARGE_ROUNDS", 5)
    found = thin_products(questions, 0.35)
    assert found.after <= 0.35 and len(found.dropped) <= 1.05 * len(thinned.dropped)


def test_pictures_lose_questions_evenly(questions, thinned):
    before, after = (Counter(q.item.image_name for q in some) for some in (questions, thinned.kept))
    assert before.keys() == after.keys()
    mean = len(thinned.kept) / len(before)
    assert min(after.values()) >= mean - 3


def test_every_question_is_accounted_for_in_its_order(questions, thinned):
    assert not any(question.verdicts for question in questions)  # they are added to copies
    kept, dropped = thinned.kept, [question for question, _ in thinned.dropped]
    assert all(question.verdicts == {FILTER: "kept"} for question in kept)
    assert all(question.verdicts == {FILTER: reason} for question, reason in thinned.dropped)
    bare = Counter(_bare(question) for question in kept + dropped)
    assert bare == Counter(map(_bare, questions))
    for part in (kept, dropped):
        places = iter(map(_bare, questions))
        assert all(_bare(question) in places for question in part)  # a subsequence
    sure = [reason for _, reason in thinned.dropped if reason.startswith("guessed without the picture (confidence 0.")]
    assert len(sure) > 0.8 * len(dropped)


def _bare(question: Question) -> tuple:
    return question.item.image_name, question.question, question.answer


def test_the_order_of_questions_changes_nothing_and_the_seed_does():
    questions = catalogue(60)
    backwards = thin_products(questions[::-1], 0.4, 5)
    again = thin_products(questions, 0.4, 5)
    assert Counter(map(_bare, backwards.kept)) == Counter(map(_bare, again.kept)) and backwards.after == again.after
    assert Counter(map(_bare, thin_products(questions, 0.4, 6).kept)) != Counter(map(_bare, again.kept))


def test_fair_two_answer_questions_lose_their_share_instead(questions):
    """Fewer of them, both answers alike: what is left is not "the other way round than the text suggests"."""
    rng = random.Random(1)
    mixed = [replace(q, answer=rng.choice(["yes", "no"])) for q in questions if q.question_type == "yes/no"]
    mixed += [question for question in questions if question.question_type == "object"]
    found = thin_products(mixed, 0.35)
    assert score(mixed) > 0.36 and found.after <= 0.35
    left = Counter(question.question_type for question in found.kept)
    assert left["yes/no"] < 0.75 * sum(q.question_type == "yes/no" for q in mixed)
    assert left["object"] > 0.8 * sum(q.question_type == "object" for q in mixed)
    answers = Counter(question.answer for question in found.kept if question.question_type == "yes/no")
    assert 0.8 < answers["yes"] / answers["no"] < 1.25
    assert any(reason.startswith("questions of type yes/no are guessed") for _, reason in found.dropped)
    assert max(judge(found.kept, name) for name in ("support vectors", "tree", "complement")) <= 0.37


def test_what_cannot_be_reached_ends_and_keeps_what_is_left(questions):
    alone = [question for question in questions if question.question_type == "yes/no"]
    found = thin_products(alone, 0.2)
    assert found.after > 0.2 and len(found.kept) > 0.2 * len(alone)
    one = [replace(question, answer="same") for question in questions[:50]]
    assert thin_products(one, 0.35) == Found(thin_products(one, 1).kept, [], 1.0)
    few = catalogue(30)
    found = thin_products(few, 0.0)
    assert found.kept and found.after < score(few)


def test_nothing_is_dropped_where_nothing_is_given_away(questions):
    for some, limit in ((questions, 1.0), (questions, 0.999), ([], 0.3), (questions[:1], 0.0)):
        found = thin_products(some, limit)
        assert len(found.kept) == len(some) and not found.dropped
        assert found.after == score(some)


def of_type(kind: str, answers: str, first: int = 0) -> list[Question]:
    """A question of one wording about each of so many products."""
    items = [Item(f"{n}.jpg", Path("x"), str(n), str(n), "t", "t", {}) for n in range(first, first + len(answers))]
    return [Question(item, f"What {kind}?", answer, kind, "t") for item, answer in zip(items, answers, strict=True)]


def test_at_or_below_the_limit_nothing_is_dropped():
    """Each answer is of one product alone, so that none is guessed; that a single one has its type to itself says nothing."""
    few = of_type("color", "a") + of_type("shape", "bc") + of_type("object", "defg")
    assert score(few) == Guessed(few, products(few), 0).score == 0
    for limit in (0.0, 0.35):
        assert not thin_products(few, limit).dropped
    # Of the commonest answer there is more than the limit allows, but it is not the one guessed.
    even = of_type("color", "ab" * 20)
    assert score(even) <= 0.5
    assert not thin_products(even, score(even)).dropped


def test_types_of_a_handful_of_rows_are_not_judged():
    enough, rng = blind_filter.FEWEST, random.Random(0)
    others = of_type("object", "".join(rng.choice("abcdefghij") for _ in range(300)), first=100)
    for number, given_up in ((enough, True), (enough - 1, False)):
        mixed = of_type("color", "x" * number) + others
        found = thin_products(mixed, 0.15)
        lost = [reason for _, reason in found.dropped if reason.startswith("questions of type color")]
        assert bool(lost) is given_up
        assert score(mixed) > 0.15


def test_no_type_is_given_up_where_that_does_not_reach_the_limit(questions):
    """Two kinds of questions with two answers each, one of them guessed a little better."""
    rng = random.Random(3)
    mixed = of_type("color", "".join(rng.choice("aaab") for _ in range(200)))
    mixed += of_type("shape", "".join(rng.choice("cd") for _ in range(200)), first=200)
    found = thin_products(mixed, 0.2)
    assert {question.question_type for question in found.kept} == {"color", "shape"} and found.after > 0.2
    # With a third that is seldom guessed, it is reached.
    mixed += of_type("object", "".join(rng.choice("efghijklmnop") for _ in range(200)), first=400)
    found = thin_products(mixed, 0.2)
    assert {question.question_type for question in found.kept} >= {"object"} and found.after <= 0.2


def test_groups_are_held_out_whole(questions):
    """In one group there is nothing to guess from; a group a row makes two views of a product give each other away."""
    assert thin(questions, 0.1, 0, ["all"] * len(questions))[1] is None
    rng = random.Random(0)
    item = questions[0].item
    known = [
        Question(replace(item, item_id=name, image_name=f"{name}{view}"), f"What is {name}?", answer, "object", "templates")
        for name in map(str, range(100, 160)) for answer in [rng.choice("abcdef")] for view in range(5)
    ]  # fmt: skip
    assert thin_products(known, 1.0).after < 0.4
    assert thin(known, 1.0, 0, [question.item.image_name for question in known])[1] == 1.0

"""Questions thinned until their text gives little away, to classifiers that the filter does not know either."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

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

from blip2vqa.blind import blind_score
from blip2vqa.vqa_generation.blind_filter import FILTER, Thinned, thin
from blip2vqa.vqa_generation.rows import Item, Question

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
    groups = [question.item.item_id for question in questions]
    folds = GroupKFold(5, shuffle=True, random_state=7)
    return float(np.mean(cross_val_predict(JUDGES[name](), texts, answers, groups=groups, cv=folds) == answers))


def score(questions: list[Question], seed: int) -> float:
    columns = zip(*((one.question, one.answer, one.item.item_id) for one in questions), strict=True)
    return blind_score(*columns, seed=seed).score


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return catalogue()


@pytest.fixture(scope="module")
def thinned(questions) -> Thinned:
    return thin(questions, 0.35, 0)


def test_the_score_comes_down_and_is_the_one_reported(questions, thinned):
    assert thinned.before == score(questions, 0) > 0.5
    assert thinned.after == score(thinned.kept, 0) <= 0.35
    assert 1 <= thinned.rounds <= 20
    assert max(score(thinned.kept, seed) for seed in range(1, 4)) <= 0.36


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:The least populated class")
@pytest.mark.parametrize("name", JUDGES)
def test_other_classifiers_guess_no_better(name, questions, thinned):
    assert judge(questions, name) > 0.4
    assert judge(thinned.kept, name) <= 0.36


def test_no_more_are_dropped_than_it_takes(questions, thinned):
    """Leaving out rows that are right, R of n, takes (R - tn) / (1 - t) of them, if all others stay right or wrong."""
    enough = (thinned.before - 0.35) * len(questions) / (1 - 0.35)
    assert len(thinned.dropped) <= 1.2 * enough
    kinds, left = Counter(q.question_type for q in questions), Counter(q.question_type for q in thinned.kept)
    assert all(left[kind] >= 0.1 * count for kind, count in kinds.items())
    # What the text does not give away stays.
    assert left["object"] >= 0.9 * kinds["object"]


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
    backwards = thin(questions[::-1], 0.4, 5)
    again = thin(questions, 0.4, 5)
    assert Counter(map(_bare, backwards.kept)) == Counter(map(_bare, again.kept)) and backwards.after == again.after
    assert Counter(map(_bare, thin(questions, 0.4, 6).kept)) != Counter(map(_bare, again.kept))


def test_fair_two_answer_questions_lose_their_share_instead(questions):
    """Fewer of them, both answers alike: what is left is not "the other way round than the text suggests"."""
    rng = random.Random(1)
    mixed = [replace(q, answer=rng.choice(["yes", "no"])) for q in questions if q.question_type == "yes/no"]
    mixed += [question for question in questions if question.question_type == "object"]
    found = thin(mixed, 0.35, 0)
    assert found.before > 0.36 and found.after <= 0.35
    left = Counter(question.question_type for question in found.kept)
    assert left["yes/no"] < 0.75 * sum(q.question_type == "yes/no" for q in mixed)
    assert left["object"] > 0.8 * sum(q.question_type == "object" for q in mixed)
    answers = Counter(question.answer for question in found.kept if question.question_type == "yes/no")
    assert 0.8 < answers["yes"] / answers["no"] < 1.25
    assert any(reason.startswith("questions of type yes/no are guessed") for _, reason in found.dropped)
    assert max(judge(found.kept, name) for name in ("support vectors", "tree", "complement")) <= 0.37


def test_what_cannot_be_reached_ends_and_keeps_what_is_left(questions):
    alone = [question for question in questions if question.question_type == "yes/no"]
    found = thin(alone, 0.2, 0)
    assert found.after > 0.2 and len(found.kept) > 0.2 * len(alone)
    one = [replace(question, answer="same") for question in questions[:50]]
    assert thin(one, 0.35, 0) == Thinned(thin(one, 1, 0).kept, [], 1.0, 1.0, 0)
    found = thin(catalogue(30), 0.0, 0)
    assert found.kept and found.after < found.before


def test_nothing_is_dropped_where_nothing_is_given_away(questions):
    for some, limit in ((questions, 1.0), (questions, 0.999), ([], 0.3), (questions[:1], 0.0)):
        found = thin(some, limit, 0)
        assert len(found.kept) == len(some) and not found.dropped and found.rounds == 0
        assert found.before == found.after


def test_groups_are_held_out_whole(questions):
    """In one group there is nothing to guess from; a group a row makes two views of a product give each other away."""
    assert thin(questions, 0.1, 0, ["all"] * len(questions)).before is None
    rng = random.Random(0)
    item = questions[0].item
    known = [
        Question(replace(item, item_id=name, image_name=f"{name}{view}"), f"What is {name}?", answer, "object", "templates")
        for name in map(str, range(100, 160)) for answer in [rng.choice("abcdef")] for view in range(5)
    ]  # fmt: skip
    assert thin(known, 1.0, 0).before < 0.4
    assert thin(known, 1.0, 0, [question.item.image_name for question in known]).before == 1.0

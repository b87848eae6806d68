"""Questions in a fixed wording: right for the facts, wrong choices that are wrong, plain English, nothing given away."""

import random
import re
import string
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest

from blip2vqa.data.answers import question_type
from blip2vqa.generate.ask.templates import ask_templates, ask_unknown, with_article, wordings
from blip2vqa.generate.catalogue.vocabulary import vocabulary
from blip2vqa.generate.filter.filters import fits_form, single_word
from helpers.drawn_catalogue import VALUES, drawn_items, item
from helpers.paths import ROOT

WORDED = wordings()
OPEN = list(WORDED["open"])
ITEMS = drawn_items(400)
ASKED = ask_templates(ITEMS, 0)


def asked(form: str, about: str = "") -> list:
    return [q for q in ASKED if q.question_type == form and q.about.startswith(about)]


def offered(text: str) -> list[str]:
    """The four answers to choose from, in the order of the question, without articles."""
    one = r"(?:an? )?(?:pair of )?([a-z]+)"
    return list(re.search(rf" {one}, {one}, {one} or {one}(?: in the picture)?\?$", text).groups())


def words_of(question) -> list[str]:
    return re.findall("[a-z]+", question.question.lower())


def could_be_right(item, kind: str, value: str) -> bool:
    return value in item.not_wrong or vocabulary().could_both_be(kind, item.facts[kind], value)


# The answers


def test_every_fact_is_asked_about_once_in_each_form_that_it_has():
    """But for choices, where too few other values are wrong; in the order of the items."""
    own = {one.image_name: [] for one in ITEMS}
    for q in ASKED:
        own[q.item.image_name].append("proportion" if q.about in ("height", "taller") else q.about.split("=")[0])
    for one in ITEMS:
        kinds = [kind for kind in one.facts if kind in OPEN]
        compared = [f"{kind} of 4" for kind in WORDED["choice"] if f"{kind} of 4" in own[one.image_name]]
        compared += ["proportion"] * ("proportion" in one.facts)
        assert own[one.image_name] == [*kinds, *compared, *(kind for kind in WORDED["yes/no"] if kind in one.facts)]
    assert [q.item.image_name for q in ASKED] == sorted(q.item.image_name for q in ASKED)


@pytest.mark.parametrize("kind", OPEN)
def test_an_open_question_is_answered_by_its_fact(kind):
    questions = asked(kind)
    assert len(questions) == sum(kind in one.facts for one in ITEMS) > 200
    assert all((q.answer, q.about) == (q.item.facts[kind], kind) for q in questions)


@pytest.mark.parametrize("kind", list(WORDED["choice"]))
def test_exactly_one_of_the_choices_is_right(kind):
    questions = asked("comparison", f"{kind} of ")
    assert len(questions) > 200
    for q in questions:
        choices = offered(q.question)
        assert q.answer == q.item.facts[kind] and choices.count(q.answer) == 1 and len(set(choices)) == 4
        assert [could_be_right(q.item, kind, value) for value in choices if value != q.answer] == [False] * 3
    places = Counter(offered(q.question).index(q.answer) for q in questions)
    assert min(places.values()) > 0.7 * len(questions) / 4 and len(places) == 4


@pytest.mark.parametrize("kind", list(WORDED["choice"]))
def test_choices_exclude_one_another(kind):
    """Else two that are alike would both be wrong, and tell."""
    could = vocabulary().could_both_be
    for q in asked("comparison", f"{kind} of "):
        wrong = [value for value in offered(q.question) if value != q.answer]
        assert not any(could(kind, one, other) for one in wrong for other in wrong if one != other)


@pytest.mark.parametrize("kind", list(WORDED["yes/no"]))
def test_yes_is_asked_about_the_fact_and_no_about_what_cannot_be_right(kind):
    questions = asked("yes/no", f"{kind}=")
    for q in questions:
        value = q.about.partition("=")[2]
        assert re.search(rf"\b{value}\b", q.question)
        assert (value == q.item.facts[kind]) if q.answer == "yes" else not could_be_right(q.item, kind, value)
    assert {q.answer for q in questions} == {"yes", "no"}


def test_about_half_of_the_answers_are_yes():
    answers = Counter(q.answer for q in asked("yes/no"))
    assert set(answers) == {"yes", "no"} and 0.45 < answers["yes"] / answers.total() < 0.55


def test_wrong_answers_are_drawn_as_often_as_they_are_right_elsewhere():
    """Values that are never right would give the answer away."""
    for kind in WORDED["yes/no"]:
        false = {q.about for q in asked("yes/no", f"{kind}=") if q.answer == "no"}
        assert false <= {f"{kind}={one.facts[kind]}" for one in ITEMS if kind in one.facts}
    items = [item(f"{n}.png", color="green" if n % 2 else "blue" if n % 20 == 0 else "red") for n in range(800)]
    green = [q for q in ask_templates(items, 0) if q.item.facts["color"] == "green" and q.answer == "no"]
    assert 0.03 < sum(q.about == "color=blue" for q in green) / len(green) < 0.2  # a tenth


def test_more_than_half_of_the_wrong_nouns_are_of_the_item_s_category():
    """Half of them in any case, and of the other half as many as there are."""
    items = [
        item(f"{n}.png", object=("boot", "sandal", "umbrella", "cable", "vase", "mop")[n % 6]) for n in range(1800)
    ]
    wrong = [q for q in ask_templates(items, 0) if q.item.facts["object"] == "boot" and q.answer == "no"]
    assert 0.5 < sum(q.about == "object=sandal" for q in wrong) / len(wrong) < 0.7  # three fifths


@pytest.mark.parametrize("larger, smaller, side", [("taller", "wider", "height"), ("wider", "taller", "width")])
def test_the_larger_side(larger, smaller, side):
    questions = [q for seed in range(20) for q in ask_templates([item(proportion=larger)], seed)]
    assert {q.question_type for q in questions} == {"comparison"}
    assert {(q.about, q.answer) for q in questions} == {("taller", larger), ("height", side)}
    named = {"taller": {larger, smaller}, "height": {"height", "width"}}
    assert all(named[q.about] <= set(words_of(q)) for q in questions)


def test_no_wrong_answers_no_choice_and_only_yes():
    """A value that all share, or too few others."""
    items = [item(f"{n}.png", object="boot", color=("red", "blue", "green")[n % 3], material="wood") for n in range(60)]
    questions = ask_templates(items, 0)
    assert not [q for q in questions if q.question_type == "comparison"]
    assert {q.answer for q in questions if q.about.startswith(("object=", "material="))} == {"yes"}
    assert {q.answer for q in questions if q.about.startswith("color=")} == {"yes", "no"}
    more = [*items, item("a.png", color="white"), item("b.png", color="purple")]
    assert {q.about for q in ask_templates(more, 0) if q.question_type == "comparison"} == {"color of 4"}


def test_what_the_picture_may_show_as_well_is_no_wrong_answer():
    values = ("red", "blue", "green", "white", "purple")
    others = [item(f"{n}.png", color=values[n % 5]) for n in range(50)]
    one = item("x.png", color="red", not_wrong=("blue", "red", "vase"))
    questions = [q for seed in range(30) for q in ask_templates([one, *others], seed) if q.item is one]
    left = {"red", "green", "white", "purple"}
    assert all(set(offered(q.question)) == left for q in questions if q.about == "color of 4")
    assert {q.about for q in questions if q.question_type == "yes/no"} == {f"color={value}" for value in left}


def test_what_the_catalogue_names_is_no_wrong_answer():
    others = [item(f"{n}.png", object=("lamp", "bulb", "boot", "ring", "clock")[n % 5]) for n in range(50)]
    one = replace(item("x.png", object="lamp"), named=frozenset({"bulb", "lamp"}))
    questions = [q for seed in range(30) for q in ask_templates([one, *others], seed) if q.item is one]
    left = {"lamp", "boot", "ring", "clock"}
    assert {q.about for q in questions if q.question_type == "yes/no"} == {f"object={value}" for value in left}


# The draw


def test_the_same_seed_gives_the_same_questions_and_another_gives_others():
    items = ITEMS[:100]
    assert ask_templates(items, 0) == ask_templates(list(items), 0)
    first, other = ({(q.item.image_name, q.question) for q in ask_templates(items, seed)} for seed in (0, 1))
    assert len(first & other) < len(first) / 3


def test_an_item_s_questions_do_not_depend_on_the_order_of_the_items():
    shuffled = random.Random(0).sample(ITEMS, len(ITEMS))
    again = ask_templates(shuffled, 0)
    assert [q.item.image_name for q in again if q.about == "object"] == [one.image_name for one in shuffled]
    assert sorted(again, key=lambda q: q.item.image_name) == ASKED


def test_every_wording_is_used():
    text = " ".join(q.question for q in ASKED)
    for group in ("open", "choice", "proportion", "yes/no"):
        for wording in chain.from_iterable(WORDED[group].values()):
            parts = [re.escape(literal) for literal, *_ in string.Formatter().parse(wording) if literal]
            assert re.search(r"[\w ]*?".join(parts), text), wording


# The wording


def test_questions_are_plain_sentences_without_placeholders():
    for q in ASKED + ask_unknown(ITEMS, 0):
        assert re.fullmatch(r"[A-Z][a-z]+ [a-z,: ]+[a-z]\?", q.question) and "  " not in q.question, q.question
    assert {q.source for q in ASKED} == {"templates"} and {q.prompt_hash for q in ASKED} == {""}
    assert all(q.raw_answer == q.answer and not q.verdicts for q in ASKED)


def test_no_question_gives_its_answer_away():
    told = {"yes/no", "comparison"}
    assert [q.question for q in ASKED if q.question_type not in told and q.answer in words_of(q)] == []
    nouns = {one.facts["object"] for one in ITEMS}
    for form in ("object", "category"):
        assert [q.question for q in asked(form) if nouns & set(words_of(q))] == []
    others = [q for q in asked("color") if nouns & set(words_of(q))]
    assert 0.35 < len(others) / len(asked("color")) < 0.65  # half of the others name the product
    assert all(nouns & set(words_of(q)) == {q.item.facts["object"]} for q in others)


@pytest.mark.parametrize("noun", ["paper"])
def test_a_product_named_like_its_material_is_not_named(noun):
    questions = [q for seed in range(20) for q in ask_templates([item(object=noun, material=noun, color="red")], seed)]
    assert not [q for q in questions if q.about == "material" and noun in words_of(q)]
    assert [q for q in questions if q.about == "color" and noun in words_of(q)]


def test_questions_without_a_noun_speak_of_the_product():
    items = [item(f"{n}.png", color="red", shape="round") for n in range(40)]
    neutral = "|".join(WORDED["things"]["neutral"])
    assert all(re.search(rf"\b({neutral})\b", q.question) for q in ask_templates(items, 0))


def test_questions_pass_the_filters_of_form():
    assert {judge(question) for question in ASKED for judge in (single_word, fits_form)} == {None}
    assert {question_type(q.question) for q in asked("color")} == {"color"}


@pytest.mark.parametrize(
    "noun, written",
    [
        ("boot", "a boot"), ("umbrella", "an umbrella"), ("earring", "an earring"), ("ottoman", "an ottoman"),
        ("hammer", "a hammer"),
        ("scissors", "a pair of scissors"), ("headphones", "a pair of headphones"), ("dinnerware", "dinnerware"),
    ],
)  # fmt: skip
def test_articles(noun, written):
    assert with_article(noun) == written
    others = [item(f"{n}.png", object=other) for n, other in enumerate(("suitcase", "sofa", "towel"))]
    questions = [q.question for seed in range(20) for q in ask_templates([item("x.png", object=noun), *others], seed)]
    found = {
        match[0] for text in questions for match in re.finditer(rf"(?:\b(?:an?|the) )?(?:\bpair of )?\b{noun}\b", text)
    }
    assert found == {written}


@pytest.mark.parametrize("noun, plural", [("boot", False), ("scissors", True), ("pants", True), ("dinnerware", False)])
def test_verbs_agree_with_the_noun(noun, plural):
    facts = {kind: values[0] for kind, values in VALUES.items()}
    others = [item(f"{n}.png", color=color) for n, color in enumerate(VALUES["color"])]
    one = item("x.png", object=noun, **facts)
    texts = [q.question for seed in range(80) for q in ask_templates([one, *others], seed)]
    verbs = {
        match[1] for text in texts for match in re.finditer(rf"\b(is|are|does|do) the {noun}\b", text, re.IGNORECASE)
    }
    assert verbs == ({"Are", "are", "do"} if plural else {"Is", "is", "does"})


# What the catalogue does not tell


def test_what_is_not_known_is_asked_without_an_answer():
    questions = ask_unknown(ITEMS, 0)
    assert [(q.item.image_name, q.about) for q in questions] == [
        (one.image_name, kind) for one in ITEMS for kind in OPEN if kind not in one.facts
    ]
    assert {(q.answer, q.raw_answer, q.question_type == q.about) for q in questions} == {("", "", True)}
    assert questions == ask_unknown(ITEMS, 0) != ask_unknown(ITEMS, 1)
    assert [q.about for q in ask_unknown([item()], 0)] == OPEN
    assert ask_unknown([replace(ITEMS[0], facts=dict.fromkeys(OPEN, "boot"))], 0) == []


def test_templates_need_no_torch():
    code = (
        "import sys; from blip2vqa.generate.catalogue import selecting; from blip2vqa.generate.ask import templates as t;"
        "from helpers.drawn_catalogue import drawn_items;"
        "t.ask_templates(drawn_items(9), 0); print({'torch', 'transformers'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "tests:."}, capture_output=True, text=True
        ).stdout
        == "set()\n"
    )

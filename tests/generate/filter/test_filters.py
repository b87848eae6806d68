"""What is thrown out, told from question, answer and catalogue alone: tables of cases."""

from pathlib import Path

import pytest

from blip2vqa.generate.ask.templates import ask_templates
from blip2vqa.generate.filter.filters import FILTERS, agrees_with_listing, fits_form, not_repeated, single_word
from blip2vqa.generate.rows import Item, Question

POLAR, NAMED = "yes or no to another question", "the question names the answer"
REPEAT, NEAR, TWO = "asked already", "nearly asked already", "two answers to one question"


def shown(name: str = "a.jpg", **facts: str) -> Item:
    return Item(name, Path(name), "digest", "B0", "SHOES", "WALKING sock", facts)


def asked(question="What is this?", answer="boot", kind="object", about="", picture="a.jpg", **facts) -> Question:
    return Question(shown(picture, **facts), question, answer, kind, "templates", about)


def verdict(judge, *args, **more) -> str | None:
    return judge(asked(*args, **more))


@pytest.mark.parametrize("answer", ["red", "t-shirt", "o'clock", "café", "3", "x" * 24, "black-and-white"])
def test_one_word_passes(answer):
    assert verdict(single_word, answer=answer) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no answer"),
        ("dark red", "more than one word"),
        ("red, blue", "more than one word"),
        ("red/blue", "more than one word"),
        ("red\nblue", "more than one word"),
        ("red ", "more than one word"),
        ("red!", "more than one word"),
        ("-red", "more than one word"),
        ("red--blue", "more than one word"),
        ("efn_usca", "more than one word"),
        ("3.5", "more than one word"),
        ("☂", "more than one word"),
        ("x" * 25, "a word too long"),
        *(
            (word, "an answer that says nothing")
            for word in ("unknown", "none", "na", "various", "other", "it", "null")
        ),
    ],
)
def test_other_answers_are_rejected_never_cut(answer, reason):
    question = asked(answer=answer)
    assert list(FILTERS["single word"]([asked(), question, asked()])) == [None, reason, None]
    assert question.answer == answer


@pytest.mark.parametrize(
    ("question", "fits", "reasons"),
    [
        ("Is this a boot?", ["yes", "no"], {"boot": "not yes or no", "maybe": "not yes or no"}),
        ("Does it look striped?", ["yes", "no"], {"striped": "not yes or no"}),
        ("Is this a mug or not?", ["yes", "no"], {"mug": "not yes or no"}),
        ("Is it Red or blue?", ["red", "blue"], {"green": "none of those offered", "yes": POLAR}),
        ("Is it red OR blue?", ["red"], {"green": "none of those offered"}),
        ("Which of these is shown: a boot, a lamp or a rug?", ["boot", "lamp", "rug"], {"bed": "none of those offered"}),
        ("Is this a t-shirt or a boot?", ["t-shirt", "boot"], {"shirt": "none of those offered"}),
        ("How many legs does it have?", ["4", "four", "ten", "0"], {"several": "not a number", "no": POLAR}),
        ("How many colors does it have?", ["2"], {"red": "not a number"}),
        ("How many of the 2 lamps are lit?", ["1"], {"2": NAMED}),
        ("What color is the boot?", ["black", "navy", "grey", "transparent"], {"large": "not a color", "boot": NAMED}),
        ("What colour is the Red boot?", ["blue"], {"red": NAMED, "yes": POLAR}),
        ("What is the bootlace made of?", ["leather", "lace"], {"bootlace": NAMED, "boot": "not a material"}),
        ("What is this?", ["boot"], {"no": POLAR, "what": NAMED}),
        ("  What is this?\n", ["boot"], {}),
        ("What is this", [], {"boot": "not a question"}),
        ("Name the object.", [], {"boot": "not a question"}),
        ("What color?", [], {"red": "not a question"}),
        ("", [], {"red": "not a question"}),
    ],
)  # fmt: skip
def test_the_answer_fits_the_form_of_the_question(question, fits, reasons):
    expected = dict.fromkeys(fits) | reasons
    assert {answer: verdict(fits_form, question, answer) for answer in expected} == expected


COLOR, MATERIAL, SHAPE = "What color is it?", "What is it made of?", "What shape is it?"
PATTERN, STYLE, WHAT = "How is it patterned?", "What style is it?", "What is this?"


@pytest.mark.parametrize(
    ("kind", "question", "either", "by_a_back_end", "neither"),
    [
        ("object", WHAT, ["shelf", "shoes", "armoire", "clip", "paper"], [],
         ["rectangle", "rectangles", "cross-stitch-red", "red", "4", "four", "leather", "striped", "modern", "furniture"]),
        ("category", WHAT, ["footwear"], ["thing"], ["boot", "red", "4"]),
        ("color", COLOR, ["navy", "silver", "rose-gold"], [], ["iridescent", "leather", "boot", "4", "round"]),
        ("material", MATERIAL, ["steel", "silver", "denim"], ["cork"], ["blue", "4", "boot", "round", "modern", "squares"]),
        ("shape", SHAPE, ["round", "heart"], ["star"], ["blue", "4", "boots", "leather", "solid"]),
        ("pattern", PATTERN, ["striped", "plain"], ["abstract"], ["blue", "2", "boot", "leather", "round", "modern"]),
        ("style", STYLE, ["modern", "oxford"], ["gothic"], ["blue", "2", "boot", "striped", "round", "furniture"]),
    ],
)  # fmt: skip
def test_an_answer_is_no_word_for_another_kind_of_thing(kind, question, either, by_a_back_end, neither):
    def found(about: str) -> set[str]:
        answers = either + by_a_back_end + neither
        return {answer for answer in answers if verdict(fits_form, question, answer, kind, about) is None}

    assert found(about=kind) == set(either)
    assert found(about="") == set(either + by_a_back_end)
    reason = "not an object" if kind == "object" else f"not a {kind}"
    assert verdict(fits_form, question, neither[0], kind) == verdict(fits_form, question, "12", kind) == reason


def test_the_kind_is_told_by_the_words_before_the_type_that_a_back_end_gave():
    assert verdict(fits_form, "What is the rug made of?", "red", "color") == "not a material"
    assert verdict(fits_form, "What is the rug made of?", "wool", "color") is None
    assert verdict(fits_form, "How many legs does it have?", "4", "object") is None
    assert verdict(fits_form, "What is written on it?", "red", "other") is None
    assert verdict(fits_form, "Is this a boot or a rectangle?", "rectangle", "object") is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # word for word: of the same answer the first stays; of two answers none does
        ([("What is it made of?", "wood")] * 3, [None, REPEAT, REPEAT]),
        ([("What is it made of?", "wood"), ("what is it MADE of ?", "wood")], [None, REPEAT]),
        ([("Is it blue, or green?", "blue"), ("Is it blue or green?", "green")], [TWO, TWO]),
        ([("Is it red?", "yes"), ("Is it red?", "no")], [TWO, TWO]),
        ([("Is it red?", "yes"), ("Is it red?", "no"), ("Is it red?", "yes")], [TWO, TWO, TWO]),
        ([("Is it red?", "yes"), ("Is it red?", "yes"), ("Is it red?", "no")], [TWO, TWO, TWO]),
        ([("Is it red?", "no"), ("Is it red?", "yes"), ("Is it red?", "yes")], [TWO, TWO, TWO]),
        # others around them are untouched
        ([("Is it red?", "no"), ("What shape is it?", "round"), ("Is it red?", "yes")], [TWO, None, TWO]),
        ([("What shape is the rug?", "round"), ("What is this?", "round")], [None, None]),
        # nearly: the order of words, a word of a few letters; with another answer it takes more
        ([("Here, what is the color?", "red"), ("What is the color here?", "red")], [None, NEAR]),
        ([("Here, what is the color?", "red"), ("What is the color here?", "blue")], [TWO, TWO]),
        ([("What color is the left boot?", "red"), ("What color is the right boot?", "blue")], [None, None]),  # 94
        ([("What color is the boot?", "red"), ("What colour is the boot?", "blue")], [TWO, TWO]),
        ([("What color is the big old boot?", "red"), ("What color is the big boot?", "red")], [None, NEAR]),  # 93
        ([("What color is the old boot?", "red"), ("What color is the boot?", "red")], [None, NEAR]),  # 91
        ([("What color is the worn boot?", "red"), ("What color is the boot?", "red")], [None, None]),  # 89
        ([("What is its color?", "red"), ("Which color does the product have?", "red")], [None, None]),
    ],
)
def test_questions_about_one_picture_are_asked_once(rows, expected):
    assert list(not_repeated([asked(question, answer) for question, answer in rows])) == expected


def test_the_same_may_be_asked_of_another_picture():
    rows = [asked(answer=answer, picture=name) for name, answer in (("a", "boot"), ("b", "boot"), ("c", "rug"))]
    assert list(not_repeated(rows)) == [None, None, None]
    assert list(not_repeated([*rows, rows[1], asked(answer="lamp", picture="c")])) == [None, None, TWO, REPEAT, TWO]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # two values asked about in one wording differ by design
        (("Is the product black?", "yes/no", "color=black"), ("Is the product blank?", "yes/no", "color=blank"), None),
        (("Is the product black?", "yes/no", "color=black"), ("Is the product blank?", "yes/no", ""), NEAR),
        (("Is the product black?", "yes/no", ""), ("Is the product blank?", "yes/no", "color=blank"), NEAR),
        (("Is the product black?", "yes/no", ""), ("Is the product blank?", "yes/no", ""), NEAR),
        (("Is the product black?", "yes/no", ""), ("Is the product blank?", "other", ""), None),
        # word for word is always the same
        (("Is the product black?", "yes/no", "color=black"), ("Is the product black?", "other", "color=black"), REPEAT),
    ],
)
def test_what_asks_about_two_values_or_kinds_is_not_nearly_the_same(first, second, expected):
    rows = [asked(question, "no", kind, about) for question, kind, about in (first, second)]
    assert list(not_repeated(rows)) == [None, expected]


@pytest.mark.parametrize(
    ("kind", "listed", "agree", "contradict"),
    [
        ("color", "blue", ["blue", "navy", "turquoise", "purple"], ["red", "green", "black"]),
        ("color", "gray", ["grey", "silver", "charcoal", "black"], ["blue", "dark-green"]),
        ("color", "silver", ["gray", "white", "chrome"], ["red", "copper"]),
        ("object", "sneaker", ["sneaker", "sneakers", "trainer", "shoe", "loafer"], ["boot", "lamp"]),
        ("object", "shoe", ["sneaker", "boot", "shoes"], ["lamp", "hat"]),
        ("object", "sofa", ["couch", "chair"], ["table", "pillow"]),
        ("material", "metal", ["steel", "brass", "silver"], ["wood", "cotton"]),
        ("material", "wood", ["oak", "bamboo"], ["metal", "leather"]),
        ("shape", "round", ["circular", "oval"], ["square", "heart"]),
        ("shape", "square", ["rectangular"], ["round"]),
        ("pattern", "solid", ["plain"], ["striped", "floral"]),
        ("style", "modern", ["modern", "rustic"], []),  # styles do not rule one another out
        ("category", "footwear", ["shoes", "footwear"], ["clothing", "jewelry"]),
        # words that no vocabulary has: those of the listing, whose product type here is SHOES, and whose name a WALKING sock
        ("color", "blue", [], ["iridescent", "leather"]),
        ("object", "sneaker", ["walking"], ["thing", "which", "sock", "walking-stick"]),
        ("object", "mouse", ["mice"], ["rat"]),
        ("material", "metal", [], ["cork"]),
    ],
)
def test_an_answer_agrees_with_the_listing(kind, listed, agree, contradict):
    found = {
        answer: verdict(agrees_with_listing, answer=answer, kind=kind, **{kind: listed})
        for answer in agree + contradict
    }
    assert found == dict.fromkeys(agree) | dict.fromkeys(contradict, "the catalogue says otherwise")  # fmt: skip


def test_a_silent_listing_contradicts_nothing():
    for answer in ("red", "iridescent", "4", "yes"):
        assert verdict(agrees_with_listing, answer=answer, kind="color") is None
        assert verdict(agrees_with_listing, answer=answer, kind="color", object="boot", material="leather") is None
    for question, kind in (
        ("Is it blue?", "yes/no"),
        ("How many are there?", "count"),
        ("How many are there?", "color"),
    ):
        for answer in ("yes", "4"):
            assert verdict(agrees_with_listing, question, answer, kind, color="blue", object="boot") is None


@pytest.mark.parametrize(
    ("question", "kind", "about", "facts", "agree", "contradict"),
    [
        # a choice: of the templates by its mark, of a back end by the words or by the type
        ("Is it blue, red, gray or pink?", "comparison", "color of 4", {"color": "red"}, ["red"], ["blue", "gray"]),
        ("Which of these is it made of: wood or metal?", "comparison", "material of 4", {"material": "wood"},
         ["wood"], ["metal", "which"]),
        ("Is this a lamp, a boot, a rug or a mug?", "comparison", "object of 4", {"object": "boot"},
         ["boot"], ["lamp", "rug"]),
        ("Which of these colors is it: blue or red?", "comparison", "", {"color": "red"}, ["red"], ["blue"]),
        ("Is it blue or red?", "color", "", {"color": "red"}, ["red"], ["blue"]),
        ("Is it blue or red?", "comparison", "", {"color": "red"}, ["red", "blue"], []),
        # a value asked about
        ("Is it blue?", "yes/no", "color=blue", {"color": "red"}, ["no"], ["yes"]),
        ("Is it blue?", "yes/no", "color=blue", {"color": "blue"}, ["yes"], ["no"]),
        ("Is it purple?", "yes/no", "color=purple", {"color": "blue"}, ["yes", "no"], []),
        # proportions, whoever asks
        ("Is it taller or wider?", "comparison", "taller", {"proportion": "taller"}, ["taller"], ["wider"]),
        ("Is it taller or wider?", "comparison", "taller", {"proportion": "wider"}, ["wider"], ["taller"]),
        ("Which is larger, the height or the width?", "comparison", "", {"proportion": "taller"}, ["height"], ["width"]),
        ("Which is larger, the height or the width?", "other", "", {"proportion": "wider"}, ["width"], ["height"]),
        ("Is it taller or wider?", "comparison", "taller", {"color": "red"}, ["taller", "wider", "height", "width"], []),
        # a category that is no fair question
        ("What category is it?", "category", "category", {"object": "clock"}, ["decor"], ["footwear", "hardware", "thing"]),
    ],
)  # fmt: skip
def test_a_choice_and_what_is_larger_agree_with_the_listing(question, kind, about, facts, agree, contradict):
    answers = agree + contradict
    found = {answer: verdict(agrees_with_listing, question, answer, kind, about, **facts) for answer in answers}
    assert found == dict.fromkeys(agree) | dict.fromkeys(contradict, "the catalogue says otherwise")


def test_every_filter_says_one_thing_of_each_question():
    assert list(FILTERS) == ["single word", "form", "duplicates", "listing"]
    good = [asked(), asked("What color is it?", "red", "color", color="red")]
    for judge in FILTERS.values():
        assert list(judge([])) == []
        assert list(judge(good)) == [None, None]


def test_what_the_templates_ask_passes_every_filter():
    colors = ("black", "red", "blue", "green", "pink", "clear")
    materials = ("wood", "metal", "leather", "wool", "glass", "paper")
    nouns = ("boot", "lamp", "scissors", "umbrella", "sofa", "dinnerware")
    items = [
        shown(
            f"{number}.jpg", object=noun, category="furniture", color=color, material=material,
            shape="round", pattern="striped", style="modern", proportion=("taller", "wider")[number % 2],
        )
        for number, (noun, color, material) in enumerate(zip(nouns, colors, materials, strict=True))
    ]  # fmt: skip
    questions = [question for seed in range(5) for question in ask_templates(items, seed)]
    assert len(questions) > 5 * 6 * 10
    for step in ("single word", "form", "listing"):
        assert set(FILTERS[step](questions)) == {None}, step
    assert set(not_repeated(ask_templates(items, 0))) == {None}

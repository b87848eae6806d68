"""When two answers are the same: tables of cases."""

import pytest

from blip2vqa.generate.filter.agreement import answers_match


@pytest.mark.parametrize(
    "answer, said",
    [
        ("red", "Red."), ("chair", "a chair"), ("chair", "chairs"), ("chairs", "chair"), ("box", "boxes"),
        ("vase", "vases"), ("knife", "knives"), ("shelf", "shelves"), ("battery", "batteries"), ("foot", "feet"),
        ("gray", "grey"), ("t-shirt", "tshirt"), ("bookshelf", "book shelf"), ("two", "2"), ("none", "0"),
        ("yes", "Yes, it is."), ("yes", "true"), ("no", "No"), ("no", "nope"),
        ("sofa", "couch"), ("couch", "sofa"), ("blue", "navy"), ("round", "circle"), ("striped", "stripes"),
        ("wood", "wooden"), ("sneaker", "trainers"), ("aluminum", "aluminium"), ("multicolor", "multi-colored"),
        ("silver", "steel"), ("metal", "steel"),
    ],
)  # fmt: skip
def test_answers_that_agree(answer, said):
    assert answers_match(answer, said)


@pytest.mark.parametrize(
    "answer, said",
    [
        ("red", ""), ("", "red"), ("", ""), ("the", "a"), ("red", "dark"), ("red", "red box"), ("yes", "no"), ("no", "yes"),
        ("no", "not sure"), ("yes", "eyes"), ("glass", "gla"), ("navy", "teal"), ("silver", "metal"),
        ("aluminum", "steel"), ("two", "3"), ("case", "cases of wood"), ("round", "square"), ("red", "reed"),
    ],
)  # fmt: skip
def test_answers_that_do_not_agree(answer, said):
    assert not answers_match(answer, said)

"""Words as the COCO evaluation has them, and where they differ from it."""

import pytest

from blip2vqa.evaluation.words import tokenize


@pytest.mark.parametrize(
    ("caption", "words"),
    # What PTBTokenizer gives, lowercased and without punctuation, as pycocoevalcap calls it
    [
        ("The man's dog, that DON'T bark!", "the man 's dog that do n't bark"),
        ("It’s a red-haired man’s T-shirt; won't fit...", "it 's a red-haired man 's t-shirt wo n't fit"),
        ('At 10:30 o\'clock -- 2,000 and/or 4.5 "small" cars.', "at 10:30 o'clock 2,000 and/or 4.5 small cars"),
        ("Schöne Straße — größer… ‘so’ “so”", "schöne straße größer so so"),
        ("a dog's ' bone mid- word", "a dog 's bone mid word"),
        ("हिन्दी में 中文 text", "हिन्दी में 中文 text"),
        ("don't.Stop one,two", "do n't stop one two"),
        (" \n", ""),
        ("...", ""),
    ],
)
def test_words_are_those_of_the_coco_evaluation(caption, words):
    assert " ".join(tokenize(caption)) == words


def test_words_that_differ_from_the_coco_evaluation():
    assert tokenize("U.S. cannot & (50%) 🐶") == ["u", "s", "cannot", "50", "🐶"]
    assert tokenize("cafe\u0301") == tokenize("Café")

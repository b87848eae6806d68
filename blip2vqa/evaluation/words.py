"""Splits captions into words, as the metrics of captions count them."""

import re
import unicodedata

# Whatever is neither a space nor ASCII, Latin-1, general, CJK or full-width punctuation; joiners are part of words.
CHARACTER = r"[^\s\x00-/:-@\[-`{-\xbf\u2000-\u200b\u200e-\u206f\u3000-\u303f\uff00-\uff0f]"
ENDINGS = r"'(?:s|re|ve|ll|d|m)"
CONTRACTED = re.compile(rf"(?<={CHARACTER})(n't|{ENDINGS})(?!{CHARACTER})")
WORD = re.compile(rf"(?<!\S){ENDINGS}(?!{CHARACTER})|{CHARACTER}+(?:[-'/]{CHARACTER}+|(?<=\d)[.,:](?=\d){CHARACTER}+)*")


def tokenize(caption: str) -> list[str]:
    """Split into lower-case words without punctuation, as the COCO evaluation does with Stanford's PTBTokenizer.

    don't → do n't, man's → man 's; t-shirt, and/or, o'clock, 4.5 and 10:30 stay whole. The two agree on plain English
    captions. Beyond those, abbreviations fall apart (u.s. → u s), cannot and gonna stay whole, signs such as & $ % #
    and the marks -lrb- -rrb- that stand for brackets are dropped, and emoji stay. A text without spaces is one word in
    both.
    """
    text = unicodedata.normalize("NFC", caption.lower()).replace("’", "'")
    return WORD.findall(CONTRACTED.sub(r" \1", text))


def spaced(caption: str) -> str:
    """Join the words of a caption by single spaces, the form in which pycocoevalcap's scorers take texts."""
    return " ".join(tokenize(caption))

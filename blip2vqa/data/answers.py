"""Types of questions, and when two answers count as the same.

Normalisation follows the official VQA evaluator, `vqaEvaluation/vqaEval.py` of https://github.com/GT-Vision-Lab/VQA
(Antol et al. 2015, Goyal et al. 2017), quirks included: scores are comparable only when every step is the same.
"""

import re
from collections.abc import Sequence

from blip2vqa.utils.errors import InputError

NUMBER_WORDS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
PERIOD = re.compile(r"\.(?!\d)")  # the evaluator's lookbehind is mistyped and never holds, so "a.5" keeps its period
COMMA_IN_NUMBER = re.compile(r"\d,\d")

# The evaluator lists misspelt forms one by one; all but one are these words with exactly one apostrophe left out.
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word for word in CONTRACTED.split() for mark in re.finditer("'", word)
}
CONTRACTIONS["somebody'd"] = "somebodyd"  # the evaluator's own slip

QUESTION_TYPES = ("yes/no", "count", "color", "shape", "material", "what", "other")
AUXILIARY = re.compile(
    r"(is|are|am|was|were|do|does|did|can|could|will|would|should|shall|may|might|must|has|have|had)(n['’]?t)?\b"
    r"|(can['’]?t|cannot|won['’]?t|ain['’]?t)\b"
)
CHOICE = re.compile(r"\bor (?!not\b|no\b|more\b|less\b|fewer\b)")
RULES = (
    ("count", re.compile(r"\bhow many\b|\b(?:number|count) of\b")),
    ("color", re.compile(r"\bcolou?r(s|ed|ing)?\b")),
    ("shape", re.compile(r"\bshaped?\b|\bshapes\b")),
    ("material", re.compile(r"\bmaterials?\b|\bmade (out )?(of|from)\b|\btextures?\b|\bfabrics?\b")),
    ("what", re.compile(r"\b(what|which)\b")),
)


def process_punctuation(text: str) -> str:
    """Remove punctuation as the evaluator does.

    A mark beside a space, or any mark when the text holds a number like 1,000, is dropped; other marks become a space.
    Periods are dropped unless a digit follows.
    """
    number = COMMA_IN_NUMBER.search(text)
    result = text
    for mark in PUNCTUATION:
        if mark in text:
            dropped = number or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if dropped else " ")
    return PERIOD.sub("", result, count=32)  # 32 is re.UNICODE, which the evaluator passes as the count


def process_digit_article(text: str) -> str:
    """Write words in lower case, numbers up to ten as digits, and contractions with apostrophes; drop articles and blanks."""
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalize_answer(text: str) -> str:
    """Normalise an answer by all steps of the evaluator, which skips them when all ten annotators agree: see `vqa_score`."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return process_digit_article(process_punctuation(text))


def vqa_score(prediction: str, answers: Sequence[str]) -> float:
    """Compute the VQA accuracy of one prediction, 0 to 1; `blip2vqa/evaluation/metrics/vqa_accuracy.py` explains it."""
    if not answers:
        raise ValueError("VQA accuracy needs at least one answer a row; leave out rows without any")
    if not prediction.strip():
        return 0.0
    prediction, *answers = [text.replace("\n", " ").replace("\t", " ").strip() for text in (prediction, *answers)]
    if len(set(answers)) > 1 or len(answers) == 1:
        prediction, *answers = [process_digit_article(process_punctuation(text)) for text in (prediction, *answers)]
    if len(answers) == 1:
        return float(prediction == answers[0])
    matches = answers.count(prediction)
    needed = min(3, len(answers) - 1)
    # Leaving out one that matched leaves matches - 1; leaving out another leaves them all.
    without_a_match, without_another = min(1, (matches - 1) / needed), min(1, matches / needed)
    return (matches * without_a_match + (len(answers) - matches) * without_another) / len(answers)


def parse_question_types(text: str | None) -> tuple[str, ...]:
    """Split a list such as "count,yes/no" into its types; () means all. Raises `InputError` for an empty list."""
    if text is None:
        return ()
    types = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not types:
        raise InputError(f"--question_types {text!r}: names no type; known by rule are {', '.join(QUESTION_TYPES)}")
    return types


def question_type(question: str) -> str:
    """Find the type, one of QUESTION_TYPES, from the question's text alone; the first rule that fits wins.

    A question that begins with is, are, does, ... is yes/no unless it offers a choice ("is it red or blue?"), which
    falls to the rules after it. "How many colors" counts; "what color is the shape" asks for a color.
    """
    text = question.strip().lower()
    if AUXILIARY.match(text) and not CHOICE.search(text):
        return "yes/no"
    return next((name for name, pattern in RULES if pattern.search(text)), "other")

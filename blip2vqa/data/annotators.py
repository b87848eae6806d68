"""Reads a cell of answers: one answer, or a list with one an annotator, in each form that tables hold them in."""

import ast
import io
import json
import re
import tokenize
import warnings
from datetime import date, time, timedelta

_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^()]+)?\)", re.DOTALL)
# numpy writes no commas between the items of an array.
_NO_COMMA = re.compile(r"""['"}]\s+['"{]""")


def parse_answers(value: object) -> tuple[str, ...]:
    """Return the answers of all annotators, one text each; () for an empty cell.

    A cell is a text or a number; a list of these, or of {"answer": …}; or {"answer": text or list}. A text that is such a
    list as JSON, Python or numpy write it counts as the list. Raises ValueError, in words that follow "answer is", for
    anything else.
    """
    if isinstance(value, str):
        value = parse_cell(value)
    if isinstance(value, dict) and "answer" in value:
        value = value["answer"]
    if not isinstance(value, list):
        texts = ("" if value is None else _text(value),)
    elif any(isinstance(item, list | tuple | set) for item in value):
        raise ValueError("a list of lists")
    else:
        texts = tuple(_text(item["answer"] if isinstance(item, dict) and "answer" in item else item) for item in value)
    return texts if any(text.strip() for text in texts) else ()


def parse_cell(text: str) -> object:
    """Read the list or the object that a text wholly is; any other text stays what it is.

    A tuple or a set of texts counts as a list; (3, 4), of numbers alone, is a text.
    """
    body = text.strip()
    array = _ARRAY.fullmatch(body)
    body = array[1] if array else body
    if body[:1] + body[-1:] not in ("[]", "{}", "()"):
        return text
    try:
        value = json.loads(body, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        value = _parse_python(body)
    if isinstance(value, tuple | set) and not all(isinstance(item, int | float | complex) for item in value):
        value = list(value) if isinstance(value, tuple) else sorted(value, key=str)  # a set has no order of its own
    return value if isinstance(value, list | dict) else text


def looks_like_list(text: str) -> bool:
    """Return whether a text that is no list may have been meant as one."""
    return text.lstrip().startswith(("[", "array(["))


def _parse_python(text: str) -> object:
    try:
        if _NO_COMMA.search(text):
            text = _with_commas(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes, which a user can do nothing about
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def _with_commas(text: str) -> str:
    """Put a comma between items that have none; Python would join two texts side by side into one."""
    words, before = [], ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            continue
        if before[-1:] in ("'", '"', "}") and (token.type == tokenize.STRING or token.string == "{"):
            words.append(",")
        words.append(token.string)
        before = token.string
    return " ".join(words)


_KINDS = (
    (bool, "true or false"),
    (dict, "an object"),
    (list, "a list"),
    (type(None), "a list with nothing in a place"),
    (date | time | timedelta, "a date or a time"),
    (bytes, "bytes"),
    (object, "another kind of value"),
)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(next(words for kind, words in _KINDS if isinstance(value, kind)))
    return "" if value != value else json.dumps(value)  # NaN is an empty cell of numbers

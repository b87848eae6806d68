"""Measures how many answers can be guessed from the questions' text alone, by a classifier that never sees a picture.

It is another measure than the blind baseline, which gives the most common answer to a question: it learns words, and is
cross-validated on all rows.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from blip2vqa.data.answers import normalize_answer

FOLDS = 5
MOST_ROWS = 100_000  # that are scored; of a larger table, a sample
MOST_ANSWERS = 500  # that can be guessed; the rest of VQAv2's 5,500 hold 14% of its rows, and would cost minutes
MOST_WORDS = 10_000  # and runs of words, that are told apart: more take longer and score no better
MOST_READ = 20_000  # distinct questions searched for these; of more, every so many: the runs of all would fill memory
AT_ONCE = 1_000_000  # probabilities computed at once, questions times answers: 8 MB, and as much for each step to them
SMOOTHING = 0.03  # of the word counts; the best on questions about ABO and VQAv2 of 0.01, 0.03 and 0.1
PRIOR = 5.0  # times that a question must have been asked for its own answers to count as much as its words


class Guesses(NamedTuple):
    """Guessed answers, one a row, in order."""

    answers: list[str]
    """Normalised; "" where there was nothing to learn from."""
    confidence: np.ndarray
    """Probability of the answer guessed, 0 to 1. It tells sure from unsure; of questions never seen it is too high."""
    runner_up: np.ndarray
    """Probability of the next best."""


class BlindScore(NamedTuple):
    """The share of answers that can be guessed from the question alone."""

    score: float | None
    """0 to 1; None where nothing can be held out: fewer than two groups."""
    n: int
    """Rows scored, fewer than were given where a sample was drawn."""


def blind_score(questions: Sequence[str], answers: Sequence[str], groups: Sequence[str], seed: int = 0) -> BlindScore:
    """Compute the share of the answers that `blind_guesses` gets right after the official normalisation.

    Of more than `MOST_ROWS` rows a sample is scored, whole groups drawn by `seed`. A table with one answer scores 1.
    """
    taken = range(len(questions))
    if len(questions) > MOST_ROWS:
        kept, count = set(), 0
        sizes = Counter(groups)
        for group in _shuffled(groups, seed):
            if count + sizes[group] <= MOST_ROWS:
                kept.add(group)
                count += sizes[group]
        taken = [place for place, group in enumerate(groups) if group in kept]
    asked, truth, grouped = ([column[place] for place in taken] for column in (questions, answers, groups))
    if len(set(grouped)) < 2:
        return BlindScore(None, 0)
    guessed = blind_guesses(asked, truth, grouped, seed).answers
    return BlindScore(float(np.mean(right(guessed, truth))), len(truth))


def right(guessed: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Mark which of the normalised `guessed` equal the answers: boolean, (rows,)."""
    return np.array([guess == answer for guess, answer in zip(guessed, _normalized(answers), strict=True)], dtype=bool)


def blind_guesses(questions: Sequence[str], answers: Sequence[str], groups: Sequence[str], seed: int = 0) -> Guesses:
    """Guess every row's answer from its question, after learning from the other groups' rows.

    Two classifiers of text are tried, and the guesses are those of the one that is right more often on these rows:
    - fine: a naive Bayes over the question's words, its runs of two and three, and the whole question, weighted as Rennie et
      al. 2003 advise (https://people.csail.mit.edu/jrennie/papers/icml03-nb.pdf). To the answers that the same question
      has had, `PRIOR` are added, spread as the naive Bayes says: a question often asked is answered by its most common
      answer, one never asked by its words.
    - coarse: a naive Bayes over single words, which is harder to lead astray where answers are balanced question by question.
    Only the `MOST_ANSWERS` most common answers can be guessed, and none seen once, where others were seen twice.

    Args:
        questions, answers: one a row; questions are compared in lower case without punctuation, answers after the
            official normalisation.
        groups: one a row, such as its picture's digest or its product; rows of a group are never guessed from one another.
            Groups are dealt out to the folds by `seed`, whatever the order of the rows.

    With fewer than two groups there is nothing to learn from: the guesses are empty, their confidence 0.
    """
    from scipy import sparse

    fold_of = {group: place % FOLDS for place, group in enumerate(_shuffled(groups, seed))}
    if len(fold_of) < 2:
        return Guesses([""] * len(questions), np.zeros(len(questions)), np.zeros(len(questions)))
    fold = np.array([fold_of[group] for group in groups], dtype=int)
    asked, question = _number([" ".join(re.findall(r"[\w']+", text.lower())) for text in questions])
    known, answer = _number(_normalized(answers))
    tried = []
    for words, (smoothing, prior) in zip(_read(asked), ((SMOOTHING, PRIOR), (1.0, np.inf)), strict=True):
        found = np.empty((3, len(fold)))  # the answers' numbers, their probabilities, the next best's
        for held_out in np.unique(fold):
            rows, learnt = fold == held_out, fold != held_out
            distinct, place = np.unique(question[rows], return_inverse=True)
            pairs = (question[learnt], answer[learnt])
            counts = sparse.csr_array((np.ones(learnt.sum()), pairs), shape=(len(asked), len(known)))
            found[:, rows] = _guess(words, distinct, counts, smoothing, prior)[:, place]
        tried.append(found)
    guess, first, second = max(tried, key=lambda found: np.mean(found[0] == answer))
    return Guesses([known[place] for place in guess.astype(int)], first, second)


def _guess(words, asked: np.ndarray, counts, smoothing: float, prior: float) -> np.ndarray:
    """Find the number of the best answer to each question `asked`, its probability, and the next best's: (3, questions).

    `words` is (questions × words), `counts` (questions × answers), both sparse; `asked` are rows of them.
    """
    from scipy import sparse
    from sklearn.naive_bayes import MultinomialNB

    count = np.asarray(counts.sum(axis=0)).ravel()
    common = np.argsort(-count, kind="stable")[:MOST_ANSWERS]
    common = np.sort(common[count[common] >= min(2, count.max())])
    # A naive Bayes knows sums alone: one row an answer, the mean of its questions, stands for all of them.
    means = sparse.diags_array(1 / count[common]) @ (counts[:, common].T @ words)
    bayes = MultinomialNB(alpha=smoothing).fit(means, np.arange(len(common)), sample_weight=count[common])
    bayes.feature_log_prob_ = np.asfortranarray(bayes.feature_log_prob_)  # else it is turned round for each batch
    guessed = []
    rows_at_once = max(AT_ONCE // len(common), 1)
    for rows in (asked[start : start + rows_at_once] for start in range(0, len(asked), rows_at_once)):
        found = bayes.predict_proba(words[rows])
        if prior < np.inf:
            times = np.asarray(counts[rows].sum(axis=1)).reshape(-1, 1)
            found = (prior * found + counts[rows][:, common].toarray()) / (prior + times)
        best, place = found.argmax(axis=1), np.arange(len(rows))
        first = found[place, best]
        found[place, best] = 0
        guessed.append(np.stack([common[best], first, found.max(axis=1)]))
    return np.hstack(guessed)


def _number(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """List the distinct texts, sorted, and the place of each text among them."""
    distinct = sorted(set(texts))  # not numpy's, which would pad them all to the longest
    place = {text: number for number, text in enumerate(distinct)}
    return distinct, np.array([place[text] for text in texts], dtype=int)


def _read(asked: Sequence[str]) -> Iterator:
    """Yield two views of the questions, sparse, (questions × words): runs of words by TF-IDF, then which words there are.

    No answers are used, so no fold sees them. Of very many questions a part is searched for words.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    runs = TfidfVectorizer(analyzer=_runs, max_features=MOST_WORDS, sublinear_tf=True)
    words = CountVectorizer(analyzer=lambda text: ["^", *text.split()], max_features=MOST_WORDS, binary=True)
    for vectorizer in (runs, words):
        if len(asked) <= MOST_READ:
            counts = vectorizer.fit_transform(asked)
        else:
            counts = vectorizer.fit(asked[:: -(-len(asked) // MOST_READ)]).transform(asked)
        yield counts.tocsr().astype(float)


def _runs(text: str) -> list[str]:
    """List runs of one, two and three words, with marks for begin and end, and the whole question."""
    words = ["^", *text.split(), "$"]
    runs = [words[start : start + length] for length in (1, 2, 3) for start in range(len(words) - length + 1)]
    return [*map(" ".join, runs), f"= {text}"]


def _normalized(answers: Sequence[str]) -> list[str]:
    known = {text: normalize_answer(text) for text in set(answers)}
    return [known[text] for text in answers]


def _shuffled(groups: Sequence[str], seed: int) -> list[str]:
    distinct = sorted(set(groups))
    random.Random(seed).shuffle(distinct)
    return distinct

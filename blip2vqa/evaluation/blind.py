"""Predictions without the picture: what a question alone gives away, and one caption for every picture."""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.words import spaced

SAMPLE_IMAGES = 200  # of the training images, to find the caption most like the others
SAMPLE_SEED = 0


class BlindBaseline:
    """Answers questions without the image, to show what a question alone gives away.

    The answer is the most common one in training to the same question; for a question never seen, to its first three
    words; else overall. Questions are compared in lower case without punctuation, answers after the official normalisation; the
    answer given is its most common spelling. Ties go to what came first in training.

    Raises ValueError when no training example has an answer.
    """

    def __init__(self, train: Sequence[Example]):
        spellings: dict[str, Counter] = defaultdict(Counter)
        counts: list[dict[tuple, Counter]] = [defaultdict(Counter) for _ in _question_keys("")]
        for example in train:
            if not example.answer:
                continue
            answer = normalize_answer(example.answer)
            spellings[answer][example.answer] += 1
            for level, key in zip(counts, _question_keys(example.question), strict=True):
                level[key][answer] += 1
        if not spellings:
            raise ValueError("the blind baseline needs at least one training example with an answer")
        # From the whole question to nothing at all: the first level that knows the key answers.
        self._answers = [
            {key: _most_common(spellings[_most_common(answers)]) for key, answers in level.items()} for level in counts
        ]

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """Give one answer an example, in order."""
        return [self._predict_one(example.question) for example in examples]

    def _predict_one(self, question: str) -> str:
        levels = zip(self._answers, _question_keys(question), strict=True)
        return next(answers[key] for answers, key in levels if key in answers)


def _question_keys(question: str) -> tuple[tuple, tuple, tuple]:
    words = tuple(re.findall(r"[\w']+", question.lower()))
    return words, words[:3], ()


def _most_common(counter: Counter) -> str:
    return counter.most_common(1)[0][0]


class BlindCaption:
    """Gives every image the same caption, to show what a model scores that never sees it.

    It is the training caption most like those of the other images: of the highest mean cosine of its tf-idf vectors, as
    in CIDEr without clipping and penalty, to their captions. At most `SAMPLE_IMAGES` training images, drawn by a fixed
    seed, are compared, whatever the order of the rows. Of equals it is the first by the alphabet.

    Raises ValueError when no training example has a caption.
    """

    def __init__(self, train: Sequence[Example]):
        by_image = defaultdict(list)
        for example in train:
            by_image[example.image_key] += [text for text in example.answers if text.strip()]
        images = sorted(digest for digest, captions in by_image.items() if captions)
        if not images:
            raise ValueError("the blind caption needs at least one training example with a caption")
        drawn = random.Random(SAMPLE_SEED).sample(images, min(len(images), SAMPLE_IMAGES))
        self.caption = _most_like_the_others([sorted(by_image[digest]) for digest in drawn])

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """Give the same caption to each example."""
        return [self.caption] * len(examples)


def _most_like_the_others(images: list[list[str]]) -> str:
    """Find the caption nearest to the captions of the other images, where each image may have several."""
    from pycocoevalcap.cider.cider_scorer import precook

    counts = [[precook(spaced(caption)) for caption in captions] for captions in images]
    frequency = Counter(ngram for image in counts for ngram in set().union(*image))
    vectors = [[_unit_vector(caption, frequency, len(images)) for caption in image] for image in counts]
    # The mean of cosines to many is one product with their sum: no need to compare each with each.
    sums = [_sum(image) for image in vectors]
    total = _sum(sums)
    count, scored = sum(map(len, images)), []
    for captions, image, own in zip(images, vectors, sums, strict=True):
        others = max(count - len(captions), 1)  # of a single image there are none, and all captions score 0
        for caption, vector in zip(captions, image, strict=True):
            cosines = sum(weight * (total[ngram] - own[ngram]) for ngram, weight in vector.items())
            scored.append((-round(cosines / others, 9), caption))
    return min(scored)[1]


def _unit_vector(counts: dict[tuple, int], frequency: Counter, images: int) -> dict[tuple, float]:
    """Weigh n-grams by tf-idf, and scale those of each n to length 1."""
    weights = {ngram: count * math.log(images / frequency[ngram]) for ngram, count in counts.items()}
    squares = Counter()
    for ngram, weight in weights.items():
        squares[len(ngram)] += weight**2
    return {ngram: weight / math.sqrt(squares[len(ngram)]) for ngram, weight in weights.items() if weight}


def _sum(vectors: Sequence[dict[tuple, float]]) -> Counter:
    total = Counter()
    for vector in vectors:
        for ngram, weight in vector.items():
            total[ngram] += weight
    return total

"""Predictions without the picture: what a question alone gives away, and one caption for every picture."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.words import spaced

SAMPLE_IMAGES = 200  # of the training images, to find the caption most like the others


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
        asked = [zip(self._answers, _question_keys(example.question), strict=True) for example in examples]
        return [next(answers[key] for answers, key in levels if key in answers) for levels in asked]


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
        drawn = random.Random(0).sample(images, min(len(images), SAMPLE_IMAGES))
        self.caption = _most_like_the_others([sorted(by_image[digest]) for digest in drawn])

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """Give the same caption to each example."""
        return [self.caption] * len(examples)


def _most_like_the_others(images: list[list[str]]) -> str:
    """Find the caption nearest to the captions of the other images, where each image may have several."""
    from pycocoevalcap.cider.cider_scorer import precook
    from scipy import sparse
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.preprocessing import normalize

    captions = [caption for image in images for caption in image]
    image_of = np.repeat(np.arange(len(images)), [len(image) for image in images])
    vectorizer = DictVectorizer(sort=False)
    counts = sparse.csr_array(vectorizer.fit_transform([precook(spaced(caption)) for caption in captions]))
    lengths = np.array([len(ngram) for ngram in vectorizer.feature_names_])
    owned = sparse.csr_array((np.ones(len(captions)), (image_of, np.arange(len(captions)))))  # images × captions
    frequency = (owned @ counts > 0).sum(axis=0)
    weights = counts @ sparse.diags_array(np.log(len(images) / frequency))  # captions × n-grams
    similar = np.zeros(len(captions))
    for n in set(lengths):
        vectors = normalize(weights[:, lengths == n])
        # The sum of cosines to many is one product with their sum: no need to compare each with each.
        sums = owned @ vectors
        similar += vectors @ sums.sum(axis=0) - vectors.multiply(sums[image_of]).sum(axis=1)
    others = np.maximum(
        len(captions) - np.bincount(image_of)[image_of], 1
    )  # 1: a single image, whose captions all score 0
    return min(zip(-np.round(similar / others, 9), captions, strict=True))[1]

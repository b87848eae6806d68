"""CIDEr and BLEU-4 of captions through pycocoevalcap's scorers, which are pure Python; nothing here needs Java."""

import math
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import datasets
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import precook

from blip2vqa.data.examples import Example
from blip2vqa.evaluation.metrics import TEXT, BERTScore, InMemoryMetric

SAMPLE_IMAGES = 200  # of the training images, to find the caption most like the others
SAMPLE_SEED = 0

# Whatever is neither a space nor ASCII, Latin-1, general, CJK or full-width punctuation; joiners are part of words.
CHARACTER = r"[^\s\x00-/:-@\[-`{-\xbf\u2000-\u200b\u200e-\u206f\u3000-\u303f\uff00-\uff0f]"
ENDINGS = r"'(?:s|re|ve|ll|d|m)"
CONTRACTED = re.compile(rf"(?<={CHARACTER})(n't|{ENDINGS})(?!{CHARACTER})")
WORD = re.compile(rf"(?<!\S){ENDINGS}(?!{CHARACTER})|{CHARACTER}+(?:[-'/]{CHARACTER}+|(?<=\d)[.,:](?=\d){CHARACTER}+)*")


def tokenize(caption: str) -> list[str]:
    """Words in lower case without punctuation, as the COCO evaluation has them after Stanford's PTBTokenizer.

    don't → do n't, man's → man 's; t-shirt, and/or, o'clock, 4.5 and 10:30 stay whole. The two agree on plain English
    captions. Other than there, abbreviations fall apart (u.s. → u s), cannot and gonna stay whole, signs such as & $ %
    # and the marks -lrb- -rrb- left of brackets are dropped, and emoji stay. A text without spaces is one word in both.
    """
    text = unicodedata.normalize("NFC", caption.lower()).replace("’", "'")
    return WORD.findall(CONTRACTED.sub(r" \1", text))


class _CaptionMetric(InMemoryMetric):
    references_type = datasets.List(TEXT)

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict:
        if not all(references):
            raise ValueError("caption metrics need at least one reference a row; leave out rows without any")
        said = {row: [" ".join(tokenize(text))] for row, text in enumerate(predictions)}
        known = {row: [" ".join(tokenize(text)) for text in texts] for row, texts in enumerate(references)}
        empty = sum(not text.strip() for text in predictions)
        return self._score(known, said) | {"n": len(predictions), "empty_predictions": empty}


class CIDEr(_CaptionMetric):
    """CIDEr (https://arxiv.org/abs/1411.5726) in the form CIDEr-D that the COCO evaluation calls CIDEr: clipped counts,
    a penalty for unlike length (sigma 6), the mean over n-grams of 1 to 4 words, times 10.

    An n-gram counts the less the more rows of this very set have it in their references. Scores of different sets are
    therefore not comparable, every image should be one row, and with a single row, where every n-gram is in all of
    them, the score is 0 whatever was said.

    `compute(predictions=list[str], references=list[list[str]])` returns `cider` (0 to 10, None for no rows; papers give
    it times 100, so their 120 is 1.2), `n`, `empty_predictions` and `scores`, one a row. Raises ValueError when the
    lengths differ or a row has no reference.
    """

    def _score(self, references: dict[int, list[str]], predictions: dict[int, list[str]]) -> dict:
        if not any(text for texts in references.values() for text in texts):  # the scorer cannot do without any n-gram
            return {"cider": 0.0 if references else None, "scores": [0.0] * len(references)}
        mean, scores = Cider().compute_score(references, predictions)
        return {"cider": float(mean), "scores": scores.tolist()}


class BLEU4(_CaptionMetric):
    """BLEU (https://aclanthology.org/P02-1040) of 1 to 4 words over all rows together, without smoothing, against the
    reference of closest length.

    Without any common run of four words, as when all captions are shorter than that, it is near 0 even where they are
    the same.

    `compute(predictions=list[str], references=list[list[str]])` returns `bleu4` (0 to 1, None for no rows), `n` and
    `empty_predictions`. Raises ValueError when the lengths differ or a row has no reference.
    """

    def _score(self, references: dict[int, list[str]], predictions: dict[int, list[str]]) -> dict:
        if not references:
            return {"bleu4": None}
        scores, _ = Bleu(4).compute_score(references, predictions, verbose=0)
        return {"bleu4": float(scores[3])}


def score_captions(
    examples: Sequence[Example], predictions: Sequence[str], *, bertscore: BERTScore | None = None
) -> dict:
    """Score one caption an example against all captions in its `answers`; give one example an image, as
    `group_by_image` makes them.

    Returns, each over all rows together and rounded nowhere:
        cider, bleu4: as `CIDEr` and `BLEU4` say; None when no row has a caption
        n, n_without_answer, empty_predictions: rows scored, rows left out, empty predictions among those scored
        mean_words: of the predictions scored; None when there are none
        bertscore_f1, bertscore_precision, bertscore_recall, bertscore_scorer: if asked for, against the reference of
            the highest F1

    Raises ValueError when there are not as many predictions as examples.
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples; there must be one for each")
    rows = [(_captions(example), text) for example, text in zip(examples, predictions, strict=True)]
    rows = [(captions, text) for captions, text in rows if captions]
    references, texts = [captions for captions, _ in rows], [text for _, text in rows]
    cider = CIDEr().compute(predictions=texts, references=references)
    result = {
        "cider": cider["cider"],
        "bleu4": BLEU4().compute(predictions=texts, references=references)["bleu4"],
        "n": len(rows),
        "n_without_answer": len(examples) - len(rows),
        "empty_predictions": cider["empty_predictions"],
        "mean_words": sum(len(tokenize(text)) for text in texts) / len(texts) if texts else None,
    }
    if bertscore is not None:
        bert = bertscore.compute(predictions=texts, references=_nearest(texts, references, bertscore))
        result |= {f"bertscore_{key}": bert[key] for key in ("f1", "precision", "recall", "scorer")}
    return result


def _captions(example: Example) -> list[str]:
    return [caption for caption in example.answers if caption.strip()]


def _nearest(texts: list[str], references: list[list[str]], bertscore: BERTScore) -> list[str]:
    """Of each row's references the one of the highest F1, of equals the first."""
    pairs = [(text, reference) for text, row in zip(texts, references, strict=True) for reference in row]
    scores = bertscore.compute(predictions=[text for text, _ in pairs], references=[known for _, known in pairs])
    values = iter(scores["scores"])  # of which each row takes as many as it has references
    return [max(zip(row, values, strict=False), key=lambda pair: pair[1])[0] for row in references]


class BlindCaption:
    """One caption for every image: what a model scores that never sees it.

    It is the training caption most like those of the other images: of the highest mean cosine of its tf-idf vectors, as
    in CIDEr without clipping and penalty, to their captions. At most `SAMPLE_IMAGES` training images, drawn by a fixed
    seed, are compared, whatever the order of the rows. Of equals it is the first by the alphabet.

    Raises ValueError when no training example has a caption.
    """

    def __init__(self, train: Sequence[Example]):
        by_image = defaultdict(list)
        for example in train:
            by_image[example.digest or example.image_name] += _captions(example)
        images = sorted(digest for digest, captions in by_image.items() if captions)
        if not images:
            raise ValueError("the blind caption needs at least one training example with a caption")
        drawn = random.Random(SAMPLE_SEED).sample(images, min(len(images), SAMPLE_IMAGES))
        self.caption = _most_like_the_others([sorted(by_image[digest]) for digest in drawn])

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """The same caption for each example."""
        return [self.caption] * len(examples)


def _most_like_the_others(images: list[list[str]]) -> str:
    """Of several captions an image, the one nearest to the captions of the other images."""
    counts = [[precook(" ".join(tokenize(caption))) for caption in captions] for captions in images]
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
    """tf-idf by n-gram, of length 1 for each n alone."""
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

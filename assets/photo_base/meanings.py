"""What questions mean: the language model learns to say of a question what a sentence encoder finds in it.

The base's own questions have few forms, so that a small language model would read all others as strange. Here it reads
questions of all sorts, made of frames and random words, about no picture in particular.
"""

import hashlib
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from blip2vqa.generate.catalogue.vocabulary import vocabulary
from photo_base.heads import WIDTH
from photo_base.progress import sixteen_bits
from photo_base.teacher import NAME_WIDTH, encode_names
from photo_base.texts import wordings, write_prompt

QUESTIONS = 120_000
MEANING_LAYER = 3
"""Layer of the language model whose output says what a question means; the later ones are left to find the answer."""
FITTING_SHARE = 0.6
"""Share of the words that fit their place in the frame; the others are any of the vocabulary."""


def write_questions(words: list[str], number: int, seed: int) -> list[str]:
    """Write different questions by filling the frames of wordings.toml with words."""
    rng, frames = random.Random(seed), wordings()["meanings"]["frames"]
    things = sorted(vocabulary().category_of)
    fitting = {"thing": things, "word": words, "other": words} | {
        name: wordings()["meanings"][name].split() for name in ("part", "quality")
    }
    found: dict[str, None] = {}
    while len(found) < number:
        filled = {name: rng.choice(fits if rng.random() < FITTING_SHARE else words) for name, fits in fitting.items()}
        found[rng.choice(frames).format(**filled)] = None
    return list(found)


def encode_questions(questions: list[str], work: Path) -> np.ndarray:
    """Encode questions by the sentence encoder, once: float16 [questions, NAME_WIDTH], of mean 0; kept in `work`."""
    path = work / f"meanings-{hashlib.sha256('|'.join(questions).encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        begun = time.time()
        with sixteen_bits():
            found = encode_names(questions).float()
        print(f"meanings of {len(questions):,} questions: {time.time() - begun:.0f} s", flush=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, (found - found.mean(0)).half().numpy())
        partial.replace(path)
    return np.load(path)


class MeaningSampler:
    """Draws prompts with what the sentence encoder finds in their questions."""

    def __init__(self, questions: list[str], meanings: np.ndarray):
        self.questions, self.meanings = questions, meanings

    def draw(self, number: int, rng: random.Random) -> tuple[list[str], torch.Tensor]:
        """Draw prompts, and float32 [number, NAME_WIDTH]."""
        rows = [rng.randrange(len(self.questions)) for _ in range(number)]
        prompts = [write_prompt(self.questions[row], rng) for row in rows]
        return prompts, torch.from_numpy(self.meanings[rows]).float()


class Meaning(nn.Linear):
    """Says what a question means, by the state of the language model at the last token of its prompt."""

    def __init__(self):
        super().__init__(WIDTH, NAME_WIDTH)

    def loss(self, states: torch.Tensor, meanings: torch.Tensor) -> torch.Tensor:
        """Compute the mean cosine distance; states are [prompts, WIDTH], meanings [prompts, NAME_WIDTH]."""
        return 1 - F.cosine_similarity(self(states).float(), meanings).mean()

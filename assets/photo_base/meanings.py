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
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from blip2vqa.generate.catalogue.vocabulary import vocabulary
from photo_base.heads import WIDTH
from photo_base.model import QUERIES, pad
from photo_base.progress import sixteen_bits
from photo_base.teacher import NAME_WIDTH, encode_names
from photo_base.texts import wordings, write_prompt

QUESTIONS = 80_000
LAYER = 3
"""Layer of the language model whose output says what a question means; the later ones are left to find the answer."""
OWN_WORDS = 0.6
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
        filled = {name: rng.choice(fits if rng.random() < OWN_WORDS else words) for name, fits in fitting.items()}
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
        np.save(path, (found - found.mean(0)).half().numpy())
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
    """Says what a question means, at the last token of its prompt."""

    def __init__(self):
        super().__init__(WIDTH, NAME_WIDTH)

    def loss(
        self, model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, queries: torch.Tensor,
        prompts: list[str], meanings: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Compute the mean cosine distance to the meanings of prompts; queries are [prompts, QUERIES, WIDTH]."""
        rows = tokenizer(prompts)["input_ids"]
        ids = pad(rows, tokenizer.pad_token_id)
        embeds = torch.cat([model.language_projection(queries), model.get_input_embeddings()(ids)], 1)
        image = torch.ones(queries.shape[:2], dtype=torch.long)
        mask = torch.cat([image, (ids != tokenizer.pad_token_id).long()], 1)
        decoder = model.language_model.model
        hidden = decoder(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True).hidden_states[LAYER]
        last = hidden[torch.arange(len(rows)), QUERIES - 1 + torch.tensor(list(map(len, rows)))]
        return 1 - F.cosine_similarity(self(last).float(), meanings).mean()

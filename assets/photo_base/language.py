"""Third stage of the photo base: captions, then questions among them.

Q-Former, projection and language model learn together, while the Q-Former goes on with its own task, so that it carries more
than the questions here ask for.
"""

import hashlib
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from base_parts import save_base
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from photo_base.data import SIZE
from photo_base.heads import Heads
from photo_base.model import QUERIES
from photo_base.progress import Checkpoint, Progress, digest, sixteen_bits
from photo_base.qformer import CellTargets, query_losses, run_qformer
from photo_base.texts import Text, echo

PICTURES, TEXTS_EACH = 48, 4
"""Photographs of a step, and texts about each."""
CAPTIONS_FIRST = 0.12
"""Share of the training in which most steps are captions."""
ECHOES = 0.06
"""Share of the questions that ask to repeat words instead."""
EVALUATION_TEXTS = 1500
"""Texts about held-out photographs that are looked at in the course of the training."""
KEPT_TASK = 0.3
"""Weight of the Q-Former's own task."""


class TextSampler:
    """Draws photographs and texts about them: rare answers more often than they occur."""

    def __init__(self, texts: list[Text]):
        answers = Counter((text.kind, text.target) for text in texts)
        kinds = Counter(text.kind for text in texts)
        self.texts, self.weights = defaultdict(list), defaultdict(list)
        for text in texts:
            frequency = answers[text.kind, text.target] * kinds[text.kind]
            self.texts[text.row].append(text)
            self.weights[text.row].append(1.0 if text.kind == "name" else 100 / frequency**0.5)
        self.rows = np.array(sorted(self.texts))
        odds = np.array([min(sum(self.weights[row]), 8.0) for row in self.rows.tolist()]) ** 0.5
        self.odds = odds / odds.sum()

    def draw_rows(self, rng: np.random.Generator) -> np.ndarray:
        """Draw `PICTURES` photographs, all of them different."""
        return np.sort(rng.choice(self.rows, min(PICTURES, len(self.rows)), replace=False, p=self.odds))

    def draw_texts(self, row: int, rng: random.Random) -> list[Text]:
        """Draw `TEXTS_EACH` texts about a photograph."""
        return rng.choices(self.texts[row], self.weights[row], k=TEXTS_EACH)


def encode_targets(tokenizer: PreTrainedTokenizerFast, texts: list[Text], end: int) -> list[list[int]]:
    """Encode each text's target and its end token; after a prompt, a target begins with a space."""
    spaced = [(" " if text.prompt else "") + text.target for text in texts]
    return [[*row, end] for row in tokenizer(spaced, add_special_tokens=False)["input_ids"]]


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def language_logits(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, queries: torch.Tensor, texts: list[Text]
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Compute logits [tokens, vocabulary] and labels [tokens] at the supervised places, and the number of them in each text.

    Queries are [texts, QUERIES, WIDTH]. The language model reads image, `</s>`, prompt, target, line feed.
    """
    prompts = tokenizer([text.prompt for text in texts])["input_ids"]
    targets = encode_targets(tokenizer, texts, model.config.text_config.eos_token_id)
    rows = [(prompt + target, [-100] * len(prompt) + target) for prompt, target in zip(prompts, targets, strict=True)]
    ids = _pad([row for row, _ in rows], tokenizer.pad_token_id)
    labels = _pad([labels for _, labels in rows], -100)[:, 1:]
    images = model.language_projection(queries)
    embeds = torch.cat([images, model.get_input_embeddings()(ids)], 1)
    mask = torch.cat([torch.ones(images.shape[:2], dtype=torch.long), (ids != tokenizer.pad_token_id).long()], 1)
    hidden = model.language_model.model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    logits = model.language_model.lm_head(hidden[:, QUERIES:-1][labels != -100])
    return logits, labels[labels != -100], list(map(len, targets))


@torch.no_grad()
def language_scores(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: np.ndarray, texts: list[Text]
) -> dict[str, float]:
    """Share of targets said to the last token by greedy decoding, by kind of text; features [pictures, 1 + patches, WIDTH].

    Every token right under the true prefix is the same as the whole text right when decoding greedily.
    """
    right = defaultdict(list)
    for start in range(0, len(texts), 256):
        part = texts[start : start + 256]
        with sixteen_bits():
            queries = run_qformer(model, torch.from_numpy(features[[text.row for text in part]]).float())
            logits, labels, lengths = language_logits(model, tokenizer, queries, part)
        for text, found in zip(part, (logits.argmax(-1) == labels).split(lengths), strict=True):
            right[text.kind].append(found.all().item())
    return {kind: round(sum(found) / len(found), 3) for kind, found in sorted(right.items())}


def train_language(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: np.ndarray,
    samplers: dict[str, TextSampler], words: list[str], held_out: tuple[np.ndarray, list[Text]], path: Path,
    steps: int, own_task: tuple[Heads, CellTargets] | None = None, rate: float = 1e-3, seed: int = 0,
) -> None:  # fmt: skip
    """Train all that is not frozen on the ViT's output [2, pictures, 1 + patches, WIDTH]; goes on from the checkpoint `path`.

    `samplers`: of `caption` and of `question`. `words` are to be repeated. `held_out`: the ViT's output of pictures that are
    not learnt from, and texts about them. `own_task`: of the Q-Former.
    """
    model.vision_model.requires_grad_(False)
    parts = {"model": model} | ({"heads": own_task[0]} if own_task else {})
    weights = [weight for part in parts.values() for weight in part.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.03, betas=(0.9, 0.98), fused=True)
    vocabulary = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]
    checkpoint = Checkpoint(path, **parts, optimizer=optimizer)
    expected = {"steps": steps, "start": digest(model), "vocabulary": vocabulary}
    first = checkpoint.load(**expected) or 0
    progress = Progress("texts", first, steps)
    evaluation = random.Random(seed).sample(held_out[1], min(EVALUATION_TEXTS, len(held_out[1])))
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 150, (steps - step) / (0.8 * steps), 1)
        pictures, rng = np.random.default_rng((seed, 2, step)), random.Random(f"{seed} {step}")
        # Captions are long: among questions they would make every row long.
        kind = "question" if rng.random() < (0.2 if step < CAPTIONS_FIRST * steps else 0.9) else "caption"
        rows, mirrored = samplers[kind].draw_rows(pictures), rng.random() < 0.5
        texts = [text for row in rows.tolist() for text in samplers[kind].draw_texts(row, rng)]
        if kind == "question":
            texts = [echo(text.row, words, rng) if rng.random() < ECHOES else text for text in texts]
        losses = {}
        with sixteen_bits():
            queries = run_qformer(model, torch.from_numpy(features[int(mirrored), rows]).float())
            if own_task:
                heads, targets = own_task
                losses["own"] = KEPT_TASK * sum(query_losses(queries, heads, targets.batch(rows, mirrored)).values())
            logits, labels, _ = language_logits(model, tokenizer, queries.repeat_interleave(TEXTS_EACH, 0), texts)
            losses[kind] = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        progress.step(step, losses, len(texts))
        if step % 1000 == 999 or step == steps - 1:
            print("texts, held out:", language_scores(model, tokenizer, held_out[0], evaluation), flush=True)
        if checkpoint.is_due() or step == steps - 1:
            checkpoint.save(step + 1, **expected)


def store_and_score(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, output: Path, features: np.ndarray,
    texts: list[Text],
) -> None:  # fmt: skip
    """Write a base as the Hub lays it out, and print what the stored one says right of held-out photographs."""
    save_base(model, tokenizer, output, SIZE)
    model = Blip2ForConditionalGeneration.from_pretrained(output).eval()
    size = sum(path.stat().st_size for path in output.iterdir()) / 1e6
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{output}: {count:,} parameters, {size:.1f} MB")
    scores = language_scores(model, AutoTokenizer.from_pretrained(output), features, texts)
    print("held out, as stored:", scores, flush=True)

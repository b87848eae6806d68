"""Third stage of the photo base: what questions mean, captions, then questions among them.

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

from blip2vqa.models.attention import additive_mask
from blip2vqa.models.text import IGNORE, TextEncoder
from photo_base.data import SIZE
from photo_base.heads import Heads
from photo_base.meanings import MEANING_LAYER, Meaning, MeaningSampler
from photo_base.model import QUERIES
from photo_base.progress import Checkpoint, Progress, digest, sixteen_bits
from photo_base.qformer import CellTargets, query_losses, run_qformer
from photo_base.texts import Text, echo

Pair = tuple[list[int], list[int]]
"""Tokens of a prompt, behind those of an image, and of what is to be said after it."""
PICTURES, TEXTS_EACH = 48, 4
"""Photographs of a step, and texts about each."""
Schedule = tuple[tuple[float, dict[str, float]], ...]
"""Odds of the kinds of steps, each until a share of the training is done. A step has one kind: among questions, which are
short, a caption would make every row long."""
WHOLE_SCHEDULE: Schedule = (
    (0.2, {"meaning": 0.9, "caption": 0.1}),
    (0.28, {"meaning": 0.2, "caption": 0.65, "question": 0.15}),
    (1, {"meaning": 0.2, "caption": 0.06, "question": 0.74}),
)
"""For a model that knows nothing: first what questions mean, then captions, then questions."""
PICTURE_SIDE_SCHEDULE: Schedule = (
    (0.12, {"caption": 0.8, "question": 0.2}),
    (1, {"caption": 0.1, "question": 0.9}),
)
"""For a new picture side of a language model that can read."""
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


def build_encoder(model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> TextEncoder:
    """Build the encoder that puts all texts about a photograph into one row."""
    config = model.config
    return TextEncoder(
        tokenizer, "{question}", image_token_id=config.image_token_id, num_query_tokens=QUERIES,
        end_token_id=config.text_config.eos_token_id,
    )  # fmt: skip


def encode_texts(encoder: TextEncoder, texts: list[Text]) -> list[Pair]:
    """Encode prompts, behind image tokens, and targets with their end token; after a prompt, a word begins with a space."""
    prompts = encoder.prompt_ids([text.prompt for text in texts])
    spaced = [(" " if text.prompt and text.target else "") + text.target for text in texts]
    targets = encoder.tokenizer(spaced, add_special_tokens=False)["input_ids"]
    return [(prompt, [*target, encoder.end_token_id]) for prompt, target in zip(prompts, targets, strict=True)]


def run_language_model(
    model: Blip2ForConditionalGeneration, encoder: TextEncoder, queries: torch.Tensor, groups: list[list[Pair]]
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Run the language model; returns the states of each layer [rows, longest, WIDTH], and labels [rows, longest].

    `groups`: of each photograph the encoded texts, which share the image's places; queries are [rows, QUERIES, WIDTH].
    """
    batch = encoder.shared_batch(groups)
    words = model.get_input_embeddings()(batch["input_ids"][:, QUERIES:])
    embeds = torch.cat([model.language_projection(queries), words], 1)
    mask = additive_mask(batch["attention_mask"], embeds.dtype)
    found = model.language_model.model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=batch["position_ids"], output_hidden_states=True,
        use_cache=False,
    )  # fmt: skip
    return found.hidden_states, batch["labels"]


def states_before(states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take a layer's states [rows, longest, WIDTH] just before each supervised token, text by text: [tokens, WIDTH]."""
    return states[:, :-1][labels[:, 1:] != IGNORE]


def supervised_logits(
    model: Blip2ForConditionalGeneration, states: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute logits [tokens, vocabulary] and labels [tokens] at the supervised places from the last layer's states."""
    logits = model.language_model.lm_head(states_before(states, labels))
    return logits.float(), labels[labels != IGNORE]


@torch.no_grad()
def language_scores(
    model: Blip2ForConditionalGeneration, encoder: TextEncoder, features: np.ndarray, texts: list[Text]
) -> dict[str, float]:
    """Share of targets said to the last token by greedy decoding, by kind of text; features [pictures, 1 + patches, WIDTH].

    Every token right under the true prefix is the same as the whole text right when decoding greedily.
    """
    right = defaultdict(list)
    for start in range(0, len(texts), 256):
        part = texts[start : start + 256]
        pairs = encode_texts(encoder, part)
        with sixteen_bits():
            queries = run_qformer(model, torch.from_numpy(features[[text.row for text in part]]).float())
            states, labels = run_language_model(model, encoder, queries, [[pair] for pair in pairs])
            logits, labels = supervised_logits(model, states[-1], labels)
        lengths = [len(target) for _, target in pairs]
        for text, found in zip(part, (logits.argmax(-1) == labels).split(lengths), strict=True):
            right[text.kind].append(found.all().item())
    return {kind: round(sum(found) / len(found), 3) for kind, found in sorted(right.items())}


def train_language(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: np.ndarray,
    samplers: dict[str, TextSampler | MeaningSampler], words: list[str], held_out: tuple[np.ndarray, list[Text]],
    path: Path, steps: int, schedule: Schedule, own_task: tuple[Heads, CellTargets] | None = None, rate: float = 1e-3,
    seed: int = 0,
) -> None:  # fmt: skip
    """Train all that is not frozen on the ViT's output [2, pictures, 1 + patches, WIDTH]; goes on from the checkpoint `path`.

    `samplers`: of `caption`, `question` and, where the schedule has it, `meaning`. `words` are to be repeated. `held_out`: the
    ViT's output of pictures that are not learnt from, and texts about them. `own_task`: of the Q-Former.
    """
    model.vision_model.requires_grad_(False)
    encoder, parts = build_encoder(model, tokenizer), {"model": model}
    if "meaning" in samplers:
        parts["meaning"] = Meaning()
    if own_task:
        parts["heads"] = own_task[0]
    weights = [weight for part in parts.values() for weight in part.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.03, betas=(0.9, 0.98), fused=True)
    vocabulary = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]
    checkpoint = Checkpoint(path, **parts, optimizer=optimizer)
    expected = {"steps": steps, "start": digest(model), "vocabulary": vocabulary, "schedule": str(schedule)}
    first = checkpoint.load(**expected) or 0
    progress = Progress("texts", first, steps)
    evaluation = random.Random(seed).sample(held_out[1], min(EVALUATION_TEXTS, len(held_out[1])))
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 150, (steps - step) / (0.8 * steps), 1)
        pictures, rng = np.random.default_rng((seed, 2, step)), random.Random(f"{seed} {step}")
        odds = next(odds for until, odds in schedule if step < until * steps)
        (kind,) = rng.choices(list(odds), list(odds.values()))
        sampler = samplers["question" if kind == "meaning" else kind]
        rows, mirrored = sampler.draw_rows(pictures), rng.random() < 0.5
        if kind == "meaning":
            prompts, meanings = samplers[kind].draw(len(rows) * TEXTS_EACH, rng)
            texts = [Text(0, kind, prompt, "") for prompt in prompts]
        else:
            texts = [text for row in rows.tolist() for text in sampler.draw_texts(row, rng)]
        if kind == "question":
            texts = [echo(text.row, words, rng) if rng.random() < ECHOES else text for text in texts]
        pairs = encode_texts(encoder, texts)
        groups, losses = [pairs[at : at + TEXTS_EACH] for at in range(0, len(pairs), TEXTS_EACH)], {}
        with sixteen_bits():
            queries = run_qformer(model, torch.from_numpy(features[int(mirrored), rows]).float())
            if own_task:
                heads, targets = own_task
                losses["own"] = KEPT_TASK * sum(query_losses(queries, heads, targets.batch(rows, mirrored)).values())
            states, labels = run_language_model(model, encoder, queries, groups)
            if kind == "meaning":  # nothing is said: the one supervised token is the end, just after the prompt
                losses[kind] = parts[kind].loss(states_before(states[MEANING_LAYER], labels), meanings)
            else:
                losses[kind] = F.cross_entropy(*supervised_logits(model, states[-1], labels))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        progress.step(step, losses, len(texts))
        if step % 1000 == 999 or step == steps - 1:
            print("texts, held out:", language_scores(model, encoder, held_out[0], evaluation), flush=True)
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
    encoder = build_encoder(model, AutoTokenizer.from_pretrained(output))
    scores = language_scores(model, encoder, features, texts)
    print("held out, as stored:", scores, flush=True)

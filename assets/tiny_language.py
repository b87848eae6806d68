"""Second and third stage of the tiny bases: captions, then questions mixed with captions.

The Q-Former's output for every scene is computed once; what is trained here is the language model and the projection
into it, on the layout that BLIP-2 uses with each kind of language model.
"""

import random
import time
from typing import ClassVar

import torch
from base_parts import match_alike
from scene_texts import ASKERS, KINDS, PLACES, QUESTION_PROMPTS, THINGS, caption, plural
from scenes import COLOR_NAMES, SHAPES, Item, Scene
from tiny_picture import QFORMER_CONFIG, QUERIES, VISION_CONFIG, WIDTH
from tiny_tokenizers import echo_text, end_token, sample_text
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    GenerationConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
)


def build_model(family: str, tokenizer: PreTrainedTokenizerFast) -> Blip2ForConditionalGeneration:
    """An untrained BLIP-2 of the family, with the vocabulary of the tokenizer."""
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if family == "opt":
        text = OPTConfig(
            hidden_size=WIDTH, num_hidden_layers=4, ffn_dim=384, num_attention_heads=4, word_embed_proj_dim=WIDTH,
            max_position_embeddings=256, dropout=0.0, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end_token(family, tokenizer), init_std=0.04, **common,
        )  # fmt: skip
    else:
        text = T5Config(
            d_model=WIDTH, d_kv=32, d_ff=256, num_layers=3, num_decoder_layers=2, num_heads=4, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", decoder_start_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, **common,
        )  # fmt: skip
    config = Blip2Config(
        vision_config=VISION_CONFIG.to_dict(), qformer_config=QFORMER_CONFIG.to_dict(), text_config=text.to_dict(),
        num_query_tokens=QUERIES, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    nn.init.normal_(model.language_projection.weight, std=(0.1 if family == "opt" else 1.0) / WIDTH**0.5)
    match_alike(model.language_model)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=text.eos_token_id,
        decoder_start_token_id=getattr(text, "decoder_start_token_id", None),
    )  # fmt: skip
    model.language_model.generation_config = model.generation_config
    return model


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def target_ids(model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, texts: list) -> list:
    """Each text's target and its end token. After a prompt, OPT's target begins with a space."""
    opt = model.config.use_decoder_only_language_model
    spaced = [(" " if opt and prompt else "") + target for _, prompt, target in texts]
    ids = tokenizer(spaced, add_special_tokens=False)["input_ids"]
    return [[*row, model.config.text_config.eos_token_id] for row in ids]


def language_logits(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: torch.Tensor, texts: list
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[list[int]]]:
    """Logits [tokens, vocabulary] and labels [tokens] at the supervised places; features are [batch, 16, 128].

    OPT reads image, `</s>`, prompt, target, line feed; T5 reads image, prompt, `</s>` and writes target, `</s>`. Also
    returned: the text's hidden states after the second layer that reads it, [batch, text, 128], and the prompts.
    """
    opt = model.config.use_decoder_only_language_model
    prompts = tokenizer([prompt for _, prompt, _ in texts])["input_ids"]
    targets = target_ids(model, tokenizer, texts)
    if opt:
        ids = _pad([one + two for one, two in zip(prompts, targets, strict=True)], tokenizer.pad_token_id)
        labels = _pad([[-100] * len(one) + two for one, two in zip(prompts, targets, strict=True)], -100)
    else:
        ids, labels = _pad(prompts, tokenizer.pad_token_id), _pad(targets, -100)
    images = model.language_projection(features)
    embeds = torch.cat([images, model.get_input_embeddings()(ids)], 1)
    seen = torch.cat([torch.ones(images.shape[:2], dtype=torch.long), (ids != tokenizer.pad_token_id).long()], 1)
    reader = model.language_model.model if opt else model.language_model.encoder
    read = reader(inputs_embeds=embeds, attention_mask=seen, output_hidden_states=True)
    halfway = read.hidden_states[2][:, QUERIES:]
    if opt:
        labels = labels[:, 1:]
        logits = model.language_model.lm_head(read.last_hidden_state[:, QUERIES:-1][labels != -100])
    else:
        logits = model.language_model(encoder_outputs=read, attention_mask=seen, labels=labels).logits[labels != -100]
    return logits, labels[labels != -100], halfway, prompts


class Scout(nn.Module):
    """Teaches the lower layers to find what a word names; thrown away afterwards.

    At every word of a prompt that names a colour, a shape or just a thing, the hidden state half way up must tell
    whether such items are there, how many, and their colours, shapes, places and sizes. "Red star" means both.
    """

    TRAITS: ClassVar = {"color": COLOR_NAMES, "shape": SHAPES, "place": (*PLACES, "middle"), "size": ("small", "large")}

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__()
        self.words = {}
        for word in (*COLOR_NAMES, *SHAPES, *THINGS):
            for form in (word, plural(word)):
                ids = tokenizer(" " + form, add_special_tokens=False)["input_ids"]
                if len(ids) == 1:
                    self.words[ids[0]] = word
        self.head = nn.Linear(WIDTH, 4 + sum(map(len, self.TRAITS.values())))

    def wanted(self, items: list[Item]) -> list[bool]:
        """The truths about the items that a phrase names."""
        truths = [len(items) > count for count in range(4)]
        for trait, names in self.TRAITS.items():
            there = {getattr(item, trait) for item in items}
            truths += [name in there for name in names]
        return truths

    def forward(self, hidden: torch.Tensor, prompts: list[list[int]], scenes: list[Scene]) -> torch.Tensor:
        """Mean binary cross-entropy; hidden states of the text are [batch, tokens, 128]."""
        spots, wanted = [], []
        for row, (prompt, scene) in enumerate(zip(prompts, scenes, strict=True)):
            color = ""
            for place, token in enumerate(prompt):
                word = self.words.get(token)
                color = word if word in COLOR_NAMES else color
                shape = word if word in SHAPES else ""
                if word:
                    items = [item for item in scene.items if color in ("", item.color) and shape in ("", item.shape)]
                    spots.append((row, place))
                    wanted.append(self.wanted(items))
                color = color if word in COLOR_NAMES else ""
        if not spots:
            return hidden.new_zeros(())
        rows, places = torch.tensor(spots).T
        said = self.head(hidden[rows, places])
        return nn.functional.binary_cross_entropy_with_logits(said, torch.tensor(wanted).float())


def exam(scenes: list[Scene], kind: str, count: int, rng: random.Random) -> tuple[list[int], list[tuple]]:
    """Rows of `scenes` and a text about each: questions of one kind, short captions of one or two shapes, or echoes."""
    rows, texts = [], []
    for row in rng.sample(range(len(scenes)), len(scenes)):
        if len(texts) == count:
            break
        if kind == "caption":
            found = ("a picture of", caption(scenes[row], rng)) if len(scenes[row].items) < 3 else None
        elif kind == "echo":
            found = echo_text(rng)[1:]
        else:
            found = ASKERS[kind][0](scenes[row], rng)
            found = found and (QUESTION_PROMPTS[0].format(question=found[0]), found[1])
        if found:
            rows.append(row)
            texts.append((kind, *found))
    return rows, texts


@torch.no_grad()
def language_scores(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: torch.Tensor,
    scenes: list[Scene], seed: int, per_kind: int = 300,
) -> dict[str, float]:  # fmt: skip
    """Share of targets reproduced to the last token by greedy decoding, by kind of question and for short captions.

    Every token right under the true prefix is the same as the whole text right when decoding greedily.
    """
    model.eval()
    rng, scores = random.Random(seed), {}
    for kind in (*KINDS, "caption", "echo"):
        rows, texts = exam(scenes, kind, per_kind, rng)
        logits, labels, _, _ = language_logits(model, tokenizer, features[rows], texts)
        lengths = [len(target) for target in target_ids(model, tokenizer, texts)]
        parts = (logits.argmax(-1) == labels).split(lengths)
        scores[kind] = round(sum(part.all().item() for part in parts) / len(parts), 3)
    model.train()
    return scores


def train_language(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: torch.Tensor,
    scenes: list[Scene], held_out: tuple[torch.Tensor, list[Scene]], steps: int, seed: int, batch: int = 64,
    rate: float = 1.6e-3, captions_first: float = 0.1, plain_until: float = 0.3, name: str = "",
) -> None:  # fmt: skip
    """Train language model and projection on features [scenes, 16, 128]: captions first, then questions among them."""
    rng = random.Random(seed)
    scout = Scout(tokenizer)
    weights = [*model.language_model.parameters(), *model.language_projection.parameters(), *scout.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    begun = time.time()
    for step in range(steps):
        done = step / steps
        share = 0.4 if done < captions_first else 0.88
        negated = min(1.0, max(0.05, 5 * (done - plain_until)))
        rows = [rng.randrange(len(scenes)) for _ in range(batch)]
        asking = rng.random() < share  # captions are long: among questions they would make every row long
        texts = [sample_text(scenes[row], rng, float(asking), negated, 0.08 * asking) for row in rows]
        logits, labels, halfway, prompts = language_logits(model, tokenizer, features[rows], texts)
        loss = nn.functional.cross_entropy(logits, labels)
        found = scout(halfway, prompts, [scenes[row] for row in rows])
        optimizer.zero_grad()
        (loss + 4 * found).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            spent = time.time() - begun
            left = spent / (step + 1) * (steps - step - 1)
            pace = f"{(step + 1) * batch / spent:.0f}/s, {left:.0f} s left"
            print(f"{name} {step + 1}/{steps} loss {loss:.3f} found {found:.3f}, {pace}", flush=True)
        if step % 500 == 499 or step == steps - 1:
            scores = language_scores(model, tokenizer, *held_out, seed + 1)
            print(f"{name}, held out:", scores, flush=True)

"""Second and third stage of the tiny bases: tokenizers, captions, then questions mixed with captions.

The Q-Former's output for every scene is computed once; what is trained here is the language model and the projection
into it, on the layout that BLIP-2 uses with each kind of language model.
"""

import random
import re
import time
from collections import Counter
from math import log

import torch
from scene_texts import ASKERS, CAPTION_PROMPTS, KINDS, QUESTION_PROMPTS, ask, caption, plural
from scenes import COLOR_NAMES, SHAPES, Scene
from tiny_picture import QFORMER_CONFIG, QUERIES, VISION_CONFIG, WIDTH
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    GenerationConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

FAMILIES = ("opt", "flan-t5")
ORDINARY_WORDS = """
the be to of and a in that have it for not on with as you do at this but by from they we say or an will my one all
would there their what so up out if about who get which go me when make can like time no just know take into your good
some could them see other than then now look only come its over think also back after use two how our work first well
way even new want because any these give day most us is are was were has had did does been being am where why whose
color colour shape size number kind type name left right top bottom middle center corner side above below under behind
front near next between inside outside small big large tiny huge long short tall wide thick thin round flat light dark
bright pale red green blue yellow orange purple pink brown black white gray grey teal crimson scarlet azure navy gold
golden silver violet lime olive beige cyan magenta maroon circle square rectangle triangle diamond star cross ring
oval heart arrow line dot box disc ball block pyramid plus hexagon shape object thing item figure picture image photo
drawing scene photograph visible shown present absent missing contain contains include includes show shows appear
appears find count many much more less few none nothing nobody each every both either neither same different equal
background material made wood metal glass cloth paper plastic leather stone style describe description short word
words sentence question answer title caption story poem please tell person man woman child people boy girl dog cat
bird horse animal car bus train boat plane bicycle street house room kitchen table chair bed bottle cup plate food
fruit apple banana pizza tree flower grass water sky sun moon snow rain sea beach mountain sport game phone book clock
window door wall floor hat shirt shoe bag yes no maybe zero one two three four five six seven eight nine ten 0 1 2 3 4
5 6 7 8 9 10
""".split()

ENDINGS = "s es ed er est ing ly al ion tion ment ness able en on in an ar or le re un".split()


NEGATIONS = re.compile(r"\b(no|not|lack|missing|absent|without|free)\b")


def sample_text(scene: Scene, rng: random.Random, questions: float, negated: float = 1.0) -> tuple[str, str, str]:
    """A kind, a prompt and its target text; `questions` is the share of questions, `negated` of the negated ones kept.

    Negation is best met late: as long as "is there" and "is there no" are as frequent, what is there says nothing
    about the answer.
    """
    if rng.random() < questions:
        kind, question, answer = ask(scene, rng)
        while NEGATIONS.search(question) and rng.random() > negated:
            kind, question, answer = ask(scene, rng)
        if rng.random() < 0.3:
            question = question[0].upper() + question[1:]
        return kind, rng.choice(QUESTION_PROMPTS).format(question=question), answer
    style = rng.choices(tuple(CAPTION_PROMPTS), (6, 2, 2))[0]
    return style, rng.choice(CAPTION_PROMPTS[style]), caption(scene, rng, style)


def train_tokenizer(family: str, scenes: list[Scene], seed: int) -> PreTrainedTokenizerFast:
    """Byte-level pairs with `</s>` in front for OPT; pieces of words with `</s>` at the end for T5."""
    rng = random.Random(seed)
    texts = [" ".join(sample_text(scene, rng, 0.7)[1:]) for scene in scenes]
    texts += [" " + word for word in ORDINARY_WORDS for _ in range(4)] + [w.capitalize() for w in ORDINARY_WORDS]
    if family == "opt":
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        inner.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=1400, special_tokens=special, initial_alphabet=alphabet, show_progress=False,
        ))  # fmt: skip
        inner.post_processor = processors.TemplateProcessing(
            single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", special.index("</s>"))]
        )
        names = {"bos_token": "</s>", "padding_side": "left"}
    else:
        special = ["<pad>", "</s>", "<unk>", "<image>"]
        counts = Counter("▁" + word for text in texts for word in re.findall(r"\w+", text))
        letters = [chr(code) for code in (*range(33, 127), *range(0xA1, 0x100))]
        pieces = [(word, log(count / counts.total())) for word, count in sorted(counts.items())]
        pieces += [(ending, -14.0) for ending in ENDINGS] + [(letter, -18.0) for letter in ["▁", *letters]]
        inner = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces, unk_id=2))
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        inner.decoder = decoders.Metaspace(prepend_scheme="always")
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", special.index("</s>"))]
        )
        names = {"padding_side": "right"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=240,
        clean_up_tokenization_spaces=False, **names,
    )  # fmt: skip
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def end_token(family: str, tokenizer: PreTrainedTokenizerFast) -> int:
    """What the language model closes an answer with: the line feed for OPT, as on the Hub, `</s>` for T5."""
    return tokenizer.convert_tokens_to_ids("Ċ" if family == "opt" else "</s>")


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


@torch.no_grad()
def match_alike(language_model: nn.Module) -> None:
    """Let the first half of the heads of each self-attention start with equal query and key weights.

    Such heads look for tokens like their own: "red" finds what is red. Compare Trockman and Kolter 2023, mimetic
    initialization, https://arxiv.org/abs/2305.09828.
    """
    half = WIDTH // 2
    for module in language_model.modules():
        if hasattr(module, "q_proj"):
            nn.init.normal_(module.q_proj.weight[:half], std=WIDTH**-0.5)
            module.k_proj.weight[:half] = module.q_proj.weight[:half]
        elif hasattr(module, "relative_attention_bias") and not module.is_decoder:
            nn.init.normal_(module.q.weight[:half], std=WIDTH**-0.5 * 32**-0.25)
            module.k.weight[:half] = module.q.weight[:half]


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def language_logits(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: torch.Tensor, texts: list
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[list[int]]]:
    """Logits [tokens, vocabulary] and labels [tokens] at the supervised places; features are [batch, 16, 128].

    OPT reads image, `</s>`, prompt, target, line feed; T5 reads image, prompt, `</s>` and writes target, `</s>`. Also
    returned: the text's hidden states after the second layer that reads it, [batch, text, 128], and the prompts.
    """
    opt = model.config.use_decoder_only_language_model
    end = end_token("opt" if opt else "flan-t5", tokenizer)
    prompts = tokenizer([prompt for _, prompt, _ in texts])["input_ids"]
    spaced = [(" " if opt and prompt else "") + target for _, prompt, target in texts]
    targets = [row + [end] for row in tokenizer(spaced, add_special_tokens=False)["input_ids"]]
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

    At every colour or shape word of a prompt, the hidden state half way up must tell whether such an item is there, and
    the colours and shapes of those that are. A shape right after a colour means both.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__()
        self.words = {}
        for word in COLOR_NAMES + SHAPES:
            for form in (word, plural(word)):
                ids = tokenizer(" " + form, add_special_tokens=False)["input_ids"]
                if len(ids) == 1:
                    self.words[ids[0]] = word
        self.head = nn.Linear(WIDTH, 1 + len(COLOR_NAMES) + len(SHAPES))

    def forward(self, hidden: torch.Tensor, prompts: list[list[int]], scenes: list[Scene]) -> torch.Tensor:
        """Mean binary cross-entropy; hidden states of the text are [batch, tokens, 128]."""
        spots, wanted = [], []
        for row, (prompt, scene) in enumerate(zip(prompts, scenes, strict=True)):
            before = ""
            for place, token in enumerate(prompt):
                word = self.words.get(token, "")
                if word:
                    color = word if word in COLOR_NAMES else before
                    shape = word if word in SHAPES else ""
                    items = [item for item in scene.items if color in ("", item.color) and shape in ("", item.shape)]
                    colors, shapes = {item.color for item in items}, {item.shape for item in items}
                    spots.append((row, place))
                    wanted.append([bool(items), *(c in colors for c in COLOR_NAMES), *(s in shapes for s in SHAPES)])
                before = word if word in COLOR_NAMES else ""
        if not spots:
            return hidden.new_zeros(())
        rows, places = torch.tensor(spots).T
        said = self.head(hidden[rows, places])
        return nn.functional.binary_cross_entropy_with_logits(said, torch.tensor(wanted).float())


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
    for kind in KINDS:
        rows = [rng.randrange(len(scenes)) for _ in range(per_kind)]
        if kind == "compare":
            rows = [row for row in rows if len(scenes[row].items) > 1]
        if kind == "ground":
            rows = [row for row in rows if scenes[row].ground != "mid"]
        texts = []
        for row in rows:
            texts.append(_try(scenes[row], rng, kind))
        kept = [(row, text) for row, text in zip(rows, texts, strict=True) if text]
        texts = [text for _, text in kept]
        logits, labels, _, _ = language_logits(model, tokenizer, features[[row for row, _ in kept]], texts)
        opt = model.config.use_decoder_only_language_model
        lengths = [
            len(tokenizer((" " if opt else "") + target, add_special_tokens=False)["input_ids"]) + 1
            for _, _, target in texts
        ]
        parts = (logits.argmax(-1) == labels).split(lengths)
        scores[kind] = round(sum(part.all().item() for part in parts) / len(parts), 3)
    model.train()
    return scores


def _try(scene: Scene, rng: random.Random, kind: str) -> tuple[str, str, str] | None:
    for _ in range(50):
        found = ASKERS[kind][0](scene, rng)
        if found:
            return kind, rng.choice(QUESTION_PROMPTS).format(question=found[0]), found[1]
    return None


def train_language(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, features: torch.Tensor,
    scenes: list[Scene], held_out: tuple[torch.Tensor, list[Scene]], steps: int, seed: int, batch: int = 96,
    rate: float = 2e-3, captions_first: float = 0.1, plain_until: float = 0.3, name: str = "",
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
        texts = [sample_text(scenes[row], rng, share, negated) for row in rows]
        logits, labels, halfway, prompts = language_logits(model, tokenizer, features[rows], texts)
        loss = nn.functional.cross_entropy(logits, labels)
        found = scout(halfway, prompts, [scenes[row] for row in rows])
        optimizer.zero_grad()
        (loss + 3 * found).backward()
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

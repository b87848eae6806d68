"""The photo base as a model of the Hub's layout: its tokenizer, and an untrained BLIP-2 around a trained ViT."""

from pathlib import Path

import torch
from base_parts import match_alike
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    GenerationConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from blip2vqa.utils.errors import InputError
from photo_base.heads import WIDTH
from photo_base.teacher import encode_names
from photo_base.vision import VISION_CONFIG

GRID = 4
QUERIES = GRID * GRID
VOCABULARY = 4000
LANGUAGE_LAYERS = 5
"""Layers of the language model."""
QFORMER_CONFIG = Blip2QFormerConfig(
    vocab_size=1, hidden_size=WIDTH, intermediate_size=768, num_hidden_layers=2, num_attention_heads=4,
    cross_attention_frequency=1, encoder_hidden_size=WIDTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    max_position_embeddings=64,
)  # fmt: skip


def train_tokenizer(texts: list[str], words: list[str]) -> PreTrainedTokenizerFast:
    """Train byte-level pairs with `</s>` in front, as OPT has them, on texts, and on words that must be whole."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator([*texts, *(" " + word for word in words for _ in range(60))], trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", special.index("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", bos_token="</s>",
        padding_side="left", model_max_length=240, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


def load_base(folder: Path) -> Blip2ForConditionalGeneration:
    """Load a base that make_photo_base.py has made; raises `InputError` where there is none, or one of another size."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no base is there; make_photo_base.py makes one")
    config, sizes = (
        Blip2Config.from_pretrained(folder),
        ("hidden_size", "num_hidden_layers", "image_size", "patch_size"),
    )
    if any(getattr(config.vision_config, name) != getattr(VISION_CONFIG, name) for name in sizes):
        raise InputError(f"{folder}: its ViT has another size than make_photo_base.py trains")
    return Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


def build_model(
    tokenizer: PreTrainedTokenizerFast, vision_model: nn.Module, language_model: nn.Module | None = None
) -> Blip2ForConditionalGeneration:
    """Build a BLIP-2 around a trained ViT, and around a trained language model, which is then frozen.

    The rest is untrained, but for words that start near words of like meaning.
    """
    line_feed = tokenizer.convert_tokens_to_ids("Ċ")
    text = language_model.config if language_model else OPTConfig(
        hidden_size=WIDTH, num_hidden_layers=LANGUAGE_LAYERS, ffn_dim=768, num_attention_heads=4, word_embed_proj_dim=WIDTH,
        max_position_embeddings=256, dropout=0.0, bos_token_id=tokenizer.bos_token_id, eos_token_id=line_feed,
        init_std=0.04, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=VISION_CONFIG.to_dict(), qformer_config=QFORMER_CONFIG.to_dict(), text_config=text.to_dict(),
        num_query_tokens=QUERIES, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    model.vision_model.load_state_dict(vision_model.state_dict())
    nn.init.normal_(model.query_tokens, std=0.5)
    nn.init.normal_(model.language_projection.weight, std=0.1 / WIDTH**0.5)
    if language_model:
        model.language_model.load_state_dict(language_model.state_dict())
        model.language_model.requires_grad_(False)
    else:
        match_alike(model.language_model)
        _embed_by_meaning(model.get_input_embeddings(), tokenizer)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=line_feed
    )
    model.language_model.generation_config = model.generation_config
    for part in (model.vision_model, model.qformer, model.language_model):
        part.set_attn_implementation("eager")  # on a CPU faster than the fused one, for so few places
    return model


@torch.no_grad()
def _embed_by_meaning(embeddings: nn.Embedding, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start each token near the tokens that a sentence encoder finds alike, so that words asked rarely are not strangers."""
    texts = [tokenizer.decode([number]).strip().lower() for number in range(len(tokenizer))]
    meanings = encode_names(texts)
    meanings = meanings - meanings.mean(0)
    _, directions = torch.linalg.eigh(meanings.T @ meanings)
    main = meanings @ directions[:, -WIDTH:]
    embeddings.weight.copy_(0.04 * (0.8 * main / main.std() + 0.6 * torch.randn_like(main)))

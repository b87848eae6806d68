"""Tiny random InstructBLIP, BLIP and ViLT in the Hub's file layout, next to the BLIP-2 of `tiny`."""

import json
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    PreTrainedModel,
    T5Config,
    ViltConfig,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltImageProcessorPil,
    ViltProcessor,
)

from helpers.tiny_blip2 import NUM_QUERY_TOKENS, TEXTS, make_tokenizer

IMAGE_SIZE, PATCH_SIZE = 16, 8
ANSWERS = ("red", "green", "blue", "yes", "no")


def make_bert_tokenizer(**more) -> BertTokenizer:
    """BERT's uncased WordPiece with its conventions: "[PAD]" is 0, "[CLS]" in front, "[SEP]" behind."""
    # BLIP's eos_token_id of 2 names an unused token, as on the Hub: an answer ends with "[SEP]".
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?!.,:'"
    words = sorted(set(re.findall("[a-z]{2,}", " ".join(TEXTS).lower())))
    # Written by hand: the library's trainer numbers the tokens differently in each process.
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return BertTokenizer(vocab=vocabulary, **{"model_max_length": 512, **more})


def make_qformer_tokenizer() -> BertTokenizer:
    """As InstructBLIP's: BERT's with "[DEC]" behind the vocabulary, cut on the left."""
    return make_bert_tokenizer(bos_token="[DEC]", truncation_side="left")


def make_llama_tokenizer() -> LlamaTokenizer:
    """LLaMA's BPE with InstructBLIP's odd conventions: "</s>" both in front and at the end, "[PAD]" behind the words."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        TEXTS * 4, trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    return LlamaTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]],
        bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="[PAD]", add_bos_token=True,
        truncation_side="left", model_max_length=2048,
    )  # fmt: skip


def make_image_processor() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def save(model_class: type[PreTrainedModel], config, processor, folder: Path, seed: int) -> Path:
    """Write a model of random weights, large enough for the picture to matter, and its processor."""
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                wide = any(part in name for part in ("embed", "query_tokens", "cls_token"))
                parameter.normal_(0.0, 0.2 if wide else 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_instructblip(folder: Path, text: str = "llama", seed: int = 0) -> Path:
    """InstructBLIP with LLaMA (as instructblip-vicuna-7b) or T5 (as instructblip-flan-t5-xl)."""
    tokenizer = make_llama_tokenizer() if text == "llama" else make_tokenizer(seq2seq=True)
    qformer_tokenizer = make_qformer_tokenizer()
    processor = InstructBlipProcessor(
        make_image_processor(), tokenizer, qformer_tokenizer, num_query_tokens=NUM_QUERY_TOKENS
    )
    # As on the Hub: a few rows more than there are tokens.
    rows = -(-len(tokenizer) // 32) * 32
    if text == "llama":
        # The first two ids are the Hub's and both wrong: the tokenizer, as the training before it, has "</s>" (2) twice.
        text_config = LlamaConfig(
            vocab_size=rows, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6, tie_word_embeddings=False,
            bos_token_id=0, eos_token_id=1, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    else:
        text_config = T5Config(
            vocab_size=rows, d_model=64, d_kv=32, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=2,
            dropout_rate=0.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
            bos_token_id=1, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )  # fmt: skip
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, initializer_range=0.02,
        ),
        qformer_config=InstructBlipQFormerConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            vocab_size=len(qformer_tokenizer),
        ),
        text_config=text_config,
        num_query_tokens=NUM_QUERY_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return save(InstructBlipForConditionalGeneration, config, processor, folder, seed)


def make_blip(model_class: type[PreTrainedModel], vision: int, folder: Path, seed: int) -> Path:
    """BLIP with a ViT of the given width, with the Hub's ids."""
    tokenizer = make_bert_tokenizer()
    words = len(tokenizer)
    config = BlipConfig(
        vision_config={
            "hidden_size": vision, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "initializer_range": 0.02,
        },
        text_config={
            # Multiples of 64: with anything else bitsandbytes cannot run 4-bit layers on a CPU.
            "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 64,
            # As on the Hub: the model starts with "[DEC]" and has "[ENC]", the tokenizer knows neither.
            "vocab_size": words + 2, "bos_token_id": words,
            "sep_token_id": tokenizer.sep_token_id, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": 2,
        },
    )  # fmt: skip
    return save(model_class, config, BlipProcessor(make_image_processor(), tokenizer), folder, seed)


def make_blip_vqa(folder: Path, seed: int = 0) -> Path:
    """BLIP that answers questions, as blip-vqa-base."""
    # One width for both: the decoder's cross attention, made for the vision's width, reads the text encoder's output.
    return make_blip(BlipForQuestionAnswering, 64, folder, seed)


def make_blip_caption(folder: Path, seed: int = 0) -> Path:
    """BLIP that writes captions, as blip-image-captioning-base."""
    return make_blip(BlipForConditionalGeneration, 128, folder, seed)


def make_vilt(folder: Path, answers: tuple[str, ...] | None = ANSWERS, seed: int = 0) -> Path:
    """ViLT over `answers` (as vilt-b32-finetuned-vqa), or with its masked words (as vilt-b32-mlm) when they are None."""
    tokenizer = make_bert_tokenizer(model_max_length=40)
    image_processor = ViltImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH_SIZE)
    config = ViltConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=40, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE,
    )  # fmt: skip
    if answers is not None:
        config.id2label = dict(enumerate(answers))
        config.label2id = {answer: number for number, answer in enumerate(answers)}
    model_class = ViltForMaskedLM if answers is None else ViltForQuestionAnswering
    return save(model_class, config, ViltProcessor(image_processor, tokenizer), folder, seed)

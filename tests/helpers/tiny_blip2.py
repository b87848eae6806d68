"""A tiny random BLIP-2 in the Hub's file layout, and a table of drawn squares: what every test starts from."""

import csv
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
)
from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
NUM_QUERY_TOKENS = 4
TEXTS = [
    "Question: What color is the square? Answer in one word: red green blue yellow\n",
    "Question: Is the square red? Answer in one word: yes no\n",
    "Question: How many squares are there? one two three four",
]


class GivenFeatures:
    """Features as they come from a store: `values` [images, …] by digest."""

    def __init__(self, digests, values: torch.Tensor, name: str = "query_output"):
        self.name, self.values = name, values
        self.rows = {digest: row for row, digest in enumerate(digests)}

    def of(self, digests) -> torch.Tensor:
        return self.values[[self.rows[digest] for digest in digests]]


def upstream_logits(base, query_output: torch.Tensor, **batch) -> torch.Tensor:
    """What upstream's own forward gives for features of the towers: logits of every position."""
    image = BaseModelOutputWithVisionQformerOutputs(pooler_output=base.project(query_output))
    given = {"pixel_values": None, "mm_encoder_outputs": {"image": image}}
    return Blip2ForConditionalGeneration.forward(base, **given, **batch).logits


def make_tokenizer(seq2seq: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE with OPT's conventions ("</s>" in front) or T5's ("</s>" behind)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<unk>"] if seq2seq else ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    end = tokenizer.token_to_id("</s>")
    single = "$A </s>" if seq2seq else "</s> $A"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("</s>", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def make_base(folder: Path, seq2seq: bool = False, seed: int = 0) -> Path:
    """Write a random base with OPT or T5 (gated, as FLAN-T5) into `folder`; about 150,000 parameters."""
    tokenizer = make_tokenizer(seq2seq)
    image_processor = BlipImageProcessorPil(size={"height": 16, "width": 16})
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=NUM_QUERY_TOKENS)
    words = len(tokenizer)
    if seq2seq:
        text = T5Config(
            vocab_size=words, d_model=64, d_kv=32, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=2,
            dropout_rate=0.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )  # fmt: skip
    else:
        newline = tokenizer.convert_tokens_to_ids("Ċ")
        text = OPTConfig(
            vocab_size=words, hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64, word_embed_proj_dim=64, dropout=0.0,
            bos_token_id=2, pad_token_id=1, eos_token_id=newline,
        )  # fmt: skip
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
            initializer_range=0.02,
        ),
        qformer_config=Blip2QFormerConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=8,
        ),
        text_config=text,
        num_query_tokens=NUM_QUERY_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration(config)
    # Upstream's initial values are so small that a random model would hardly see its picture.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2 if "embed" in name or "query_tokens" in name else 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_table(folder: Path, images: int = 12, size: int = 16) -> tuple[Path, Path]:
    """Squares in one of four colours, three questions each → (image folder, table)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(images):
        color = list(COLORS)[number % len(COLORS)]
        # No two files alike: a split by content must not see one image twice.
        picture = Image.new("RGB", (size, size), tuple(min(255, part + number) for part in COLORS[color]))
        picture.save(folder / "images" / f"{number}.png")
        rows.append((f"{number}.png", "What color is the square?", color))
        rows.append((f"{number}.png", "Is the square red?", "yes" if color == "red" else "no"))
        rows.append((f"{number}.png", "How many squares are there?", "one"))
    table = folder / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "question", "answer"), *rows])
    return folder / "images", table

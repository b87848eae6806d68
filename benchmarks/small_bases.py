"""Small bases of every family with random weights and a vocabulary from a table: real classes for real data, no download.

python benchmarks/small_bases.py vilt TRAIN.csv FOLDER       # also: blip, instructblip
python finetune.py --base_model_id FOLDER …                  # LoRA on random weights: that it runs, no more
python benchmarks/from_scratch.py --base_model_id FOLDER …   # every weight trained
"""

import argparse
import csv
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    PreTrainedTokenizerFast,
    T5Config,
    ViltConfig,
    ViltForQuestionAnswering,
    ViltImageProcessorPil,
    ViltProcessor,
)

SIDE, PATCH = 64, 8
BODY = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}


def words_of(table: Path) -> list[str]:
    """Texts of a table: prompts' words, questions and answers."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = {text for row in rows for text in (row["question"], row["answer"])}
    return ["Question: Answer in one word: Short answer:", *sorted(texts)]


def bert_tokenizer(texts: list[str]) -> BertTokenizerFast:
    """WordPiece over the table's words, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    )
    return BertTokenizerFast(vocab=tokenizer.get_vocab())


def t5_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte pairs with "</s>" behind, as T5's end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def make_vilt(texts: list[str]) -> tuple:
    """1 million parameters; its head is for answers yet to be named."""
    tokenizer = bert_tokenizer(texts)
    processor = ViltProcessor(ViltImageProcessorPil(size={"shortest_edge": SIDE}, size_divisor=PATCH), tokenizer)
    body = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    config = ViltConfig(vocab_size=len(tokenizer), image_size=SIDE, patch_size=PATCH, **body)
    return ViltForQuestionAnswering(config), processor


def make_blip(texts: list[str]) -> tuple:
    """BLIP for questions, 7 million parameters."""
    tokenizer = bert_tokenizer(texts)
    start = len(tokenizer)  # as on the Hub: [DEC] and [ENC] stand behind the tokenizer's own words
    text = BlipTextConfig(
        vocab_size=start + 2, encoder_hidden_size=BODY["hidden_size"], max_position_embeddings=128,
        bos_token_id=start, pad_token_id=0, sep_token_id=tokenizer.sep_token_id, eos_token_id=tokenizer.sep_token_id, **BODY,
    )  # fmt: skip
    config = BlipConfig(vision_config=BlipVisionConfig(image_size=SIDE, patch_size=PATCH, **BODY), text_config=text)
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer)
    return BlipForQuestionAnswering(config), processor


def make_instructblip(texts: list[str]) -> tuple:
    """InstructBLIP with a T5, 8 million parameters."""
    tokenizer, reading = t5_tokenizer(texts), bert_tokenizer(texts)
    image_processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = InstructBlipProcessor(image_processor, tokenizer, reading, num_query_tokens=16)
    text = T5Config(
        vocab_size=len(tokenizer), d_model=192, d_kv=64, d_ff=512, num_layers=4, num_decoder_layers=2, num_heads=3,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(image_size=SIDE, patch_size=PATCH, **BODY),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=len(reading), encoder_hidden_size=BODY["hidden_size"], max_position_embeddings=128, **BODY
        ),
        text_config=text, num_query_tokens=16, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return InstructBlipForConditionalGeneration(config), processor


MAKERS = {"vilt": make_vilt, "blip": make_blip, "instructblip": make_instructblip}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=MAKERS)
    parser.add_argument("table", type=Path, help="CSV with question and answer")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    model, processor = MAKERS[args.family](words_of(args.table))
    model.save_pretrained(args.folder)
    processor.save_pretrained(args.folder)
    print(f"{args.folder}: {sum(weight.numel() for weight in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()

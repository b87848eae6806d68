"""InstructBLIP: as BLIP-2, with LLaMA (Vicuna) or T5, and a Q-Former that reads the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from transformers import (
    AutoTokenizer,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from blip2vqa.data.examples import Example
from blip2vqa.models import layer_names
from blip2vqa.models.families import register
from blip2vqa.models.families.blip2 import QFORMER_ROLES, QFormerFamily, QFormerModel, WithT5
from blip2vqa.models.family import PIXEL_STAGE, VIT_STAGE
from blip2vqa.models.text import TextEncoder

QFORMER_TOKENIZER = "qformer_tokenizer"


class InstructBlip(QFormerModel, InstructBlipForConditionalGeneration):
    """As BLIP-2, but the Q-Former reads the question, too: `image_embeds` is the last that does not depend on it."""

    def encode(self, pixel_values=None, image_embeds=None):
        """Compute `image_embeds` [images, patches + 1, vision hidden], unless they are given."""
        return self.see(pixel_values) if image_embeds is None else image_embeds

    def forward(
        self, qformer_input_ids, qformer_attention_mask, pixel_values=None, image_embeds=None, labels=None, **kwargs
    ):
        """Compute logits from `pixel_values` or `image_embeds` of one image a row; else as `QFormerModel.forward`."""
        image_embeds = self.encode(pixel_values, image_embeds)
        read = self.query(image_embeds, input_ids=qformer_input_ids, attention_mask=qformer_attention_mask)
        return super().forward(query_output=read, **kwargs)

    def generation_inputs(self, image_embeds, input_ids, attention_mask, qformer_input_ids, qformer_attention_mask):
        """Make the inputs of `language_model.generate` for prompts, `input_ids` [rows, length], about one image a row."""
        read = self.query(image_embeds, input_ids=qformer_input_ids, attention_mask=qformer_attention_mask)
        return super().generation_inputs(read, input_ids, attention_mask)


@dataclass(frozen=True)
class InstructBlipEncoder(TextEncoder):
    """As `TextEncoder`; the Q-Former also gets the prompt, in tokens of its own."""

    qformer_tokenizer: PreTrainedTokenizerBase | None = None
    max_qformer_positions: int | None = None
    """Longest prompt that the Q-Former can read, in its own tokens."""

    @property
    def shares_image(self) -> bool:
        """False: what the language model is given of a picture depends on the question."""
        return False

    def more_inputs(self, questions: Sequence[str], prompts: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Return `qformer_input_ids` and `qformer_attention_mask` [rows, longest]."""
        found = self.qformer_tokenizer(self.fill(questions, prompts), padding=True, return_tensors="pt")
        return {"qformer_input_ids": found["input_ids"], "qformer_attention_mask": found["attention_mask"]}

    def problems_of_row(self, example: Example, answer_room: int) -> list[str]:
        """Also say that a prompt is too long for the Q-Former."""
        problems, limit = super().problems_of_row(example, answer_room), self.max_qformer_positions
        if limit and self.most_tokens(example) > limit:
            read = int(self.more_inputs([example.question])["qformer_attention_mask"].sum())
            if read > limit:
                problems.append(f"{read} tokens for the Q-Former, which has {limit} positions; shorten it")
        return problems


class InstructBlipFamily(QFormerFamily):
    """InstructBLIP with any language model."""

    card_name = "InstructBLIP"
    model_type = "instructblip"
    model_class = InstructBlip
    processor_class = InstructBlipProcessor
    encoder_class = InstructBlipEncoder
    follows_instructions = True
    qformer_roles: ClassVar = {role: (*ends, *layer_names.BERT[role]) for role, ends in QFORMER_ROLES.items()}
    stages = (
        replace(VIT_STAGE, reason="the Q-Former reads the question, so the ViT's output is the last that stays"),
        PIXEL_STAGE,
    )
    prompt = "Question: {question} Short answer:"
    caption_prompt = "A short image description:"
    # One of those that it was trained with: Dai et al. 2023, arXiv 2305.06500, appendix.
    question_prompt = "Given the image, generate a question whose answer is: {answer}. Question:"
    extra_files = (f"{QFORMER_TOKENIZER}/*",)

    def load_processor(self, config, image_processor, tokenizer, load):
        own = load(AutoTokenizer.from_pretrained, subfolder=QFORMER_TOKENIZER)
        return super().load_processor(config, image_processor, tokenizer, load, qformer_tokenizer=own)

    def encoder_options(self, processor, config) -> dict:
        return super().encoder_options(processor, config) | {
            "qformer_tokenizer": processor.qformer_tokenizer,
            "max_qformer_positions": config.qformer_config.max_position_embeddings,
        }


@register
class InstructBlipLlama(InstructBlipFamily):
    """InstructBLIP with LLaMA or Vicuna."""

    name = "InstructBLIP with LLaMA"
    kind = "llama"
    language_class = LlamaForCausalLM
    language_roles = layer_names.LLAMA

    def encoder_options(self, processor, config) -> dict:
        # Vicuna's configuration names an end token that it never says.
        return super().encoder_options(processor, config) | {"end_token_id": processor.tokenizer.eos_token_id}


@register
class InstructBlipT5(WithT5, InstructBlipFamily):
    """InstructBLIP with T5 or FLAN-T5."""

    name = "InstructBLIP with T5"

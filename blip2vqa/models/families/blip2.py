"""BLIP-2: ViT → Q-Former → projection → language model (OPT or T5)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor, OPTForCausalLM, T5ForConditionalGeneration
from transformers.modeling_outputs import CausalLMOutput

from blip2vqa.models import layer_names
from blip2vqa.models.attention import additive_mask
from blip2vqa.models.families import register
from blip2vqa.models.family import (
    LANGUAGE_MODEL,
    PIXEL_STAGE,
    VIT,
    VIT_STAGE,
    Family,
    Part,
    PartialModel,
    Stage,
    first_id,
)
from blip2vqa.models.text import IMAGE_TOKEN

QFORMER_ROLES = {**layer_names.BERT, "up": (r"intermediate_query\.dense",), "down": (r"output_query\.dense",)}


class QFormerModel(PartialModel):
    """What BLIP-2 and InstructBLIP have in common, from the Q-Former's output on."""

    def see(self, pixel_values):
        """Compute `image_embeds` [images, patches + 1, vision hidden] from `pixel_values` [images, 3, height, width]."""
        return self.vision_model(pixel_values=pixel_values).last_hidden_state

    def query(self, image_embeds, **question):
        """Compute `query_output` [rows, num_query_tokens, qformer hidden] from `image_embeds` [rows, patches + 1, hidden].

        `question`: `input_ids` and `attention_mask` [rows, length], for a Q-Former that reads the question, too.
        """
        rows, device = len(image_embeds), image_embeds.device
        queries = self.query_tokens.expand(rows, -1, -1)
        if question:
            mask = question["attention_mask"]
            seen = torch.ones(queries.shape[:2], dtype=mask.dtype, device=device)
            question["attention_mask"] = torch.cat([seen, mask], dim=1)
        output = self.qformer(
            query_embeds=queries,
            encoder_hidden_states=image_embeds,
            encoder_attention_mask=torch.ones(image_embeds.shape[:2], dtype=torch.long, device=device),
            **question,
        )
        return output.last_hidden_state[:, : queries.shape[1]].to(image_embeds.dtype)

    def project(self, query_output):
        """Project `query_output` [n, num_query_tokens, qformer hidden] to embeddings [n, num_query_tokens, text hidden]."""
        weight = self.language_projection.weight  # under an adapter, too: PEFT hands it through
        # A 4-bit or 8-bit weight has an integer dtype: there the layer itself casts its input.
        return self.language_projection(query_output.to(weight.dtype) if weight.is_floating_point() else query_output)

    def embed(self, input_ids, query_output):
        """Embed tokens [rows, length, text hidden] with the projected features in place of the image tokens."""
        embeddings = self.get_input_embeddings()(input_ids)
        image = self.project(query_output).to(embeddings.dtype)
        return embeddings.masked_scatter((input_ids == self.config.image_token_index).unsqueeze(-1), image)

    def forward(
        self, input_ids, keep=None, labels=None, pixel_values=None, image_embeds=None, query_output=None, **kwargs
    ):
        """Compute logits from `pixel_values`, `image_embeds` or `query_output` of one image a row; `keep`: see `_logits`."""
        if query_output is None:
            query_output = self.encode(pixel_values, image_embeds)
        return self._logits(self.embed(input_ids, query_output), keep, **kwargs)

    def generation_inputs(self, query_output, input_ids, attention_mask):
        """Make the inputs of `language_model.generate` for prompts, `input_ids` [rows, length], about one image a row."""
        return {"inputs_embeds": self.embed(input_ids, query_output), "attention_mask": attention_mask}

    def _logits(self, inputs_embeds, keep, **kwargs):
        """Compute logits of every position, or with `keep`, a mask of those that predict an answer's token, of these alone.

        `keep` is [rows, length] of a causal model's ids or [rows, answer length] of a seq2seq model's decoder; then the
        logits are [kept positions, vocabulary], row by row: the output head, as wide as the vocabulary, runs there only.
        """
        hidden = self._hidden(inputs_embeds, **kwargs)
        hidden = hidden if keep is None else hidden[keep]
        if getattr(self.language_model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings
            hidden = hidden * self.language_model.config.d_model**-0.5
        return CausalLMOutput(logits=self.get_output_embeddings()(hidden))

    def _hidden(self, inputs_embeds, attention_mask, decoder_input_ids=None, **kwargs):
        """Compute the input of the language model's output head: [rows, length, text hidden]."""
        if attention_mask.dtype == torch.bool:  # added to the scores as it is; else every layer would convert it anew
            attention_mask = additive_mask(attention_mask, inputs_embeds.dtype)
        decoder = self.language_model.get_decoder()
        if decoder_input_ids is None:
            given = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
        else:
            encoder = self.language_model.get_encoder()
            encoded = encoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask).last_hidden_state
            given = {"input_ids": decoder_input_ids, "encoder_hidden_states": encoded}
            given["encoder_attention_mask"] = attention_mask
        return decoder(**given, use_cache=False, **kwargs).last_hidden_state


class Blip2(QFormerModel, Blip2ForConditionalGeneration):
    """`pixel_values` → ViT → `image_embeds` → Q-Former → `query_output` → projection and language model → logits."""

    def encode(self, pixel_values=None, image_embeds=None, query_output=None):
        """Compute `query_output` [images, num_query_tokens, qformer hidden] from whichever stage is given."""
        if query_output is not None:
            return query_output
        return self.query(self.see(pixel_values) if image_embeds is None else image_embeds)


class QFormerFamily(Family):
    """What the families of BLIP-2 and InstructBLIP have in common: the picture stands in the prompt, as tokens in front."""

    qformer_roles: ClassVar[Mapping]
    language_roles: ClassVar[Mapping]
    # The towers are small, and what they see decides the answer.
    kept_whole = ("vision_model", "qformer", "language_projection", "lm_head")
    cast_to = ("language_projection",)
    language_prefix = "language_model."
    tower_configs = ("vision_config", "qformer_config")

    def __init__(self):
        self.parts = (
            VIT,
            Part(
                "qformer", ("qformer", "query_tokens"), "qformer", self.qformer_roles,
                "the Q-Former is adapted, so the ViT's output is the last that stays",
            ),
            Part("projection", ("language_projection",), "projection"),
            Part(LANGUAGE_MODEL, ("language_model",), "language_model", self.language_roles),
        )  # fmt: skip

    def load_processor(self, config, image_processor, tokenizer, load, **more):
        # A tokenizer that already has an `image_token` attribute breaks the processor, which looks for `.content`.
        if isinstance(getattr(tokenizer, "image_token", None), str):
            del tokenizer.image_token
        processor = self.processor_class(
            image_processor=image_processor, tokenizer=tokenizer, num_query_tokens=config.num_query_tokens, **more
        )
        if config.image_token_index is None:
            config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        return processor

    def fit_tokenizer(self, model, tokenizer) -> None:
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))  # an old copy with no row to spare for <image>

    def encoder_options(self, processor, config) -> dict:
        text = config.text_config
        return {
            "seq2seq": self.seq2seq,
            "image_token_id": config.image_token_index,
            "num_query_tokens": config.num_query_tokens,
            "end_token_id": first_id(text.eos_token_id),  # "\n" of the Hub's OPT
            "start_token_id": text.decoder_start_token_id if self.seq2seq else None,
        }


class Blip2Family(QFormerFamily):
    """BLIP-2 with any language model: what the Q-Former says of an image does not depend on the question."""

    card_name = "BLIP-2"
    model_type = "blip-2"
    model_class = Blip2
    processor_class = Blip2Processor
    qformer_roles = QFORMER_ROLES
    stages = (
        Stage(
            "query_output",
            ("vision_model", "qformer"),
            "the towers are frozen, so the Q-Former's output stays",
            lambda config: (config.num_query_tokens, config.qformer_config.hidden_size),
        ),
        VIT_STAGE,
        PIXEL_STAGE,
    )


@register
class Blip2Opt(Blip2Family):
    """BLIP-2 with OPT."""

    name = "BLIP-2 with OPT"
    kind = "opt"
    language_class = OPTForCausalLM
    language_roles = layer_names.OPT


class WithT5:
    """What T5 or FLAN-T5 as the language model makes of a family; mixed in before it."""

    kind = "t5"
    language_class = T5ForConditionalGeneration
    language_roles = layer_names.T5
    seq2seq = True
    follows_instructions = True  # FLAN-T5 is what the Hub's bases have
    float16 = False  # T5's activations overflow it: huggingface/transformers#9295


@register
class Blip2T5(WithT5, Blip2Family):
    """BLIP-2 with T5 or FLAN-T5."""

    name = "BLIP-2 with T5"

"""BLIP-2 and InstructBLIP: ViT → Q-Former → projection → language model."""

from typing import ClassVar

import torch
from transformers import Blip2ForConditionalGeneration, InstructBlipForConditionalGeneration
from transformers.modeling_outputs import CausalLMOutput

from blip2vqa.models.parts import keep_parts


class _Chain:
    """What the two have in common, from the Q-Former's output on."""

    PARTS: ClassVar = {
        "vision_model": ("vision_model",),
        "qformer": ("qformer", "query_tokens"),
        "language_model": ("language_model", "language_projection"),
    }
    """What it is made of, in the order in which an image goes through it → the attributes that hold it."""

    def __init__(self, config, parts: tuple[str, ...] | None = None):
        super().__init__(config)
        keep_parts(self, parts)

    def see(self, pixel_values):
        """`pixel_values` [images, 3, height, width] → `image_embeds` [images, patches + 1, vision hidden]."""
        return self.vision_model(pixel_values=pixel_values).last_hidden_state

    def project(self, query_output):
        """`query_output` [n, num_query_tokens, qformer hidden] → embeddings [n, num_query_tokens, text hidden]."""
        weight = self.language_projection.weight  # under an adapter, too: PEFT hands it through
        # A 4-bit or 8-bit weight has an integer dtype: there the layer itself casts its input.
        return self.language_projection(query_output.to(weight.dtype) if weight.is_floating_point() else query_output)

    def embed(self, input_ids, query_output):
        """Token embeddings [rows, length, text hidden] with the projected features in place of the image tokens."""
        embeddings = self.get_input_embeddings()(input_ids)
        image = self.project(query_output).to(embeddings.dtype)
        return embeddings.masked_scatter((input_ids == self.config.image_token_index).unsqueeze(-1), image)

    def _logits(self, inputs_embeds, keep, **kwargs):
        """Of every position, or with `keep`, a mask of the positions that predict an answer's token, of these alone.

        `keep` is [rows, length] of a causal model's ids or [rows, answer length] of a seq2seq model's decoder; then the
        logits are [kept positions, vocabulary], row by row: the output head, as wide as the vocabulary, runs there only.
        """
        hidden = self._hidden(inputs_embeds, **kwargs)
        hidden = hidden if keep is None else hidden[keep]
        if getattr(self.language_model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings
            hidden = hidden * self.language_model.config.d_model**-0.5
        return CausalLMOutput(logits=self.get_output_embeddings()(hidden))

    def _hidden(self, inputs_embeds, attention_mask, decoder_input_ids=None, **kwargs):
        """What the language model's output head would be given: [rows, length, text hidden]."""
        if attention_mask.dtype == torch.bool:  # added to the scores as it is; else every layer would convert it anew
            lowest = torch.finfo(inputs_embeds.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=inputs_embeds.dtype).masked_fill(
                ~attention_mask, lowest
            )
        decoder = self.language_model.get_decoder()
        if decoder_input_ids is None:
            given = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
        else:
            encoder = self.language_model.get_encoder()
            encoded = encoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask).last_hidden_state
            given = {"input_ids": decoder_input_ids, "encoder_hidden_states": encoded}
            given["encoder_attention_mask"] = attention_mask
        return decoder(**given, use_cache=False, **kwargs).last_hidden_state


class Blip2(_Chain, Blip2ForConditionalGeneration):
    """`pixel_values` → ViT → `image_embeds` → Q-Former → `query_output` → projection and language model → logits."""

    def query(self, image_embeds):
        """`image_embeds` [images, patches + 1, vision hidden] → `query_output` [images, num_query_tokens, qformer hidden]."""
        output = self.qformer(
            query_embeds=self.query_tokens.expand(len(image_embeds), -1, -1),
            encoder_hidden_states=image_embeds,
            encoder_attention_mask=torch.ones(image_embeds.shape[:2], dtype=torch.long, device=image_embeds.device),
        )
        return output.last_hidden_state.to(image_embeds.dtype)

    def encode(self, pixel_values=None, image_embeds=None, query_output=None):
        """`query_output` [images, num_query_tokens, qformer hidden] from whichever stage's output is given."""
        if query_output is not None:
            return query_output
        return self.query(self.see(pixel_values) if image_embeds is None else image_embeds)

    def forward(
        self, input_ids, keep=None, labels=None, pixel_values=None, image_embeds=None, query_output=None, **kwargs
    ):
        """Logits from `pixel_values`, `image_embeds` or `query_output` of one image a row; `keep`: see `_logits`."""
        query_output = self.encode(pixel_values, image_embeds, query_output)
        return self._logits(self.embed(input_ids, query_output), keep, **kwargs)

    def generation_inputs(self, query_output, input_ids, attention_mask):
        """What `language_model.generate` takes for prompts, `input_ids` [rows, length], about one image a row."""
        return {"inputs_embeds": self.embed(input_ids, query_output), "attention_mask": attention_mask}


class InstructBlip(_Chain, InstructBlipForConditionalGeneration):
    """As BLIP-2, but the Q-Former reads the question, too: `image_embeds` is the last that does not depend on it."""

    def query(self, image_embeds, qformer_input_ids, qformer_attention_mask):
        """`image_embeds` [rows, patches + 1, vision hidden] and the question's tokens [rows, length] in the Q-Former's own
        vocabulary → `query_output` [rows, num_query_tokens, qformer hidden]."""
        rows, device = len(image_embeds), image_embeds.device
        seen = torch.ones(rows, self.query_tokens.shape[1], dtype=qformer_attention_mask.dtype, device=device)
        output = self.qformer(
            input_ids=qformer_input_ids,
            attention_mask=torch.cat([seen, qformer_attention_mask], dim=1),
            query_embeds=self.query_tokens.expand(rows, -1, -1),
            encoder_hidden_states=image_embeds,
            encoder_attention_mask=torch.ones(image_embeds.shape[:2], dtype=torch.long, device=device),
        )
        return output.last_hidden_state[:, : self.query_tokens.shape[1]].to(image_embeds.dtype)

    def encode(self, pixel_values=None, image_embeds=None):
        """`image_embeds` [images, patches + 1, vision hidden] from whichever stage's output is given."""
        return self.see(pixel_values) if image_embeds is None else image_embeds

    def forward(
        self,
        input_ids,
        qformer_input_ids,
        qformer_attention_mask,
        keep=None,
        labels=None,
        pixel_values=None,
        image_embeds=None,
        **kwargs,
    ):
        """Logits from `pixel_values` or `image_embeds` of one image a row; `keep`: see `_logits`."""
        image_embeds = self.encode(pixel_values, image_embeds)
        query_output = self.query(image_embeds, qformer_input_ids, qformer_attention_mask)
        return self._logits(self.embed(input_ids, query_output), keep, **kwargs)

    def generation_inputs(self, image_embeds, input_ids, attention_mask, qformer_input_ids, qformer_attention_mask):
        """What `language_model.generate` takes for prompts, `input_ids` [rows, length], about one image a row."""
        query_output = self.query(image_embeds, qformer_input_ids, qformer_attention_mask)
        return {"inputs_embeds": self.embed(input_ids, query_output), "attention_mask": attention_mask}

"""BLIP: ViT → `image_embeds`, which the layers of its text models look at."""

import torch
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, BlipProcessor
from transformers.modeling_outputs import CausalLMOutput

from blip2vqa.models import layer_names
from blip2vqa.models.families import register
from blip2vqa.models.family import LANGUAGE_MODEL, PIXEL_STAGE, VIT, VIT_STAGE, Family, Part, PartialModel


class BlipModel(PartialModel):
    """What the two have in common: the ViT, and a decoder with an output head."""

    @property
    def language_model(self):
        """The part that generates."""
        return self.text_decoder

    def get_output_embeddings(self):
        return self.text_decoder.get_output_embeddings()

    def encode(self, pixel_values=None, image_embeds=None):
        """Compute `image_embeds` [images, patches + 1, vision hidden], unless they are given."""
        return self.vision_model(pixel_values=pixel_values).last_hidden_state if image_embeds is None else image_embeds

    see = encode

    def _logits(self, keep, input_ids, encoder_hidden_states, **kwargs):
        """Compute logits of the decoder's ids [rows, length], with the mask `keep` of these positions alone."""
        hidden = self.text_decoder.bert(
            input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, is_decoder=True, use_cache=False, **kwargs
        ).last_hidden_state
        return CausalLMOutput(logits=self.text_decoder.cls(hidden if keep is None else hidden[keep]))


class BlipVqa(BlipModel, BlipForQuestionAnswering):
    """An encoder reads the question and looks at the picture; a decoder answers from what it made of both."""

    # With upstream's, "input_ids", checkpointed activations would ask for gradients of the embeddings, which are changed in
    # place.
    main_input_name = "pixel_values"

    def __init__(self, config, absent: tuple[str, ...] = ()):
        super().__init__(config, absent)
        if self.text_decoder is not None:
            for layer in self.text_decoder.bert.encoder.layer:
                layer.crossattention.self.register_forward_pre_hook(_see_the_mask, with_kwargs=True)

    def read(self, image_embeds, input_ids, attention_mask):
        """Encode questions [rows, length] about one image a row → [rows, length, text hidden]."""
        return self.text_encoder(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=image_embeds
        ).last_hidden_state

    def forward(
        self,
        input_ids,
        attention_mask,
        decoder_input_ids,
        keep=None,
        labels=None,
        pixel_values=None,
        image_embeds=None,
        **kwargs,
    ):
        """Compute logits of the decoder's positions, with `keep` [rows, answer length] of these alone: [kept, vocabulary]."""
        question = self.read(self.encode(pixel_values, image_embeds), input_ids, attention_mask)
        return self._logits(keep, decoder_input_ids, question, encoder_attention_mask=attention_mask, **kwargs)

    def generation_inputs(self, image_embeds, input_ids, attention_mask):
        """Make the inputs of `language_model.generate` for questions about one image a row."""
        start = torch.full((len(input_ids), 1), self.decoder_start_token_id, device=input_ids.device)
        question = self.read(image_embeds, input_ids, attention_mask)
        return {"input_ids": start, "encoder_hidden_states": question, "encoder_attention_mask": attention_mask}


def _see_the_mask(module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Give the decoder its mask of the question, which upstream loses on the way to the attention that reads it.

    Without it an answer would depend on the padding that longer questions bring into its batch.
    """
    return args, kwargs | {"encoder_attention_mask": kwargs["attention_mask"]}


class BlipCaption(BlipModel, BlipForConditionalGeneration):
    """A decoder that looks at the picture goes on from the prompt."""

    def forward(
        self,
        input_ids,
        attention_mask,
        keep=None,
        labels=None,
        pixel_values=None,
        image_embeds=None,
        **kwargs,
    ):
        """Compute logits of prompt and answer, with `keep` [rows, length] of these positions alone: [kept, vocabulary]."""
        image_embeds = self.encode(pixel_values, image_embeds)
        return self._logits(keep, input_ids, image_embeds, attention_mask=attention_mask, **kwargs)

    def generation_inputs(self, image_embeds, input_ids, attention_mask):
        """Make the inputs of `language_model.generate` for prompts, padded in front, about one image a row."""
        return {"input_ids": input_ids, "attention_mask": attention_mask, "encoder_hidden_states": image_embeds}


class BlipFamily(Family):
    """What the two families of BLIP have in common; the class named in the configuration tells them apart."""

    card_name = "BLIP"
    model_type = "blip"
    processor_class = BlipProcessor
    parts = (VIT, Part(LANGUAGE_MODEL, ("text_encoder", "text_decoder"), "language_model", layer_names.BERT))
    stages = (VIT_STAGE, PIXEL_STAGE)
    kept_whole = ("vision_model", "text_decoder.cls")

    def kind_of(self, config) -> str | None:
        return (config.architectures or [None])[0]

    def encoder_options(self, processor, config) -> dict:
        return {
            "seq2seq": self.seq2seq,
            "end_token_id": processor.tokenizer.sep_token_id,
            "start_token_id": config.text_config.bos_token_id,
        }


@register
class BlipVqaFamily(BlipFamily):
    """BLIP that answers questions and writes no captions."""

    name = "BLIP for questions"
    kind = "BlipForQuestionAnswering"
    model_class = BlipVqa
    prompt = "{question}"
    caption_prompt = None
    seq2seq = True


@register
class BlipCaptionFamily(BlipFamily):
    """BLIP that goes on from a prompt, as it does for captions."""

    name = "BLIP for captions"
    kind = "BlipForConditionalGeneration"
    model_class = BlipCaption

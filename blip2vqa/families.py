"""All that differs between architectures, in one table: language model kinds, roles, prompt, end token.

A role is a linear layer's job in a transformer block (`q k v o gate up down`); which module does it depends on the
language model. Suffixes alone are not enough: OPT's `fc1` is also the name of the vision tower's MLP, so modules are
always looked for below `language_model`.
"""

from dataclasses import dataclass

from transformers import Blip2ForConditionalGeneration
from transformers.models.blip_2.modeling_blip_2 import (
    BaseModelOutputWithVisionQformerOutputs,
    Blip2ForConditionalGenerationModelOutput,
)

from blip2vqa.errors import InputError

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
DEFAULT_PROMPT = "Question: {question} Answer in one word:"

# What other projects call these layers; the first seed's list of names works for every language model this way.
ROLE_ALIASES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o",
    "gate_proj": "gate", "wi_0": "gate", "up_proj": "up", "fc1": "up", "wi_1": "up",
    "down_proj": "down", "fc2": "down", "wo": "down",
}  # fmt: skip


class Blip2(Blip2ForConditionalGeneration):
    """BLIP-2 in two stages: `encode` (image → Q-Former output, frozen) and `forward` (that and text → logits)."""

    def encode(self, pixel_values):
        """`pixel_values` [images, 3, height, width] → `query_output` [images, num_query_tokens, qformer hidden]."""
        return self.get_image_features(pixel_values, return_dict=True).qformer_outputs[0]

    def project(self, query_output):
        """`query_output` [n, num_query_tokens, qformer hidden] → embeddings [n, num_query_tokens, text hidden]."""
        weight = self.language_projection.weight
        # A 4-bit or 8-bit weight has an integer dtype: there the layer itself casts its input.
        return self.language_projection(query_output.to(weight.dtype) if weight.is_floating_point() else query_output)

    def forward(self, query_output=None, pixel_values=None, input_ids=None, labels=None, keep=None, **kwargs):
        """As upstream, or from `query_output` [rows, num_query_tokens, qformer hidden] instead of `pixel_values`.

        With `keep`, a mask [rows, length] of a causal model's positions, `logits` are [kept positions, vocabulary], row
        by row: the output head, as wide as the vocabulary, runs where an answer is predicted and nowhere else.
        """
        if keep is not None:
            embeddings = self.embed(input_ids, query_output)
            decoder = self.language_model.get_decoder()
            hidden = decoder(inputs_embeds=embeddings, use_cache=False, **kwargs).last_hidden_state
            logits = self.language_model.get_output_embeddings()(hidden[keep])
            return Blip2ForConditionalGenerationModelOutput(logits=logits)
        if query_output is not None:
            image = BaseModelOutputWithVisionQformerOutputs(pooler_output=self.project(query_output))
            kwargs["mm_encoder_outputs"] = {"image": image}
        return super().forward(pixel_values=pixel_values, input_ids=input_ids, labels=labels, **kwargs)

    def embed(self, input_ids, query_output):
        """Token embeddings [rows, length, text hidden] with the projected features in place of the image tokens."""
        embeddings = self.get_input_embeddings()(input_ids)
        image = self.project(query_output).to(embeddings.dtype)
        return embeddings.masked_scatter((input_ids == self.config.image_token_index).unsqueeze(-1), image)


@dataclass(frozen=True)
class Family:
    """One supported architecture."""

    name: str
    model_class: type
    seq2seq: bool
    """Encoder-decoder language model: the prompt goes to the encoder, the answer to the decoder."""
    role_modules: dict[str, tuple[str, ...]]
    """Role → module suffixes below `language_model`. A role that the architecture does not have is absent."""
    float16: bool = True
    """Whether float16 is safe. T5's activations overflow it: huggingface/transformers#9295."""


_T5 = {"q": ("q",), "k": ("k",), "v": ("v",), "o": ("o",), "up": ("wi_1",), "gate": ("wi_0",), "down": ("wo",)}
_FAMILIES = {
    ("blip-2", "opt"): Family(
        name="BLIP-2 with OPT",
        model_class=Blip2,
        seq2seq=False,
        role_modules={
            "q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("out_proj",), "up": ("fc1",), "down": ("fc2",),
        },
    ),
    ("blip-2", "t5"): Family(name="BLIP-2 with T5", model_class=Blip2, seq2seq=True, role_modules=_T5, float16=False),
}  # fmt: skip


def family_of(config) -> Family:
    """The family of a model configuration. Raises `InputError` naming the known ones."""
    text_type = getattr(getattr(config, "text_config", None), "model_type", None)
    family = _FAMILIES.get((config.model_type, text_type))
    if family is None:
        known = ", ".join(f"{f.name} ({'/'.join(key)})" for key, f in _FAMILIES.items())
        found = f"{config.model_type}/{text_type}" if text_type else config.model_type
        raise InputError(f"base model: its architecture is {found}, which is not supported; known are {known}")
    return family


def parse_roles(text: str) -> tuple[str, ...]:
    """`"q,k,v"` or `"q_proj,v_proj"` → roles in the house's order. Raises `InputError` for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    roles = {ROLE_ALIASES.get(name, name) for name in names}
    unknown = [name for name in names if ROLE_ALIASES.get(name, name) not in ROLES]
    if unknown or not roles:
        shown = ", ".join(unknown) or "an empty list"
        raise InputError(f"--lora_roles: {shown} is not a role; choose from {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in roles)

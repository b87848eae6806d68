"""All that differs between architectures, in one table: language model kinds, roles, prompt, end token.

A role is a linear layer's job in a transformer block (`q k v o gate up down`); which module does it depends on the
architecture. Suffixes alone are not enough: OPT's `fc1` is also the name of the vision tower's MLP, so modules are
always looked for below the part that they belong to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import Blip2ForConditionalGeneration
from transformers.models.blip_2.modeling_blip_2 import (
    BaseModelOutputWithVisionQformerOutputs,
    Blip2ForConditionalGenerationModelOutput,
)

from blip2vqa.errors import InputError

PARTS = ("vision_model", "qformer", "language_model")
"""What a BLIP-2 is made of, in the order in which an image goes through it."""
_BELONGS_TO = {"qformer": "query_tokens", "language_model": "language_projection"}

SCOPES = ("language_model", "projection", "qformer", "vision")
"""What an adapter may be put on."""
STAGES = {"query_output": ("vision_model", "qformer"), "image_embeds": ("vision_model",), "pixel_values": ()}
"""What a run may start from, by its name in a batch: the parts that made it, frozen, and not needed any more."""

ROLES = ("q", "k", "v", "o", "gate", "up", "down")
DEFAULT_PROMPT = "Question: {question} Answer in one word:"

# What other projects call these layers; a list of LLaMA's names works for every language model this way.
ROLE_ALIASES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o",
    "gate_proj": "gate", "wi_0": "gate", "up_proj": "up", "fc1": "up", "wi_1": "up",
    "down_proj": "down", "fc2": "down", "wo": "down",
}  # fmt: skip


class Blip2(Blip2ForConditionalGeneration):
    """BLIP-2 as a chain of stages, each of which may start from what the one before it left on disk:

    `pixel_values` → ViT → `image_embeds` → Q-Former → `query_output` → projection and language model → logits.

    It may hold some of its `parts` alone: the frozen ones run once for each image, without the language model in memory,
    and training runs without them.
    """

    def __init__(self, config, parts: tuple[str, ...] = PARTS):
        super().__init__(config)
        absent = [part for part in PARTS if part not in parts]
        for part in absent:
            setattr(self, part, None)
        if "qformer" in absent:
            self.query_tokens = None
        if "language_model" in absent:
            self.language_projection = None
            self.all_tied_weights_keys = {}
        # Of the whole checkpoint only the parts are read; the rest is no surprise.
        names = [*absent, *(_BELONGS_TO[part] for part in absent if part in _BELONGS_TO)]
        self._keys_to_ignore_on_load_unexpected = {rf"^{name}(\.|$)" for name in names}

    def see(self, pixel_values):
        """`pixel_values` [images, 3, height, width] → `image_embeds` [images, patches + 1, vision hidden]."""
        return self.vision_model(pixel_values=pixel_values).last_hidden_state

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

    def forward(
        self, input_ids=None, labels=None, keep=None, pixel_values=None, image_embeds=None, query_output=None, **kwargs
    ):
        """As upstream, or from `image_embeds` or `query_output` of one image a row instead of `pixel_values`.

        With `keep`, a mask of the positions that predict an answer's token, [rows, length] of a causal model's ids or
        [rows, answer length] of a seq2seq model's decoder, `logits` are [kept positions, vocabulary], row by row: the
        output head, as wide as the vocabulary, runs there and nowhere else.
        """
        query_output = self.encode(pixel_values, image_embeds, query_output)
        if keep is None:
            image = BaseModelOutputWithVisionQformerOutputs(pooler_output=self.project(query_output))
            kwargs["mm_encoder_outputs"] = {"image": image}
            return super().forward(pixel_values=None, input_ids=input_ids, labels=labels, **kwargs)
        hidden = self._hidden(self.embed(input_ids, query_output), **kwargs)[keep]
        if getattr(self.language_model.config, "scale_decoder_outputs", False):  # T5 with tied embeddings
            hidden = hidden * self.language_model.config.d_model**-0.5
        return Blip2ForConditionalGenerationModelOutput(logits=self.get_output_embeddings()(hidden))

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


@dataclass(frozen=True)
class Family:
    """One supported architecture."""

    name: str
    model_class: type
    seq2seq: bool
    """Encoder-decoder language model: the prompt goes to the encoder, the answer to the decoder."""
    role_modules: dict[str, dict[str, tuple[str, ...]]]
    """Scope → role → ends of module names. A role that the architecture does not have is absent."""
    float16: bool = True
    """Whether float16 is safe. T5's activations overflow it: huggingface/transformers#9295."""


_PLACES = {
    "language_model": "language_model.", "projection": "language_projection", "qformer": "qformer.", "vision": "vision_model.",
}  # fmt: skip
_VISION = {
    "q": ("qkv",), "k": ("qkv",), "v": ("qkv",), "o": ("self_attn.projection",), "up": ("fc1",), "down": ("fc2",),
}  # fmt: skip
_QFORMER = {
    "q": ("query",), "k": ("key",), "v": ("value",), "o": ("attention.output.dense", "crossattention.output.dense"),
    "up": ("intermediate_query.dense",), "down": ("output_query.dense",),
}  # fmt: skip
_TOWERS = {"vision": _VISION, "qformer": _QFORMER}
_OPT = {"q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("out_proj",), "up": ("fc1",), "down": ("fc2",)}
_T5 = {"q": ("q",), "k": ("k",), "v": ("v",), "o": ("o",), "up": ("wi_1",), "gate": ("wi_0",), "down": ("wo",)}
_FAMILIES = {
    ("blip-2", "opt"): Family(
        name="BLIP-2 with OPT",
        model_class=Blip2,
        seq2seq=False,
        role_modules={"language_model": _OPT, **_TOWERS},
    ),
    ("blip-2", "t5"): Family(
        name="BLIP-2 with T5",
        model_class=Blip2,
        seq2seq=True,
        role_modules={"language_model": _T5, **_TOWERS},
        float16=False,
    ),
}


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


def parse_scopes(text: str) -> tuple[str, ...]:
    """`"qformer,language_model"` → scopes in the house's order. Raises `InputError` for an unknown one."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(names - set(SCOPES))
    if unknown or not names:
        shown = ", ".join(unknown) or "an empty list"
        raise InputError(f"--lora_scope: {shown} is no part of the model; choose from {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in names)


def scope_of_module(name: str) -> str | None:
    """What a module, named from the base, belongs to."""
    return next((scope for scope, place in _PLACES.items() if name.startswith(place)), None)


def last_frozen_stage(scopes: Iterable[str]) -> tuple[str, str]:
    """The stage to start from when these scopes are adapted, and why, in words."""
    if "vision" in scopes:
        return "pixel_values", "the ViT is adapted, so nothing in front of it is frozen"
    if "qformer" in scopes:
        return "image_embeds", "the Q-Former is adapted, so the ViT's output is the last that stays"
    return "query_output", "the towers are frozen, so the Q-Former's output stays"


def stage_shape(config, stage: str) -> tuple[int, ...]:
    """Of one image's `stage`, of `STAGES`."""
    vision = config.vision_config
    return {
        "query_output": (config.num_query_tokens, config.qformer_config.hidden_size),
        "image_embeds": ((vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size),
        "pixel_values": (3, vision.image_size, vision.image_size),
    }[stage]

"""The base class of a family: all that differs between architectures, with what most of them have in common by default."""

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from blip2vqa.config.roles import SCOPES
from blip2vqa.models import layer_names
from blip2vqa.models.text import PromptEncoder, TextEncoder

LANGUAGE_MODEL, TOKEN_EMBEDDINGS = "language_model", "token_embeddings"
TEXT_PARTS = (LANGUAGE_MODEL, TOKEN_EMBEDDINGS)
"""The parts of a base that a language model of its own consists of, too."""
PIXELS = "pixel_values"


@dataclass(frozen=True)
class Part:
    """A piece of a model that is loaded, adapted and fingerprinted as one."""

    name: str
    modules: tuple[str, ...]
    """The model's attributes that hold it."""
    scope: str | None = None
    """What `--lora_scope` calls it, of `SCOPES`; None: no adapter may be put on it."""
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role → ends of module names, as regular expressions. A role that the architecture does not have is absent; a part
    without roles is adapted as a whole."""
    when_adapted: str = ""
    """Which features can still be kept when the part is adapted, in words."""


@dataclass(frozen=True)
class Stage:
    """An intermediate result of a model that a batch may start from, by its name in the batch."""

    name: str
    made_by: tuple[str, ...]
    """Names of the parts that compute it; where they are frozen, they are not needed any more."""
    reason: str
    """Why it is the last that stays, in words."""
    shape: Callable[[object], tuple[int, ...]]
    """Configuration → shape for one image."""
    method: str = "encode"
    """The model's method that computes it from `pixel_values`."""


def patches_shape(config) -> tuple[int, ...]:
    """Return the shape of a ViT's output for one image: (patches + 1, hidden)."""
    vision = config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size


def picture_shape(config) -> tuple[int, ...]:
    """Return the shape of one image's `pixel_values`."""
    vision = getattr(config, "vision_config", config)
    return 3, vision.image_size, vision.image_size


PIXEL_STAGE = Stage(PIXELS, (), "nothing in front of it is frozen", picture_shape)
VIT = Part(
    "vision_model", ("vision_model",), "vision", layer_names.VISION, "the ViT is adapted, so nothing in front of it is frozen"
)  # fmt: skip
VIT_STAGE = Stage("image_embeds", ("vision_model",), "the ViT is frozen, so its output stays", patches_shape, "see")


class PartialModel:
    """A model of transformers, mixed in before its class, that may be built without some of its parts.

    Towers run once for each image, without the language model in memory, and training runs without them. Of a whole checkpoint
    only what stays is read.
    """

    def __init__(self, config, absent: Iterable[str] = ()):
        super().__init__(config)
        leave_out(self, absent)


def leave_out(model: nn.Module, absent: Iterable[str]) -> None:
    """Replace these attributes of a model by None, in place; `Family.absent` names them."""
    for name in absent:
        setattr(model, name, None)
    tied = model.all_tied_weights_keys.items()
    model.all_tied_weights_keys = {one: other for one, other in tied if one.partition(".")[0] not in absent}
    model._keys_to_ignore_on_load_unexpected = {rf"^{name}(\.|$)" for name in absent}


class Family:
    """One supported architecture. A subclass states what is its own, and overrides what it does in another way."""

    name: ClassVar[str]
    card_name: ClassVar[str] = ""
    """What a model card calls it, where that is not `name`."""
    model_type: ClassVar[str]
    """`model_type` of its configuration."""
    kind: ClassVar[str | None] = None
    """What `kind_of` returns for its configuration, where several families share a `model_type`."""
    model_class: ClassVar[type]
    """Built as `model_class(config, absent=())`; see `keep_parts`."""
    processor_class: ClassVar[type]
    encoder_class: ClassVar[type[PromptEncoder]] = TextEncoder
    parts: ClassVar[tuple[Part, ...]]
    """In the order in which an image goes through them."""
    stages: ClassVar[tuple[Stage, ...]]
    """The latest first, `pixel_values` last."""
    prompt: ClassVar[str] = "Question: {question} Answer in one word:"
    caption_prompt: ClassVar[str | None] = "a photo of"
    """None: it cannot write a text of its own."""
    question_prompt: ClassVar[str] = 'Write a question about the picture whose answer is "{answer}". Question:'
    """Prompt by which it writes a question for an answer."""
    seq2seq: ClassVar[bool] = False
    """Whether an encoder reads the prompt and a decoder answers; else the answer goes on from the prompt."""
    needs_answers: ClassVar[bool] = False
    """Whether it can only be trained on a list of answers, which it chooses from."""
    follows_instructions: ClassVar[bool] = False
    """Whether its language model was taught to follow instructions, so that a conversation may stand in its prompt."""
    float16: ClassVar[bool] = True
    """Whether float16 is safe."""
    kept_whole: ClassVar[tuple[str, ...]] = ()
    """Modules never quantized, by the beginning or the end of their names: they are small beside the language model."""
    trained_whole: ClassVar[tuple[str, ...]] = ()
    """Modules that a run trains and an adapter holds as they are, beside LoRA: a head for the user's own answers."""
    cast_to: ClassVar[tuple[str, ...]] = ()
    """Modules whose input is cast to the precision of their weights, so that an adapter's own may be in float32."""
    replaced: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that the modules of `trained_whole` stand in place of."""
    head_class: ClassVar[type | None] = None
    """The class of transformers that holds a head for the user's own answers; None: there is none."""
    language_class: ClassVar[type | None] = None
    """The class of transformers that its language model has when it stands alone, as a text model on disk."""
    language_prefix: ClassVar[str | None] = None
    """How the names of its language model begin; None where the text layers are none that stands alone."""
    token_names: ClassVar[tuple[str, ...]] = ("embed_tokens", "shared", "lm_head")
    """Ends of the names of the input embeddings and the output head of a language model: OPT's, LLaMA's and T5's."""
    tower_configs: ClassVar[tuple[str, ...]] = ("vision_config",)
    """Attributes of the configuration on which the features of an image depend."""
    extra_files: ClassVar[tuple[str, ...]] = ()
    """Patterns of files that belong to a base of this family, beside those that every base has."""

    # Parts, and what of them can be adapted

    def kind_of(self, config) -> str | None:
        """Return what tells families of one `model_type` apart: the kind of the language model."""
        return getattr(getattr(config, "text_config", None), "model_type", None)

    def part_with(self, module: str) -> Part | None:
        """Return the part that a module or parameter, named from the base, belongs to."""
        first = module.partition(".")[0]
        return next((part for part in self.parts if first in part.modules), None)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What an adapter may be put on, in the order of `SCOPES`."""
        own = {part.scope for part in self.parts}
        return tuple(scope for scope in SCOPES if scope in own)

    def scope_of(self, module: str) -> str | None:
        """Return the scope that a module, named from the base, belongs to."""
        part = self.part_with(module)
        return part and part.scope

    def roles(self, scope: str) -> Mapping[str, tuple[str, ...]]:
        """Return role → ends of module names in a scope, as regular expressions."""
        return next(part.roles for part in self.parts if part.scope == scope)

    def roles_of(self, module: str) -> list[str]:
        """Return the roles of a module; none where the family does not know it."""
        part = self.part_with(module)
        roles = part.roles if part else {}
        return [role for role, ends in roles.items() if re.search(rf"\.(?:{'|'.join(ends)})$", module)]

    # Stages

    def stage(self, name: str) -> Stage:
        """Return the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def last_frozen_stage(self, scopes: Iterable[str]) -> tuple[str, str]:
        """Return the stage to start from when these scopes are adapted, and why, in words."""
        adapted, why = set(scopes), ""
        for stage in self.stages:
            touched = [part for part in self.parts if part.name in stage.made_by and part.scope in adapted]
            if not touched:
                return stage.name, why or stage.reason
            why = touched[0].when_adapted
        raise AssertionError("the last stage is made by no part")

    def rest(self, stage: str) -> tuple[str, ...]:
        """Return the names of the parts that go on from a stage."""
        return tuple(part.name for part in self.parts if part.name not in self.stage(stage).made_by)

    # The model

    def absent(self, parts: Iterable[str] | None) -> tuple[str, ...]:
        """Return the model's attributes that belong to none of these parts; None: all parts are there."""
        return tuple(name for part in self.parts if parts and part.name not in parts for name in part.modules)

    def outline(self, config, parts: Iterable[str] | None = None, answers: Sequence[str] | None = None):
        """Build the model, or these parts of it, without contents, its head (if it has one) for `answers`."""
        with torch.device("meta"):
            model = self.model_class(copy.deepcopy(config), absent=self.absent(parts))
            self.set_answers(model, answers)
        return model

    def set_answers(self, model, answers: Sequence[str] | None) -> int | None:
        """Give the model's head one output for each answer (in place).

        Returns how many of them the head knew before; None where there is no such head, or nothing was asked for.
        """
        return None

    # Words

    def load_processor(self, config, image_processor, tokenizer, load: Callable):
        """Put a processor together, with what old copies of a base leave out; `config` may be completed in place.

        `load(AutoTokenizer.from_pretrained, subfolder=…)` reads more of the base's files.
        """
        return self.processor_class(image_processor=image_processor, tokenizer=tokenizer)

    def fit_tokenizer(self, model, tokenizer) -> None:
        """Make room in the loaded model (in place) for every token of its tokenizer."""

    def text_encoder(self, processor, config, prompt: str | None = None, answers: Sequence[str] | None = None):
        """Make what turns questions and answers into tensors for a base; `prompt` None stands for the family's own.

        `answers`: the only ones that it may give; None for any, or for those of the base's own head.
        """
        text = getattr(config, "text_config", config)
        return self.encoder_class(
            tokenizer=processor.tokenizer,
            prompt=prompt or self.prompt,
            max_positions=getattr(text, "max_position_embeddings", None),  # T5's are relative: it has no limit
            answers=tuple(answers or ()),
            **self.encoder_options(processor, config),
        )

    def encoder_options(self, processor, config) -> dict:
        """Return the fields of the encoder that are this family's own; here, those of a causal language model."""
        text = config.text_config
        return {"end_token_id": first_id(text.eos_token_id), "start_token_id": getattr(text, "bos_token_id", None)}


def first_id(ids: int | Sequence[int] | None) -> int | None:
    """Return the first of the token ids that a configuration names for one purpose."""
    return ids[0] if isinstance(ids, list) else ids

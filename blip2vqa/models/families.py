"""All that differs between architectures, in one table: classes, parts, stages, roles, prompt.

A role is a linear layer's job in a transformer block (`q k v o gate up down`); which module does it depends on the
architecture. Suffixes alone are not enough: OPT's `fc1` is also the name of the vision tower's MLP, so modules are
always looked for below the part that they belong to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import Blip2Processor, BlipProcessor, InstructBlipProcessor, ViltProcessor

from blip2vqa.config.roles import ROLE_ALIASES, ROLES, SCOPES, parse_roles, parse_scopes  # noqa: F401
from blip2vqa.models.blip import BlipCaption, BlipVqa
from blip2vqa.models.blip2 import Blip2, InstructBlip
from blip2vqa.models.vilt import Vilt
from blip2vqa.utils.errors import InputError

STAGES = ("query_output", "image_embeds", "pixel_values")
"""What a batch may start from, by its name in it."""

DEFAULT_PROMPT = "Question: {question} Answer in one word:"


@dataclass(frozen=True)
class Family:
    """One supported architecture."""

    name: str
    model_class: type
    processor_class: type
    answers: str
    """How it answers: `causal` (the answer goes on from the prompt), `seq2seq` (the prompt goes to an encoder, the answer to a
    decoder) or `classes` (a head with one output for each answer)."""
    role_modules: dict[str, dict[str, tuple[str, ...]]]
    """Scope → role → ends of module names, as regular expressions. A role that the architecture does not have is absent."""
    places: dict[str, str]
    """Scope → how the names of its modules begin."""
    stages: dict[str, tuple[tuple[str, ...], str]]
    """Stage, the latest first → the parts that made it, not needed any more where they are frozen, and why it is the last that
    stays, in words."""
    image_tokens: bool = True
    """Whether the picture stands in the prompt, as tokens in front."""
    reads_question: bool = False
    """Whether a question changes what the language model is given of the picture."""
    end_token: str = "config"
    """Whose sign ends an answer: the language model's `config` ("\\n" of the Hub's OPT), or the tokenizer's `eos` (Vicuna's
    configuration names one that it never says) or `sep`."""
    kept_whole: tuple[str, ...] = ("vision_model", "qformer", "language_projection", "lm_head")
    """Modules never quantized, by the beginning or the end of their names: the towers are small beside the language model,
    and what they see decides the answer."""
    trained_whole: tuple[str, ...] = ()
    """Modules that a run trains and an adapter holds as they are, beside LoRA: a head for the user's own answers."""
    float16: bool = True
    """Whether float16 is safe. T5's activations overflow it: huggingface/transformers#9295."""
    prompt: str = DEFAULT_PROMPT
    caption_prompt: str | None = "a photo of"
    """None: it cannot write a text of its own."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What a model is made of, in the order in which an image goes through it."""
        return tuple(self.model_class.PARTS)

    def rest(self, stage: str) -> tuple[str, ...]:
        """The parts that go on from a stage."""
        return tuple(part for part in self.parts if part not in self.stages[stage][0])

    def scope_of(self, module: str) -> str | None:
        """What a module, named from the base, belongs to."""
        return next((scope for scope, place in self.places.items() if module.startswith(place)), None)

    def last_frozen_stage(self, scopes: Iterable[str]) -> tuple[str, str]:
        """The stage to start from when these scopes are adapted, and why, in words."""
        made_of = {"vision_model": "vision", "qformer": "qformer"}
        adapted = set(scopes)
        why = ""
        for stage, (parts, reason) in self.stages.items():
            touched = [part for part in parts if made_of[part] in adapted]
            if not touched:
                return stage, why or reason
            why = {
                "vision_model": "the ViT is adapted, so nothing in front of it is frozen",
                "qformer": "the Q-Former is adapted, so the ViT's output is the last that stays",
            }[touched[0]]
        raise AssertionError("pixel_values is made of no part")


_PIXELS = ((), "nothing in front of it is frozen")
_SEEN = ("vision_model",)
_QUERIED = {
    "query_output": (("vision_model", "qformer"), "the towers are frozen, so the Q-Former's output stays"),
    "image_embeds": (_SEEN, "the ViT is frozen, so its output stays"),
    "pixel_values": _PIXELS,
}
_READ = {
    "image_embeds": (_SEEN, "the Q-Former reads the question, so the ViT's output is the last that stays"),
    "pixel_values": _PIXELS,
}
_SHOWN = {"image_embeds": (_SEEN, "the ViT is frozen, so its output stays"), "pixel_values": _PIXELS}

_PLACES = {
    "language_model": "language_model.", "projection": "language_projection", "qformer": "qformer.", "vision": "vision_model.",
}  # fmt: skip
_VISION = {
    "q": ("qkv",), "k": ("qkv",), "v": ("qkv",), "o": (r"self_attn\.projection",), "up": ("fc1",), "down": ("fc2",),
}  # fmt: skip
_BERT = {
    "q": ("query",), "k": ("key",), "v": ("value",), "o": (r"(?:cross)?attention\.output\.dense",),
    "up": (r"intermediate\.dense",), "down": (r"\d+\.output\.dense",),
}  # fmt: skip
_QFORMER = {**_BERT, "up": (r"intermediate_query\.dense",), "down": (r"output_query\.dense",)}
_READING_QFORMER = {role: (*_QFORMER[role], *_BERT[role]) for role in _BERT}
_OPT = {"q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("out_proj",), "up": ("fc1",), "down": ("fc2",)}
_T5 = {"q": ("q",), "k": ("k",), "v": ("v",), "o": ("o",), "up": ("wi_1",), "gate": ("wi_0",), "down": ("wo",)}
_LLAMA = {
    "q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj",),
    "gate": ("gate_proj",), "up": ("up_proj",), "down": ("down_proj",),
}  # fmt: skip


def _blip2(text: str, roles: dict, answers: str, **more) -> Family:
    roles = {"language_model": roles, "vision": _VISION, "qformer": _QFORMER}
    return Family(f"BLIP-2 with {text}", Blip2, Blip2Processor, answers, roles, _PLACES, _QUERIED, **more)


def _instructblip(text: str, roles: dict, answers: str, **more) -> Family:
    roles = {"language_model": roles, "vision": _VISION, "qformer": _READING_QFORMER}
    return Family(
        f"InstructBLIP with {text}", InstructBlip, InstructBlipProcessor, answers, roles, _PLACES, _READ,
        reads_question=True, prompt="Question: {question} Short answer:", caption_prompt="A short image description:", **more,
    )  # fmt: skip


def _blip(name: str, model_class: type, answers: str, **more) -> Family:
    return Family(
        name, model_class, BlipProcessor, answers, {"language_model": _BERT, "vision": _VISION},
        {"language_model": "text_", "vision": "vision_model."}, _SHOWN,
        image_tokens=False, end_token="sep", kept_whole=("vision_model", "text_decoder.cls"), **more,
    )  # fmt: skip


FAMILIES = {
    ("blip-2", "opt"): _blip2("OPT", _OPT, "causal"),
    ("blip-2", "t5"): _blip2("T5", _T5, "seq2seq", float16=False),
    ("instructblip", "llama"): _instructblip("LLaMA", _LLAMA, "causal", end_token="eos"),
    ("instructblip", "t5"): _instructblip("T5", _T5, "seq2seq", float16=False),
    ("blip", "BlipForQuestionAnswering"): _blip(
        "BLIP for questions", BlipVqa, "seq2seq", prompt="{question}", caption_prompt=None
    ),
    ("blip", "BlipForConditionalGeneration"): _blip("BLIP for captions", BlipCaption, "causal"),
    ("vilt", None): Family(
        name="ViLT", model_class=Vilt, processor_class=ViltProcessor, answers="classes",
        role_modules={"language_model": _BERT}, places={"language_model": "vilt.encoder."},
        stages={"pixel_values": ((), "it looks at picture and question together, so nothing is frozen in front")},
        image_tokens=False, end_token="sep", kept_whole=("classifier", "vilt.pooler"), trained_whole=("classifier",),
        prompt="{question}", caption_prompt=None,
    ),
}  # fmt: skip


def family_of(config) -> Family:
    """The family of a model configuration. Raises `InputError` naming the known ones."""
    kind = getattr(getattr(config, "text_config", None), "model_type", None)
    if config.model_type == "blip":  # its text models are of one kind; what they are put together to is the class
        kind = (config.architectures or [None])[0]
    family = FAMILIES.get((config.model_type, kind))
    if family is None:
        known = ", ".join(f"{f.name} ({'/'.join(filter(None, key))})" for key, f in FAMILIES.items())
        found = f"{config.model_type}/{kind}" if kind else config.model_type
        raise InputError(f"base model: its architecture is {found}, which is not supported; known are {known}")
    return family


def stage_shape(config, stage: str) -> tuple[int, ...]:
    """Of one image's `stage`, of `STAGES`."""
    if stage == "query_output":
        return config.num_query_tokens, config.qformer_config.hidden_size
    vision = getattr(config, "vision_config", config)  # ViLT has one configuration for all
    if stage == "image_embeds":
        return (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size
    return 3, vision.image_size, vision.image_size

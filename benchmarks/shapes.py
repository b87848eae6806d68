"""What the benchmarks share: models of real sizes with random weights, and questions and a tokenizer for them.

No download: a model is built from its configuration.
"""

import random
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from transformers import (
    Blip2Config,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    InstructBlipConfig,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    OPTConfig,
    T5Config,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from blip2vqa.models.families import family_of
from blip2vqa.models.text import TextEncoder

_OPT = {
    "blip2-opt-2.7b": {"hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "num_attention_heads": 32},
    "blip2-opt-6.7b": {"hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}
_T5 = {
    "blip2-flan-t5-xl": {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "tiny-t5": {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2},
}
_T5 |= {
    "instructblip-flan-t5-xl": _T5["blip2-flan-t5-xl"],
    "tiny-instruct-t5": _T5["tiny-t5"],
}
_LLAMA_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_LLAMA = {
    "instructblip-vicuna-7b": dict(zip(_LLAMA_SIZES, (4096, 11008, 32, 32), strict=True)),
    "tiny-instruct-llama": dict(zip(_LLAMA_SIZES, (64, 128, 2, 2), strict=True)),
}
SHAPES = (*_OPT, *_T5, *_LLAMA)
WORDS = range(10, 500)
"""Token ids that are words in every shape: below them lie the special tokens."""


@dataclass(frozen=True)
class RandomTokens:
    """In place of a tokenizer: ids drawn with the text as seed; a text decoded is its ids.

    The word "a" is one token, and what follows it counts as if it stood alone: `TextEncoder` sets it in front of answers.
    """

    prompt_tokens: int
    answer_tokens: int
    """With the end token, which `TextEncoder` puts behind."""
    spread: int = 0
    """Prompts are up to so many tokens shorter or longer; answers are all as long."""
    pad_token_id: int = 1
    eos_token_id: int = 2

    def __call__(self, texts, add_special_tokens: bool, **kwargs) -> dict[str, list]:
        """A text → its ids; several → a list of them each. With `add_special_tokens` they are prompts, else answers."""
        if isinstance(texts, str):
            return {"input_ids": self._ids(texts, add_special_tokens)}
        return {"input_ids": [self._ids(text, add_special_tokens) for text in texts]}

    def _ids(self, text: str, prompt: bool) -> list[int]:
        draw = random.Random(text)
        if prompt:
            return draw.choices(WORDS, k=self.prompt_tokens + draw.randint(-self.spread, self.spread))
        first, _, rest = text.partition(" ")
        if first == "a":
            return [WORDS[0], *(self._ids(rest, prompt) if rest else [])]
        return draw.choices(WORDS, k=self.answer_tokens - 1)

    def batch_decode(self, rows: torch.Tensor, **kwargs) -> list[str]:
        return [" ".join(map(str, row)) for row in rows.tolist()]


@dataclass(frozen=True)
class Question:
    """As much of an example as collating and answering read."""

    question: str
    digest: str


def questions_about(images: int, each: int) -> list[Question]:
    """`each` questions about every one of the images `0`, `1`, …, image by image."""
    return [Question(f"{image}-{number}", str(image)) for image in range(images) for number in range(each)]


@dataclass(frozen=True)
class RandomReading:
    """In place of the Q-Former's tokenizer."""

    tokens: RandomTokens

    def __call__(self, texts, padding: bool, return_tensors: str) -> dict[str, torch.Tensor]:
        rows = [torch.tensor(ids) for ids in self.tokens(texts, add_special_tokens=True)["input_ids"]]
        masks = [torch.ones_like(row) for row in rows]
        pad = torch.nn.utils.rnn.pad_sequence
        return {"input_ids": pad(rows, batch_first=True), "attention_mask": pad(masks, batch_first=True)}


def tiny_like(shape: str) -> str:
    """The tiny shape of the same kind."""
    if shape in _LLAMA:
        return "tiny-instruct-llama"
    return "tiny-instruct-t5" if "instruct" in shape else "tiny-t5" if shape in _T5 else "tiny"


def text_encoder(config: Blip2Config, tokenizer: RandomTokens, end_token_id: int = 2) -> TextEncoder:
    """A `TextEncoder` whose prompt is the question alone."""
    processor = SimpleNamespace(tokenizer=tokenizer, qformer_tokenizer=RandomReading(tokenizer))
    return replace(family_of(config).text_encoder(processor, config, "{question}"), end_token_id=end_token_id)


def configuration(shape: str) -> Blip2Config:
    """The configuration of a model on the Hub by its name there; `tiny` (OPT) and `tiny-t5` are for tests."""
    tower = {}
    if shape.startswith("tiny"):
        tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {False: (50304, 32128), True: (512, 512)}[bool(tower)]
    if shape in _OPT:
        size = _OPT[shape]
        text = OPTConfig(vocab_size=words[0], word_embed_proj_dim=size["hidden_size"], eos_token_id=2, **size)
    elif shape in _LLAMA:
        vocabulary = words[1] if tower else 32001
        text = LlamaConfig(vocab_size=vocabulary, pad_token_id=1, eos_token_id=2, rms_norm_eps=1e-6, **_LLAMA[shape])
    else:
        text = T5Config(
            vocab_size=words[1], feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
            **_T5[shape],
        )  # fmt: skip
    if "instruct" in shape:
        return InstructBlipConfig(
            vision_config=InstructBlipVisionConfig(**tower),
            qformer_config=InstructBlipQFormerConfig(**tower, encoder_hidden_size=tower.get("hidden_size", 1408)),
            text_config=text,
            image_token_index=5,
        )
    return Blip2Config(
        vision_config=Blip2VisionConfig(**tower),
        qformer_config=Blip2QFormerConfig(**tower),
        text_config=text,
        image_token_index=5,
    )


def build(config: Blip2Config, dtype: torch.dtype, device: torch.device, spread: float = 0.02):
    """A frozen model with random weights of standard deviation `spread`, made straight in `dtype`.

    Billions of weights in float32 first would need twice the memory.
    """
    with torch.device("meta"):
        model = family_of(config).model_class(config).to(dtype)
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                # One slice of random numbers repeated is as good for timing, and much faster to draw.
                flat, drawn = parameter.view(-1), min(parameter.numel(), 1 << 20)
                noise = torch.empty(drawn, dtype=dtype, device=device).normal_(0.0, spread, generator=generator)
                for start in range(0, flat.numel(), drawn):
                    flat[start : start + drawn] = noise[: flat.numel() - start]
            else:
                parameter.fill_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
        for name, buffer in model.named_buffers():
            if "position_ids" in name:
                buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        for parent in list(model.modules()):
            for name, module in parent.named_children():
                if isinstance(module, LlamaRotaryEmbedding):  # its frequencies are made by its constructor, in float32
                    setattr(parent, name, LlamaRotaryEmbedding(module.config).to(device))
    model.tie_weights()
    return model.requires_grad_(False).eval()

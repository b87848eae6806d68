"""Small models of every family in the Hub's layout, with adapters that matter, and questions about drawn squares."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from PIL import Image

from blip2vqa.adapters.files.adapter import write_manifest
from blip2vqa.adapters.fused_lora import fuse
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.data.examples import Example
from blip2vqa.features.encode import Features, Pixels, encode_in_memory
from blip2vqa.inference.generation import answer_examples
from blip2vqa.inference.request import AnswerRequest, Decoding
from blip2vqa.models.loading import LoadedModel, load_base
from blip2vqa.training.collators import COLLATORS
from helpers.tiny_blip2 import COLORS, make_base
from helpers.tiny_families import make_blip_caption, make_blip_vqa, make_instructblip, make_vilt

BASES = {
    "blip2-opt": make_base,
    "blip2-t5": partial(make_base, seq2seq=True),
    "instructblip-llama": make_instructblip,
    "instructblip-t5": partial(make_instructblip, text="t5"),
    "blip-vqa": make_blip_vqa,
    "blip-caption": make_blip_caption,
    "vilt": make_vilt,
}
ANSWERS = ("red", "green", "blue", "yes", "no")
"""What a ViLT's head tells apart."""
SCALE = 2.0**10
"""What losses are multiplied by, as a gradient scaler does: in float16 small gradients would be 0."""


T5_QUERIES = ".q."
"""T5 does not scale its queries by itself."""
EXTERNAL = ("embed", "shared", "query_tokens", "relative", "lm_head", "predictions")
"""Weights that stay as they are: those of words, positions and answers."""


@torch.no_grad()
def tame(loaded: LoadedModel) -> None:
    """Halve a small base's weights (in place): as they are made, its attention magnifies every rounding a hundred times."""
    for name, weight in loaded.model.named_parameters():
        if weight.ndim > 1 and not any(part in name for part in EXTERNAL):
            weight.mul_(0.5 * (0.2 if T5_QUERIES in name else 1.0))


def base(folder: Path, kind: str) -> Path:
    """The base of this kind below `folder`, made when it is first asked for."""
    there = folder / kind
    return there if there.exists() else BASES[kind](there)


def pictures() -> dict[str, Image.Image]:
    """Squares in four colors, by name."""
    return {name: Image.new("RGB", (16, 16), color) for name, color in COLORS.items()}


def examples() -> list[Example]:
    """Questions of unlike lengths about each picture, three or two, picture by picture."""
    asked = []
    for number, color in enumerate(COLORS):
        asked.append((color, "What color is the square?", color if color in ANSWERS else "green"))
        asked.append(
            (color, "Is the square red? Look at it well before you answer.", "yes" if color == "red" else "no")
        )
        if number % 2 == 0:
            asked.append((color, "Blue?", "yes" if color == "blue" else "no"))
    return [
        Example(row, None, name, name, question, (answer,), "", {})
        for row, (name, question, answer) in enumerate(asked)
    ]


@dataclass
class Small:
    """A small base under an adapter on one device, and what its batches are made of."""

    loaded: LoadedModel
    features: Features
    text: object

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: str, **more) -> "Small":
        """Load the base of a folder; raises `InputError` for a precision that its family refuses."""
        loaded = load_base(str(folder), dtype=dtype, quantization="none", device=device, for_training=True, **more)
        tame(loaded)
        pixels = Pixels(pictures(), loaded.processor.image_processor)
        features = encode_in_memory(loaded, pixels, ("language_model",), batch_size=4)
        return cls(loaded, features, loaded.family.text_encoder(loaded.processor, loaded.base.config))

    def adapt(self, seed: int = 1, fused: bool = True) -> None:
        """Put an adapter on it, whose weights are the same on every device and in every precision."""
        wrap(self.loaded, LoraArguments(lora_r=4, lora_dropout=0.0), seed, fused)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.loaded.model.named_parameters():
            if weight.requires_grad:
                spread = (0.05 if "lora_B" in name else 0.1) * (0.4 if T5_QUERIES in name else 1.0)
                weight.data.copy_(torch.empty(weight.shape).normal_(0.0, spread, generator=generator))

    def as_peft(self) -> None:
        """PEFT's own LoRA layers, until `fuse` is called again."""
        for layer in self.loaded.model.modules():
            if isinstance(layer, LoraLayer):
                layer.__dict__.pop("forward", None)

    def as_ours(self) -> None:
        fuse(self.loaded.model)

    def batch(self, shared: bool) -> dict[str, torch.Tensor]:
        """All questions with their answers; `shared`: those of one picture in one row, where the base can."""
        rows = FinetuneArguments.tokens_per_row if shared and self.text.shares_image else None
        collator = COLLATORS[self.text.answers_with](self.text, self.features, rows)
        return collator([(example, example.answer) for example in examples()])

    def step(self, shared: bool = True, model=None) -> tuple[float, torch.Tensor]:
        """Loss of all questions, and the adapter's gradients, one behind the other in float32 on the CPU."""
        loaded, batch = self.loaded, self.batch(shared)
        inputs = {name: tensor.to(loaded.device) for name, tensor in batch.items()}
        labels = inputs.pop("labels")
        inputs = {name: one.to(loaded.dtype) if one.is_floating_point() else one for name, one in inputs.items()}
        loss_of = COLLATORS[self.text.answers_with].LOSS()
        loaded.model.train()
        trained = [weight for weight in loaded.model.parameters() if weight.requires_grad]
        for weight in trained:
            weight.grad = None
        loss = loss_of((loaded.model if model is None else model)(**inputs), labels)
        (loss * SCALE).backward()
        loaded.model.eval()
        return loss.item(), torch.cat([weight.grad.flatten().float().cpu() for weight in trained]) / SCALE

    def ask(self, requests: AnswerRequest | list[AnswerRequest]) -> list[tuple[str, float]]:
        """Answers with their confidences, in batches of three, by one request or one a question."""
        said = answer_examples(self.loaded, self.features, examples(), requests, batch_size=3)
        return [(answer.text, answer.confidence) for answer in said]

    def request(self, beams: int = 1, answers: tuple[str, ...] | None = None, **more) -> AnswerRequest:
        tree = self.text.constraint(answers) if answers else None
        return AnswerRequest(self.text, Decoding(num_beams=beams, max_new_tokens=5), tree, **more)


def write_adapter(folder: Path, base: Path, seed: int) -> Path:
    """A random adapter of a base on disk, whose update shows in the answers."""
    small = Small.load(base, torch.device("cpu"), "float32")
    small.adapt(seed)
    small.loaded.model.save_pretrained(folder)
    write_manifest(folder, {"base_model_id": str(base)})
    return folder

"""Every family's tiny base, what upstream itself says on it, adapters that matter, and runs that are watched."""

import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    InstructBlipForConditionalGeneration,
    ViltForQuestionAnswering,
)

from blip2vqa.adapters.files.adapter import write_manifest
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.models.loading import LoadedModel, load_base
from blip2vqa.training import recipe
from blip2vqa.training.trainer import VQATrainer
from helpers.tiny_blip2 import make_base
from helpers.tiny_families import make_blip_caption, make_blip_vqa, make_instructblip, make_vilt

CPU = torch.device("cpu")
MAKERS = {
    "opt": (make_base, Blip2ForConditionalGeneration),
    "t5": (partial(make_base, seq2seq=True), Blip2ForConditionalGeneration),
    "instructblip-llama": (make_instructblip, InstructBlipForConditionalGeneration),
    "instructblip-t5": (partial(make_instructblip, text="t5"), InstructBlipForConditionalGeneration),
    "blip-vqa": (make_blip_vqa, BlipForQuestionAnswering),
    "blip-caption": (make_blip_caption, BlipForConditionalGeneration),
    "vilt": (make_vilt, ViltForQuestionAnswering),
}
GENERATIVE = ("instructblip-llama", "instructblip-t5", "blip-vqa", "blip-caption")
NEW = (*GENERATIVE, "vilt")
QUESTIONS = (
    "What color is the square? Is the square red? How many squares are there?",
    "Red?",
    "Is the square yellow, or is it blue?",
)


class Bases:
    """The bases, each made when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __getitem__(self, kind: str) -> Path:
        folder = self.folder / kind
        return folder if folder.exists() else MAKERS[kind][0](folder)


@cache
def upstream(kind: str, base: Path):
    """Upstream's own processor and model."""
    return AutoProcessor.from_pretrained(base), MAKERS[kind][1].from_pretrained(base, dtype=torch.float32).eval()


def upstream_answer(kind: str, base: Path, picture, text: str, end: int, **options) -> str:
    """What upstream's own `generate` says to one prompt about one picture."""
    processor, model = upstream(kind, base)
    inputs = processor(images=picture, text=text, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    if not kind.startswith("blip-"):  # which bring their own
        options |= {"eos_token_id": end, "pad_token_id": processor.tokenizer.pad_token_id}
    ids = model.generate(**inputs, do_sample=False, **options)[0]
    # Its last column is "[SEP]", which upstream takes off; a decoder's answer begins with its start token.
    prompt = {"blip-caption": length - 1, "opt": length, "instructblip-llama": length}.get(kind, 1)
    return processor.tokenizer.decode(ids[prompt:], skip_special_tokens=True).strip()


def load_float32(base: Path, **more) -> LoadedModel:
    return load_base(str(base), dtype="float32", quantization="none", device=CPU, **more)


def examples_of(images: Path, asked: list[tuple[str, str, tuple[str, ...]]]) -> list[Example]:
    """Examples of `(file name, question, annotators' answers)`."""
    return [
        Example(row, ImageSource(name, path=images / name), name, name, question, answers, "other", {})
        for row, (name, question, answers) in enumerate(asked)
    ]


def adapted(base: Path, seed: int, use_dora: bool = False, **more) -> LoadedModel:
    """A base under an adapter of random weights that matter, ready to train."""
    loaded = load_float32(base, for_training=True, **more)
    wrap(loaded, LoraArguments(lora_r=4, lora_dropout=0.0, use_dora=use_dora), seed)
    torch.manual_seed(seed)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data.normal_(0.0, 0.3)
    return loaded


def random_adapter(of: Path, folder: Path, seed: int, use_dora: bool = False, **manifest) -> Path:
    """Such an adapter of a base, on disk; `manifest` only where something is remembered."""
    answers = manifest.get("answers")
    more = {"answers": tuple(answers)} if answers else {}
    adapted(of, seed, use_dora, **more).model.save_pretrained(folder)
    if manifest:
        write_manifest(folder, {"base_model_id": str(of), **manifest})
    return folder


@dataclass
class Watched:
    """A finished run and what was seen of it."""

    folder: Path
    metrics: dict
    trainer: object
    frozen: list[tuple[torch.Tensor, torch.Tensor]]
    """The base's weights, as they are after training and as they were loaded."""

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]

    @property
    def manifest(self) -> dict:
        return json.loads((self.folder / "blip2vqa.json").read_text())

    @property
    def predictions(self) -> list[dict[str, str]]:
        import csv

        with (self.folder / "predictions.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def watch(run) -> Watched:
    """Carry out a run and look on."""
    trainers, weights = [], []
    load = recipe.load_base

    def load_and_keep(*args, **kwargs):
        loaded = load(*args, **kwargs)
        weights.extend((weight, weight.detach().clone()) for weight in loaded.model.parameters())
        return loaded

    def make_and_keep(*args):
        trainers.append(VQATrainer(*args))
        return trainers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "load_base", load_and_keep)
        metrics = recipe.finetune(run, make_and_keep)
    return Watched(run.folder, metrics, *trainers, weights)

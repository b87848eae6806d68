"""ViLT: one encoder over words and patches together, and a head with one output for each answer."""

from collections.abc import Sequence
from dataclasses import replace
from types import MethodType

import torch
from torch import nn
from torch.nn.functional import interpolate, pad
from transformers import ViltForQuestionAnswering, ViltProcessor

from blip2vqa.models import layer_names
from blip2vqa.models.classes import ClassEncoder, head_answers
from blip2vqa.models.families import register
from blip2vqa.models.family import LANGUAGE_MODEL, PIXEL_STAGE, Family, Part, PartialModel


class Vilt(PartialModel, ViltForQuestionAnswering):
    """`pixel_values`, `pixel_mask` and the question → logits [rows, answers]; nothing in front of it stays the same."""

    main_input_name = "pixel_values"

    def __init__(self, config, absent: tuple[str, ...] = ()):
        super().__init__(config, absent)
        self.vilt.embeddings.visual_embed = MethodType(_visual_embed, self.vilt.embeddings)
        self.classifier.register_forward_pre_hook(_in_its_own_precision)

    @property
    def language_model(self):
        """The encoder, which reads."""
        return self.vilt

    def forward(self, labels=None, **kwargs):
        """Compute logits as upstream, without its loss."""
        return super().forward(**kwargs)

    def answer_with(self, answers: tuple[str, ...]) -> int:
        """Give the head one output for each of `answers` (in place); returns how many the head knew before, whose weights stay.

        The others start from small random ones, as upstream's.
        """
        old, known = self.classifier[-1], [self.config.label2id.get(answer) for answer in answers]
        new = nn.Linear(old.in_features, len(answers)).to(old.weight)
        nn.init.normal_(new.weight, std=self.config.initializer_range)
        nn.init.zeros_(new.bias)
        rows = [row for row, source in enumerate(known) if source is not None]
        sources = [known[row] for row in rows]
        with torch.no_grad():
            new.weight[rows], new.bias[rows] = old.weight[sources], old.bias[sources]
        self.classifier[-1] = new.requires_grad_(False)
        self.config.id2label = dict(enumerate(answers))
        self.config.label2id = {answer: row for row, answer in enumerate(answers)}
        self.num_labels = len(answers)
        return len(rows)


def _in_its_own_precision(head: nn.Sequential, args: tuple) -> tuple:
    """Cast the head's input; a head that an adapter holds is in float32, whatever the base is in."""
    return (args[0].to(head[0].weight.dtype),)


def _visual_embed(self, pixel_values, pixel_mask, max_image_length=None):
    """Compute patch embeddings with positions [images, patches + 1, hidden] and their mask, in place of upstream's.

    Upstream shuffles the patches by torch's global generator, and fills shorter rows with patches drawn at random: two runs
    would differ in their last digits. Here the picture's own patches come first, in their order.
    """
    x = self.patch_embeddings(pixel_values)  # [images, hidden, rows, columns]
    images, hidden, height, width = x.shape
    mask = interpolate(pixel_mask[:, None].float(), size=(height, width)).long()[:, 0]
    side = self.config.image_size // self.config.patch_size
    grid = self.position_embeddings[:, 1:].transpose(1, 2).view(1, hidden, side, side)
    tall, wide = mask.sum(1)[:, 0].tolist(), mask.sum(2)[:, 0].tolist()
    sizes = dict.fromkeys(zip(tall, wide, strict=True))
    for h, w in sizes:
        stretched = interpolate(grid, size=(h, w), mode="bilinear", align_corners=True)
        sizes[h, w] = pad(stretched, (0, width - w, 0, height - h))
    position = torch.cat([sizes[size] for size in zip(tall, wide, strict=True)])
    x, position, mask = (x + position).flatten(2).transpose(1, 2), self.position_embeddings[:, :1], mask.flatten(1)
    longest = int(mask.sum(1).max())
    order = mask.argsort(dim=1, descending=True, stable=True)[:, :longest]
    x = x.gather(1, order.unsqueeze(-1).expand(-1, -1, hidden))
    first = (self.cls_token + position).expand(images, -1, -1)
    mask = torch.cat([mask.new_ones(images, 1), mask.gather(1, order)], dim=1)
    return self.dropout(torch.cat([first, x], dim=1)), mask, None


@register
class ViltFamily(Family):
    """ViLT, which chooses among the outputs of a head."""

    name = "ViLT"
    model_type = "vilt"
    model_class = Vilt
    processor_class = ViltProcessor
    encoder_class = ClassEncoder
    parts = (
        Part(LANGUAGE_MODEL, ("vilt",), "language_model", layer_names.BERT),
        Part("classifier", ("classifier",)),
    )
    stages = (replace(PIXEL_STAGE, reason="it looks at picture and question together, so nothing is frozen in front"),)
    prompt = "{question}"
    caption_prompt = None
    needs_answers = True
    kept_whole = ("classifier", "vilt.pooler")
    trained_whole = cast_to = ("classifier",)
    replaced = ("mlm_score.",)  # a bare encoder's head for masked words
    head_class = ViltForQuestionAnswering

    def set_answers(self, model, answers: Sequence[str] | None) -> int | None:
        return model.answer_with(answers) if answers else None

    def encoder_options(self, processor, config) -> dict:
        return {}

    def text_encoder(self, processor, config, prompt: str | None = None, answers: Sequence[str] | None = None):
        return super().text_encoder(processor, config, prompt, answers or head_answers(config))

"""ViLT at its real size, random weights: a training step and answering, the plain way and this project's, pictures included.

    python benchmarks/vilt.py --output vilt.json
    python benchmarks/vilt.py --shape tiny --output /tmp/vilt.json       # a few seconds

Reference: `ViltProcessor` on every row's picture and question, upstream's forward and loss, PEFT's own LoRA layers, the same
precision. Ours: each picture opened and resized once a batch, deterministic patch embeddings, fused LoRA layers; answering with
the adapter merged. Pictures are JPEG files of 640 × 480 and 480 × 640 pixels in turn. Times are the fastest of `--repeats`,
after one to warm up, the ways taking turns. No download.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import BertTokenizerFast, ViltConfig, ViltForQuestionAnswering, ViltImageProcessorPil, ViltProcessor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.adapters.fused_lora import fuse
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource, open_image
from blip2vqa.features.encode import Pixels
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.request import AnswerRequest
from blip2vqa.models.families import family_of
from blip2vqa.models.loading import LoadedModel, find_device, remove_dropout
from blip2vqa.training.collators import ClassCollator, ClassLoss
from measuring import circumstances, free_unused, peak_bytes, print_profile, seconds
from shapes import build

SIZES = {
    "vilt-b32": {},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
}
WORDS = "what color is the thing on left right of a big small red green blue how many are there".split()


class Work:
    """One model with an adapter, and one batch of questions about pictures, for both ways."""

    def __init__(self, args, dtype: torch.dtype, device: torch.device):
        self.device, self.dtype, self.batch_size = device, dtype, args.images * args.questions_per_image
        answers = [f"answer{number}" for number in range(args.answers)]
        self.config = ViltConfig(**SIZES[args.shape], id2label=dict(enumerate(answers)))
        remove_dropout(self.config)
        family = family_of(self.config)
        self.processor = ViltProcessor(ViltImageProcessorPil(), _tokenizer())
        self.base = build(self.config, dtype, device)
        self.base.vilt.embeddings.text_embeddings.token_type_ids.zero_()
        self.loaded = LoadedModel(self.base, self.processor, family, args.shape, None, device, dtype, "none", [])
        draw = np.random.default_rng(0)
        self.pictures = {str(number): _jpeg(draw, number) for number in range(args.images)}
        self.text = family.text_encoder(self.processor, self.config)
        pixels = Pixels(
            {name: ImageSource(name, data=data) for name, data in self.pictures.items()}, self.processor.image_processor
        )
        self.pixels = pixels
        self.examples = [
            Example(row, None, str(row // args.questions_per_image), str(row // args.questions_per_image),
                    " ".join(draw.choice(WORDS, 8)) + "?", (answers[row % len(answers)],), "what", {})
            for row in range(self.batch_size)
        ]  # fmt: skip
        self.collator = ClassCollator(self.text, pixels)
        self.lora = wrap(self.loaded, LoraArguments(), seed=0)
        self.trained = [parameter for parameter in self.loaded.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)
        self.loss_of = ClassLoss()

    def _step(self, loss: torch.Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def plain_inputs(self) -> dict[str, torch.Tensor]:
        """As a data set that opens a picture for every row gives them."""
        pictures = [open_image(self.pictures[example.digest]) for example in self.examples]
        questions = [example.question for example in self.examples]
        batch = self.processor(images=pictures, text=questions, padding=True, return_tensors="pt")
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def reference_step(self) -> None:
        labels = self.text.targets([example.answers for example in self.examples]).to(self.device)
        outputs = ViltForQuestionAnswering.forward(self.base, **self.plain_inputs(), labels=labels.to(self.dtype))
        self._step(outputs.loss)

    def our_step(self) -> None:
        batch = self.collator([(example, example.answer) for example in self.examples])
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        self._step(self.loss_of(self.loaded.model(**batch), labels))

    @torch.no_grad()
    def reference_answers(self) -> None:
        ViltForQuestionAnswering.forward(self.base, **self.plain_inputs()).logits.argmax(-1)

    def our_answers(self) -> None:
        requests = [AnswerRequest(self.text)] * len(self.examples)
        list(answer_by_batch(self.loaded, self.pixels, self.examples, requests, batch_size=self.batch_size))

    def as_upstream(self) -> None:
        """PEFT's own layers, and upstream's patch embeddings."""
        for module in self.loaded.model.modules():
            module.__dict__.pop("forward", None)
        self.patches = self.base.vilt.embeddings.__dict__.pop("visual_embed", None) or self.patches

    def as_ours(self) -> None:
        self.base.vilt.embeddings.visual_embed = self.patches
        fuse(self.loaded.model)


def _jpeg(draw: np.random.Generator, number: int) -> bytes:
    size = (480, 640, 3) if number % 2 else (640, 480, 3)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(size[1::-1], Image.BICUBIC)
    file = io.BytesIO()
    coarse.save(file, "JPEG", quality=90)
    return file.getvalue()


def _tokenizer() -> BertTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?"]
    return BertTokenizerFast(vocab={word: place for place, word in enumerate([*special, *dict.fromkeys(WORDS)])})


def measure(args, device: torch.device) -> dict:
    """All figures of the JSON file; times in seconds a question, memory in bytes."""
    work = Work(args, getattr(torch, args.dtype), device)
    given = {
        name: getattr(args, name) for name in ("shape", "images", "questions_per_image", "answers", "dtype", "repeats")
    }
    result = {**given, "command": f"python {' '.join(sys.argv)}", "timing": "fastest of the repeats"}
    result |= circumstances(device) | {"trainable_parameters": work.lora.trainable}
    work.loaded.model.train()
    result["training"] = _compare(work, work.reference_step, work.our_step, args.repeats, device)
    if args.profile:
        print_profile(work.our_step, device)
    work.as_upstream()
    work.loaded.model.eval()
    reference = [seconds(work.reference_answers, device) for _ in range(args.repeats + 1)][1:]
    work.as_ours()
    work.loaded.model = work.loaded.model.merge_and_unload()
    ours = [seconds(work.our_answers, device) for _ in range(args.repeats + 1)][1:]
    result["answering"] = _figures(min(reference), min(ours), work.batch_size)
    return result


def _compare(work: Work, reference, ours, repeats: int, device: torch.device) -> dict:
    times: list[tuple[float, float]] = []
    for _ in range(repeats + 1):
        work.as_upstream()
        plain = seconds(reference, device)
        work.as_ours()
        times.append((plain, seconds(ours, device)))
    figures = _figures(*(min(taken) for taken in zip(*times[1:], strict=True)), work.batch_size)
    work.as_upstream()
    free_unused()
    peaks = {"reference": peak_bytes(reference, device)}
    work.as_ours()
    free_unused()
    return figures | {"peak_memory_bytes": peaks | {"ours": peak_bytes(ours, device)}}


def _figures(reference: float, ours: float, questions: int) -> dict:
    return {
        "reference_seconds_per_question": reference / questions,
        "seconds_per_question": ours / questions,
        "speedup": reference / ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SIZES, default="vilt-b32")
    parser.add_argument("--images", type=int, default=4, help="distinct pictures in a batch")
    parser.add_argument("--questions_per_image", type=int, default=4)
    parser.add_argument("--answers", type=int, default=100, help="outputs of the head")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where the time of our step goes")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    result = measure(args, find_device())
    for name in ("training", "answering"):
        figures = result[name]
        plain, ours = figures["reference_seconds_per_question"], figures["seconds_per_question"]
        print(f"{name}: {plain:.4f} s a question the plain way, {ours:.4f} s ours: {figures['speedup']:.2f} × faster")
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

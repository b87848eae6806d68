"""One training step the plain way and this project's way, at a model's real dimensions, with random weights.

    python benchmarks/training.py --shape blip2-opt-2.7b --questions_per_image 4 --output training.json
    python benchmarks/training.py --shape tiny --output /tmp/tiny.json       # a few seconds

Reference: the step of a `Trainer` with PEFT, by upstream's own forward: one row a question, ViT and Q-Former run for
every row, logits at every position, upstream's loss. Ours: features of the images computed before, the questions of an
image in one row (causal models), logits where an answer is predicted. Both train the same adapter with Trainer's
defaults (AdamW fused, gradients clipped to 1) on the same questions. The floor: nothing but our step's matrix products,
with the model's own weights; attention counts as its dense products. Times are the fastest of `--repeats`, after one
step to warm up, with the ways taking turns. No download.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from blip2vqa.adapters.fused_lora import fuse
from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.config.finetune import FinetuneArguments
from blip2vqa.models.attention import suit_training
from blip2vqa.models.families import family_of
from blip2vqa.models.family import leave_out
from blip2vqa.models.loading import LoadedModel, find_device
from blip2vqa.training.collators import AnswerLoss, TrainingCollator
from measuring import (
    MatrixProducts,
    circumstances,
    free_unused,
    matmul_rate,
    options,
    peak_bytes,
    print_profile,
    print_times,
    seconds,
)
from shapes import RandomTokens, build, configuration, questions_about, text_encoder, tiny_like

CPU = torch.device("cpu")
MAX_GRADIENT_NORM = 1.0  # Trainer's default
IMAGES_TOGETHER = 16
"""Images that the towers encode at once."""
TIMES = ("reference_seconds_per_question", "seconds_per_question", "gemm_floor_seconds_per_question")


@dataclass(frozen=True)
class Features:
    """Features of images `0`, `1`, …, as the collator asks for them."""

    values: torch.Tensor
    name: str

    def of(self, digests) -> torch.Tensor:
        """[n, …]."""
        return self.values[[int(digest) for digest in digests]]


def collating(config, args, images: int) -> tuple:
    """Questions about so many images, their answers, what encodes them, and what makes our batch of the images' features."""
    family, questions = family_of(config), questions_about(images, args.questions_per_image)
    answers = [f"answer {question.question}" for question in questions]
    text = text_encoder(config, RandomTokens(args.prompt_tokens, args.answer_tokens))
    stage, _ = family.last_frozen_stage(("language_model",))
    rows = FinetuneArguments.tokens_per_row if text.shares_image else None

    def collate(encoded: torch.Tensor) -> dict[str, torch.Tensor]:
        collator = TrainingCollator(text, Features(encoded, stage), rows)
        return collator(list(zip(questions, answers, strict=True)))

    return questions, answers, text, collate


class Work:
    """One model with an adapter, and one batch of questions about random images, for both ways."""

    def __init__(self, shape: str, args, dtype: torch.dtype, device: torch.device, spread: float = 0.02):
        self.config, self.args, self.device = configuration(shape), args, device
        self.family = family_of(self.config)
        base = build(self.config, dtype, device, spread)
        self.loaded = LoadedModel(base, None, self.family, shape, None, device, dtype, "none", [])
        self.take(args.images)
        self.encode_seconds = min(seconds(self.encode, device) for _ in range(args.repeats))

        self.dropouts = [
            (module, name, getattr(module, name))
            for module in base.modules()
            for name in ("p", "dropout")  # of a dropout layer, or of a layer that calls the function
            if isinstance(getattr(module, name, None), float)
        ]
        self.lora = wrap(self.loaded, LoraArguments(), seed=0)
        self.trained = [parameter for parameter in self.loaded.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)
        self.loss_of = AnswerLoss()

    def take(self, images: int, towers: bool = True) -> None:
        """Make the batch one of questions about so many images; without `towers` for our way alone, its features random."""
        args, config, dtype = self.args, self.config, self.loaded.dtype
        questions, answers, text, collate = collating(config, args, images)
        generator = torch.Generator().manual_seed(0)
        if not towers:
            stage, _ = self.family.last_frozen_stage(("language_model",))
            shape = self.family.stage(stage).shape(config)
            self.batch = self._to_device(collate(torch.randn(images, *shape, generator=generator).to(dtype)))
            return
        size = config.vision_config.image_size
        self.pixels = torch.randn(images, 3, size, size, generator=generator).to(self.device, dtype)
        self.batch = self._to_device(collate(self.encode().cpu()))
        plain = text.training_batch([question.question for question in questions], answers)
        plain.pop("decoder_input_ids", None)  # upstream makes them from the labels
        rows = torch.arange(images).repeat_interleave(args.questions_per_image)
        self.plain = self._to_device({**plain, "pixel_values": self.pixels[rows.to(self.device)]})

    def _to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    @torch.no_grad()
    def encode(self) -> torch.Tensor:
        """Features of the distinct images, of the last frozen stage: [images, …]."""
        return torch.cat([self.loaded.base.encode(pixels) for pixels in self.pixels.split(IMAGES_TOGETHER)])

    def train(self) -> None:
        """Training mode, the frozen towers' too: a `Trainer` leaves none out."""
        self.loaded.model.train()

    def reference_loss(self) -> torch.Tensor:
        """Upstream's forward and loss, on one row a question."""
        upstream = type(self.loaded.base).__bases__[-1]
        return upstream.forward(self.loaded.base, **self.plain).loss

    def our_loss(self) -> torch.Tensor:
        """The project's forward and loss, as `VQATrainer` has them computed."""
        inputs = {name: tensor for name, tensor in self.batch.items() if name != "labels"}
        return self.loss_of(self.loaded.model(**inputs), self.batch["labels"])

    def step(self, loss_of) -> None:
        """Trainer's optimizer step on the loss that `loss_of()` returns."""
        loss_of().backward()
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def reference_step(self) -> None:
        self.step(self.reference_loss)

    def our_step(self) -> None:
        self.step(self.our_loss)

    def as_upstream(self) -> None:
        """PEFT's own LoRA layers, and the dropout of the frozen base that its configuration asks for."""
        self.loaded.base.language_model.set_attn_implementation("sdpa")
        for module in self.loaded.model.modules():
            module.__dict__.pop("forward", None)
        for module, name, p in self.dropouts:
            setattr(module, name, p)

    def as_ours(self) -> None:
        """As `load_base` and `wrap` leave a model: fused LoRA, no dropout but its own, on a CPU plain attention."""
        fuse(self.loaded.model)
        suit_training(self.loaded.base.language_model, self.device)
        for module, name, _ in self.dropouts:
            setattr(module, name, 0.0)

    def drop_towers(self) -> None:
        """Forget the frozen towers and the images: our step has their output."""
        stage, _ = self.family.last_frozen_stage(("language_model",))
        leave_out(self.loaded.base, self.family.absent(self.family.rest(stage)))
        self.pixels = self.plain = None
        free_unused()


def exactness(
    shape: str, args, dtype: torch.dtype = torch.float32, device: torch.device = CPU, spread: float = 0.1
) -> dict[str, float]:
    """Our loss and adapter gradients against the reference's, on a tiny model of the same kind, no dropout."""
    work = Work(tiny_like(shape), args, dtype, device, spread)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in work.loaded.model.named_parameters():
        if "lora_B" in name:  # as long as B is 0, A has no gradient
            parameter.data.copy_(torch.empty(parameter.shape).normal_(0.0, spread, generator=generator))
    work.loaded.model.eval()

    def loss_and_gradients(loss_of):
        work.optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.item(), [parameter.grad for parameter in work.trained]

    work.as_upstream()
    expected, wanted = loss_and_gradients(work.reference_loss)
    work.as_ours()
    loss, gradients = loss_and_gradients(work.our_loss)
    largest = max(gradient.abs().max().item() for gradient in wanted)
    apart = max((one - other).abs().max().item() for one, other in zip(gradients, wanted, strict=True))
    difference, whole = (
        torch.cat([gradient.flatten() for gradient in found]).norm().item()
        for found in ([one - other for one, other in zip(gradients, wanted, strict=True)], wanted)
    )
    norms = {"gradient_norm_difference": difference / whole}
    return {"gradient_difference": apart / largest, **norms, "loss_difference": abs(loss - expected)}


def measure(args, device: torch.device) -> dict:
    """All figures of the JSON file; times in seconds, memory in bytes."""
    dtype, questions = getattr(torch, args.dtype), args.images * args.questions_per_image
    given = {name: getattr(args, name) for name in ("shape", "images", "questions_per_image", "dtype", "repeats")}
    tokens = {"prompt_tokens": args.prompt_tokens, "answer_tokens": args.answer_tokens}
    result = {**given, "questions": questions, **tokens, "command": f"python {' '.join(sys.argv)}"}
    result |= {"timing": "fastest of the repeats"} | circumstances(device) | exactness(args.shape, args)

    work = Work(args.shape, args, dtype, device)
    work.train()
    result["trainable_parameters"] = work.lora.trainable
    result["encode_seconds_per_image"] = work.encode_seconds / args.images
    products = MatrixProducts(work.loaded.model)
    work.as_ours()
    with FlopCounterMode(display=False) as counter, products:
        work.our_step()
    ways = (work.as_upstream, work.reference_step), (work.as_ours, work.our_step), (None, products.run)

    def turn(prepare, way) -> float:
        if prepare:
            prepare()
        return seconds(way, device)

    turn(*ways[0])  # the others have been warm since the products were recorded
    turn(*ways[2])
    times = list(zip(*([turn(*way) for way in ways] for _ in range(args.repeats)), strict=True))
    reference, ours, floor = (min(taken) / questions for taken in times)
    result |= dict(zip(TIMES, (reference, ours, floor), strict=True))
    result |= {"speedup": reference / ours, "floor_ratio": ours / floor}
    if device.type == "cuda":
        rate, best = counter.get_total_flops() / min(times[1]), matmul_rate(dtype, device)
        result |= {"questions_per_second": 1 / ours, "tflops_per_second": rate / 1e12, "share_of_matmul": rate / best}

    del products, ways
    work.as_upstream()
    memory = {"reference": peak_bytes(work.reference_step, device)}
    work.drop_towers()
    work.as_ours()
    memory["ours"] = peak_bytes(work.our_step, device)
    result |= {"peak_memory_bytes": memory, "memory_ratio": memory["ours"] / memory["reference"]}
    if args.profile:
        print_profile(work.our_step, device)
    return result


def print_table(result: dict) -> None:
    """The figures for people."""
    memory = result["peak_memory_bytes"]
    taken = (result[name] for name in TIMES)
    print_times(result, zip(("plain", "ours", "floor"), taken, (*memory.values(), None), strict=True))
    print(f"faster {result['speedup']:.2f} ×, memory {result['memory_ratio']:.2f} of its,", end=" ")
    print(f"{result['floor_ratio']:.2f} × the floor; encoding {result['encode_seconds_per_image']:.3g} s an image")
    print(f"largest gradient difference {result['gradient_difference']:.1e} (float32, tiny model)")
    if "tflops_per_second" in result:
        print(f"{result['tflops_per_second']:.0f} TFLOP/s, {result['share_of_matmul']:.0%} of a large matrix product's")


def main() -> None:
    args = options(__doc__).parse_args()
    result = measure(args, find_device())
    print_table(result)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

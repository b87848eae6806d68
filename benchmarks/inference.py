"""Answers to questions the plain ways and this project's way, at a model's real dimensions, with random weights.

    python benchmarks/inference.py --shape blip2-opt-2.7b --questions_per_image 4 --output inference.json
    python benchmarks/inference.py --shape tiny --output /tmp/tiny.json       # a few seconds

Seed: one question at a time by upstream's `generate`, three beams, as scripts for a single picture do it; only
`--seed_questions` of them are timed. Reference: the same `generate` in batches of `--batch_size`, greedy, prompts padded
on the left; ViT and Q-Former run for every question, and PEFT's adapter stands beside the base. Ours: greedy, the adapter
merged, answers in bulk; `first` with the images seen for the first time (encoded, stored, mapped, answered), then with
their features in the store already. Pictures are random pixels: opening and resizing files is left out everywhere. All
ways make `--answer_tokens` new tokens, as the end token is one that the vocabulary does not hold. Times are the fastest
of `--repeats`, after one run to warm up, with the ways taking turns. No download.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from torch.nn.utils.rnn import pad_sequence

from blip2vqa.adapters.lora import wrap
from blip2vqa.config.common import LoraArguments
from blip2vqa.features.cache import FeatureStore
from blip2vqa.features.key import FeatureKey
from blip2vqa.inference.generation import answer_by_batch
from blip2vqa.inference.request import AnswerRequest, Decoding
from blip2vqa.models.families import family_of
from blip2vqa.models.family import leave_out
from blip2vqa.models.loading import LoadedModel, find_device, suit_generation
from measuring import circumstances, free_unused, options, peak_bytes, print_profile, print_times, seconds
from shapes import RandomTokens, build, configuration, questions_about, text_encoder, tiny_like

SEED_BEAMS = 3
PROMPT_SPREAD = 4
MOST_ENCODED = 64
"""Images that the towers encode at once at the most, however many questions are answered at once."""
WAYS = ("seed", "reference", "first", "stored")
TIMES = (*(f"{way}_seconds_per_question" for way in WAYS[:3]), "seconds_per_question")


class Work:
    """One model with a random adapter, questions about random images, and the images' features in a store in `folder`."""

    def __init__(self, shape: str, args, dtype: torch.dtype, device: torch.device, folder: str, spread: float = 0.02):
        self.config, self.args, self.device, self.folder = configuration(shape), args, device, folder
        base = build(self.config, dtype, device, spread)
        self.loaded = LoadedModel(base, None, family_of(self.config), shape, None, device, dtype, "none", [])
        self.end_token_id = self.config.text_config.vocab_size  # never comes
        tokenizer = RandomTokens(args.prompt_tokens, args.answer_tokens, PROMPT_SPREAD)
        self.text = text_encoder(self.config, tokenizer, self.end_token_id)
        self.stage, _ = self.loaded.family.last_frozen_stage(("language_model",))
        shape_of = self.loaded.family.stage(self.stage).shape(self.config)
        self.key = FeatureKey(self.stage, "random", {}, dtype, shape_of)
        generator = torch.Generator().manual_seed(0)
        self.take(args.images)

        wrap(self.loaded, LoraArguments(), seed=0, fused=False)
        for name, parameter in self.loaded.model.named_parameters():
            if "lora_B" in name:  # as PEFT makes them, they are 0, and the adapter changes nothing
                values = torch.empty(parameter.shape).normal_(0.0, spread, generator=generator)
                parameter.data.copy_(values)
        self.loaded.model = base.eval()  # PEFT has put its layers into it
        self.hook = None
        self.adapted = [
            (parent, name, layer)
            for parent in base.modules()
            for name, layer in parent.named_children()
            if isinstance(layer, LoraLayer)
        ]

    def take(self, images: int) -> None:
        """Make the questions those about so many images, and store the images' features."""
        generator, size = torch.Generator().manual_seed(0), self.config.vision_config.image_size
        pixels = torch.randn(images, 3, size, size, generator=generator)
        self.pixels = pixels.to(self.device, self.loaded.dtype)
        self.questions = questions_about(images, self.args.questions_per_image)
        self.store = FeatureStore(Path(self.folder) / str(images), self.key)
        self.encode_into(self.store)

    def as_upstream(self) -> None:
        """PEFT's own LoRA layers beside the base's, and nothing done for the head."""
        if self.hook:
            self.hook = self.hook.remove()
        for parent, name, layer in self.adapted:
            layer.__dict__.pop("forward", None)  # of `fuse`
            setattr(parent, name, layer)
            if layer.merged:
                layer.unmerge()  # to within a rounding

    def as_ours(self) -> None:
        """The adapter in the base's own weights, as `load_base` and `merge_adapter` leave a model."""
        self.hook = self.hook or suit_generation(self.loaded.base.language_model)
        for parent, name, layer in self.adapted:
            if not layer.merged:
                layer.merge()
            setattr(parent, name, layer.base_layer)

    @torch.inference_mode()
    def encode_into(self, store: FeatureStore) -> None:
        """Run the towers on every distinct image and store what they make."""
        with store.writer() as writer:
            size = min(self.args.batch_size, MOST_ENCODED)
            for start in range(0, len(self.pixels), size):
                values = self.loaded.base.encode(self.pixels[start : start + size])
                writer.add([str(start + row) for row in range(len(values))], values.cpu())

    def upstream_answers(self, questions, **options) -> list[str]:
        """One batch by upstream's `generate`, `pixel_values` of one image a question."""
        prompts = [torch.tensor(ids) for ids in self.text.prompt_ids([question.question for question in questions])]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        read = {
            name: tensor.to(self.device)
            for name, tensor in self.text.more_inputs([q.question for q in questions]).items()
        }
        output = (
            type(self.loaded.base)
            .__bases__[-1]
            .generate(
                self.loaded.base,
                **read,
                pixel_values=self.pixels[[int(question.digest) for question in questions]],
                input_ids=pad(prompts, padding_value=self.text.tokenizer.pad_token_id).to(self.device),
                attention_mask=pad([torch.ones_like(ids) for ids in prompts]).to(self.device),
                max_new_tokens=self.args.answer_tokens,
                do_sample=False,
                eos_token_id=self.end_token_id,
                pad_token_id=self.text.tokenizer.pad_token_id,
                **options,
            )
        )
        return self.text.tokenizer.batch_decode(output[:, -self.args.answer_tokens :])

    def seed(self) -> list[str]:
        """One question after the other, beams, towers for each."""
        chosen = self.questions[: self.args.seed_questions]
        return [self.upstream_answers([question], num_beams=SEED_BEAMS)[0] for question in chosen]

    def reference(self) -> list[str]:
        """Batches, towers for every question."""
        starts = range(0, len(self.questions), self.args.batch_size)
        batches = (self.questions[start : start + self.args.batch_size] for start in starts)
        return [answer for batch in batches for answer in self.upstream_answers(batch)]

    def first(self) -> list[str]:
        """Ours, from images that nobody has seen."""
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(folder, self.key)
            self.encode_into(store)
            return self.answers(store)

    def stored(self) -> list[str]:
        """Ours, from features that an earlier run left."""
        return self.answers(self.store)

    def answers(self, store: FeatureStore) -> list[str]:
        features = store.open(question.digest for question in self.questions)
        requests = [AnswerRequest(self.text, Decoding(1, self.args.answer_tokens))] * len(self.questions)
        batches = answer_by_batch(self.loaded, features, self.questions, requests, batch_size=self.args.batch_size)
        said = {index: answer.text for batch in batches for index, answer in batch}
        return [said[index] for index in range(len(self.questions))]

    def run(self, way: str) -> tuple[float, list[str]]:
        """Seconds a question of one of `WAYS`, and its answers."""
        self.as_upstream() if way in ("seed", "reference") else self.as_ours()
        said = []
        taken = seconds(lambda: said.extend(getattr(self, way)()), self.device)
        return taken / len(said), said

    def drop_towers(self) -> None:
        """Forget the frozen towers, the images and the merged adapter: answers from stored features need none of them."""
        family = self.loaded.family
        leave_out(self.loaded.base, family.absent(family.rest(self.stage)))
        self.pixels = self.adapted = None
        free_unused()


def exactness(shape: str, args) -> dict[str, object]:
    """Our answers against the reference's, on a tiny float32 model of the same kind."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(tiny_like(shape), args, torch.float32, torch.device("cpu"), folder, spread=0.2)
        expected, first, stored = (work.run(way)[1] for way in WAYS[1:])
    same = sum(len(set(said)) == 1 for said in zip(expected, first, stored, strict=True))
    counts = {"answers_compared": len(expected), "answers_same": same, "answers_distinct": len(set(expected))}
    return {"answers_equal": same == len(expected), **counts}


def measure(args, device: torch.device) -> dict:
    """All figures of the JSON file; times in seconds, memory in bytes."""
    options = ("shape", "images", "questions_per_image", "batch_size", "dtype", "repeats", "seed_questions")
    result = {name: getattr(args, name) for name in (*options, "prompt_tokens", "answer_tokens")}
    result |= {"questions": args.images * args.questions_per_image, "seed_beams": SEED_BEAMS}
    result |= {"prompt_tokens_spread": PROMPT_SPREAD, "command": f"python {' '.join(sys.argv)}"}
    result |= {"timing": "fastest of the repeats"} | circumstances(device) | exactness(args.shape, args)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(args.shape, args, getattr(torch, args.dtype), device, folder)
        said = {way: work.run(way)[1] for way in WAYS}  # also the warm-up
        same = sum(one == other for one, other in zip(said["reference"], said["stored"], strict=True))
        result["same_answers_share"] = same / len(said["reference"])
        taken = [[work.run(way)[0] for way in WAYS] for _ in range(args.repeats)]
        result |= dict(zip(TIMES, map(min, zip(*taken, strict=True)), strict=True))
        seed, reference, first, stored = (result[name] for name in TIMES)
        result |= {"speedup_first": reference / first, "speedup": reference / stored}
        result |= {"speedup_seed_first": seed / first, "speedup_seed": seed / stored}

        work.as_upstream()
        memory = {"reference": peak_bytes(work.reference, device)}
        work.as_ours()
        work.drop_towers()
        memory["ours"] = peak_bytes(work.stored, device)
        result |= {"peak_memory_bytes": memory, "memory_ratio": memory["ours"] / memory["reference"]}
        if args.profile:
            print_profile(work.stored, device)
    return result


def print_table(result: dict) -> None:
    """The figures for people."""
    memory = result["peak_memory_bytes"]
    labels = f"one by one, {SEED_BEAMS} beams", "plain, batched", "ours, new images", "ours, stored"
    held = None, memory["reference"], None, memory["ours"]
    print_times(result, zip(labels, (result[name] for name in TIMES), held, strict=True))
    print(f"new images: {result['speedup_first']:.2f} × as fast as plain,", end=" ")
    print(f"{result['speedup_seed_first']:.2f} × one by one ({result['seed_questions']} questions timed)")
    print(f"stored features: {result['speedup']:.2f} × plain, {result['speedup_seed']:.2f} × one by one;", end=" ")
    print(f"memory {result['memory_ratio']:.2f} of its")
    print(f"{result['answers_same']} of {result['answers_compared']} answers as plain (float32, tiny model),", end=" ")
    print(f"{result['same_answers_share']:.0%} in this run ({result['dtype']}, random weights: near ties)")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batch_size", type=int, default=16, help="questions answered, and images encoded, at once")
    parser.add_argument("--seed_questions", type=int, default=2, help="questions timed one by one")
    args = parser.parse_args()
    result = measure(args, find_device())
    print_table(result)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

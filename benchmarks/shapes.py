"""What the benchmarks share: models of real sizes with random weights, times, peak memory, the floor, and the machine.

No download: a model is built from its configuration. Memory is read from /proc, so on a CPU this takes Linux.
"""

import argparse
import ctypes
import datetime
import gc
import os
import platform
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import peft
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
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
from blip2vqa.utils.memory import peak_memory, reset_peak_memory

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


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given; a CPU has by itself."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long one call takes, in seconds, the work that it left to the device included."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Most bytes held at once during one call, what was held before included: of the card, or of this process."""
    free_unused()
    reset_peak_memory()
    function()
    synchronize(device)
    return peak_memory()


def free_unused() -> None:
    """Give memory that nothing refers to back to the system, also what the allocators keep for later."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    if platform.system() == "Linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # glibc's alone


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int = 8192, repeats: int = 10) -> float:
    """Floating-point operations a second of one large square matrix product: what the device can do at best."""
    one, other = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(one)
    times = [seconds(lambda: torch.mm(one, other, out=out), device) for _ in range(repeats + 1)]
    return 2 * size**3 / min(times[1:])


class MatrixProducts(TorchDispatchMode):
    """Records the matrix products that run inside, forward and backward; `run` repeats them and nothing else.

    Weights are the model's own, so that each is read from memory as in the step; other operands are random numbers of
    the same shape, type and strides, and results go to memory taken before. Attention counts as its matrix products:
    two forward, four backward.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.operands, self.results, self.calls = {}, {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._record(name, *args[:2])
        elif name in ("addmm", "addmm_", "baddbmm"):
            self._record("bmm" if name == "baddbmm" else "mm", *args[1:3])
        elif "scaled_dot_product" in name:
            backward = name.endswith("backward")
            self._record_attention(*args[1:3] if backward else args[:2], backward)
        return func(*args, **(kwargs or {}))

    def _record(self, name: str, one: torch.Tensor, other: torch.Tensor) -> None:
        shape = (*one.shape[:-1], other.shape[-1])
        if (shape, one.dtype) not in self.results:
            self.results[shape, one.dtype] = torch.empty(shape, dtype=one.dtype, device=one.device)
        operands = self._operand(one), self._operand(other)
        self.calls.append((getattr(torch, name), *operands, self.results[shape, one.dtype]))

    def _operand(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() in self.weights:
            return tensor.detach()
        key = tensor.shape, tensor.stride(), tensor.dtype
        if key not in self.operands:
            span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            values = torch.randn(span, dtype=tensor.dtype, device=tensor.device)
            self.operands[key] = values.as_strided(tensor.shape, tensor.stride())
        return self.operands[key]

    def _record_attention(self, query: torch.Tensor, key: torch.Tensor, backward: bool) -> None:
        """`query` [batch, heads, length, size], `key` [batch, heads, seen, size]."""
        number, length, seen, size = query.shape[0] * query.shape[1], query.shape[2], key.shape[2], query.shape[3]
        queries, keys, scores = (query.new_empty(number, *s) for s in ((length, size), (seen, size), (length, seen)))
        if backward:
            self._record("bmm", scores.mT, queries)  # gradient of the values
            self._record("bmm", queries, keys.mT)  # of the probabilities
            self._record("bmm", scores, keys)  # of the queries
            self._record("bmm", scores.mT, queries)  # of the keys
        else:
            self._record("bmm", queries, keys.mT)
            self._record("bmm", scores, keys)

    @torch.no_grad()
    def run(self) -> None:
        for product, one, other, out in self.calls:
            product(one, other, out=out)


def options(description: str) -> argparse.ArgumentParser:
    """What `training.py` and `inference.py` both take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="blip2-opt-2.7b", choices=SHAPES)
    parser.add_argument("--questions_per_image", type=int, default=4)
    parser.add_argument("--images", type=int, default=4, help="distinct images")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way; the fastest counts")
    parser.add_argument("--prompt_tokens", type=int, default=20, help="tokens of a question with its prompt")
    parser.add_argument("--answer_tokens", type=int, default=3, help="tokens of an answer")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--profile", action="store_true", help="also print what takes the time of our way")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    return parser


def print_times(result: dict, rows: Iterable[tuple[str, float, int | None]]) -> None:
    """A table of (way, seconds a question, peak memory in bytes)."""
    table = Table(title=f"{result['shape']}, {result['images']} images × {result['questions_per_image']} questions")
    for column in ("", "seconds a question", "questions a second", "peak memory"):
        table.add_column(column, justify="right" if column else "left")
    for label, taken, held in rows:
        table.add_row(label, f"{taken:.4g}", f"{1 / taken:.4g}", f"{held / 2**30:.2f} GiB" if held else "-")
    Console(highlight=False).print(table)


def profiled(function: Callable[[], object], device: torch.device) -> profile:
    """Torch's profile of one call, the work that it left to the device included."""
    own = {"cuda": [ProfilerActivity.CUDA], "xpu": [ProfilerActivity.XPU]}.get(device.type, [])
    with profile(activities=[ProfilerActivity.CPU, *own]) as found:
        seconds(function, device)
    return found


def profile_table(found: profile, device: torch.device) -> str:
    """The 25 operations that take most, by their own time."""
    order = f"self_{'cpu' if device.type == 'cpu' else 'device'}_time_total"
    return found.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60)


def print_profile(function: Callable[[], object], device: torch.device) -> None:
    """The 25 operations that take most of one call, by their own time."""
    print(profile_table(profiled(function, device), device), flush=True)


def machine(device: torch.device) -> dict[str, object]:
    """The processor, its cores, and the accelerator where one is used."""
    cpuinfo = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    found = {"cpu": name[1] if name else platform.processor(), "cores": os.cpu_count(), "device": str(device)}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def circumstances(device: torch.device) -> dict[str, object]:
    """What a figure must be read with: the machine, threads, versions, and the day."""
    versions = {"python": platform.python_version()}
    versions |= {package.__name__: package.__version__ for package in (torch, transformers, peft)}
    return {
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }

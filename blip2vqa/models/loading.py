"""Base model, processor, quantization → one loaded model, checked before any weight is read."""

import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import bitsandbytes.nn as bnb
import torch
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BitsAndBytesConfig, ProcessorMixin
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from blip2vqa.config.sharding import FSDP, ZERO3
from blip2vqa.models.attention import suit_encoding, suit_training
from blip2vqa.models.families import family_of
from blip2vqa.models.family import LANGUAGE_MODEL, Family
from blip2vqa.models.precision import choose_dtype, choose_quantization, stored_quantization
from blip2vqa.models.sharding import shard
from blip2vqa.models.zero3 import dividing, send_undivided
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.randomness import own_random_state

logger = logging.getLogger(__name__)

_DROPOUTS = {
    "dropout", "attention_dropout", "activation_dropout", "dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob",
}  # fmt: skip


@dataclass
class LoadedModel:
    """A base with its processor, on its device; `model` is a `PeftModel` once an adapter is in place."""

    model: Any
    processor: ProcessorMixin
    family: Family
    base_model_id: str
    revision: str | None
    device: torch.device
    dtype: torch.dtype
    quantization: str
    notes: list[str]
    """What was decided by itself, in words: precision, quantization."""
    adapters: Any = None
    """`adapters.multi.Adapters` in use beside the base, if any."""
    sharded: str | None = None
    """`FSDP` or `ZERO3` where several processes share its weights, which then have to compute in step."""

    @property
    def where(self) -> str:
        """How an adapter names the base."""
        return remembered(self.base_model_id)

    @property
    def base(self):
        """The base itself, without the adapter around it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model


def remembered(base_model_id: str) -> str:
    """Return how an adapter names a base: a Hub id, or an absolute path that holds from any working folder."""
    return str(Path(base_model_id).resolve()) if Path(base_model_id).is_dir() else base_model_id


def find_device(use_cpu: bool = False) -> torch.device:
    """Return the accelerator of this process where there is one, else the CPU."""
    if not use_cpu and torch.accelerator.is_available():
        return torch.device(torch.accelerator.current_accelerator().type, torch.accelerator.current_device_index())
    return torch.device("cpu")


def load_config(base_model_id: str, revision: str | None = None):
    """Load the base's configuration. Raises `InputError` when the base is not to be had, or of no known family."""
    config = reach(AutoConfig.from_pretrained, base_model_id, revision)
    family_of(config)
    return config


def load_processor(base_model_id: str, config, revision: str | None = None) -> ProcessorMixin:
    """Load the processor, with what old Hub copies leave out, and with PIL's image operations on every machine."""
    load = partial(reach, base_model_id=base_model_id, revision=revision)
    # torchvision, where it is installed, resizes a little differently: features would depend on the machine.
    image_processor = load(AutoImageProcessor.from_pretrained, backend="pil")
    tokenizer = load(_load_tokenizer)
    return family_of(config).load_processor(config, image_processor, tokenizer, load)


def _load_tokenizer(base_model_id: str, **options):
    """Load a tokenizer and try it out: some settings of a wrong kind fail only then."""
    tokenizer = AutoTokenizer.from_pretrained(base_model_id, **options)
    tokenizer("a")
    return tokenizer


def reach(load: Callable, base_model_id: str, revision: str | None, **kwargs):
    """Call `load` on a base's files. Raises `InputError` where they are not usable, or not to be had."""
    try:
        return load(base_model_id, revision=revision, **kwargs)
    except (InputError, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # libraries trust a configuration to be well-formed; a panic of tokenizers is no Exception
        if Path(base_model_id).is_dir():
            raise InputError(f"base model {base_model_id}: the folder is not usable: {first_line(error)}") from error
        at = f" at revision {revision}" if revision else ""
        raise InputError(
            f"base model {base_model_id}{at}: no such folder, and not reachable on the Hub ({first_line(error)}); "
            "check the spelling, or download it and give the folder"
        ) from error


def _is_to_be_downloaded(base_model_id: str, revision: str | None) -> bool:
    names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
    found = (try_to_load_from_cache(base_model_id, name, revision=revision) for name in names)
    return not Path(base_model_id).is_dir() and not any(isinstance(path, str) for path in found)


def first_line(error: BaseException) -> str:
    """Shorten an error's message to its first line."""
    if isinstance(error, UnpicklingError):  # torch's own line tells how to run what is in it
        return "a pickle with something other than tensors in it, or damaged; take a copy in safetensors"
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _check_complete(missing: Iterable[str], family: Family, base_model_id: str) -> None:
    """Raise `InputError` for weights that the files lack, which transformers draws at random: such a base answers nonsense."""
    missing = sorted(name for name in missing if not name.startswith(family.trained_whole))
    if missing:
        raise InputError(
            f"base model {base_model_id}: its files lack {len(missing)} of its weights, such as {missing[0]}; name a whole copy"
        )


def _suit_stored(model: nn.Module, dtype: torch.dtype) -> None:
    """Bring what is not quantized of a base that was stored so into one precision (in place): upstream leaves it mixed."""
    fp32 = {*(model._keep_in_fp32_modules or ())} if dtype == torch.float16 else set()
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not fp32 & {*name.split(".")}:
            parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if isinstance(module, bnb.Linear4bit):
            module.compute_dtype = dtype


def remove_dropout(config) -> None:
    """Set every dropout of a base's configuration to 0, in place.

    Dropout is for weights that train, and the adapter has its own. The frozen ones answer alike in training and later, and
    draw no random numbers, which takes a CPU a tenth of the step.
    """
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        for name in _DROPOUTS & vars(part).keys():
            setattr(part, name, 0.0)


def suit_generation(language_model) -> RemovableHandle | None:
    """Make the input of the output head, where there is one, contiguous (by a hook, which is returned).

    `generate` gives the head the last position of every row, a slice of the whole. For that torch multiplies row by row, with
    a copy of the head's matrix for each: at opt-2.7b's size 4 GB for 16 rows, and most of the time of an answer on a CPU.
    """
    head = language_model.get_output_embeddings()
    return head and head.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))


def load_base(
    base_model_id: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    quantization: str = "auto",
    device: torch.device | None = None,
    for_training: bool = False,
    parts: tuple[str, ...] | None = None,
    answers: tuple[str, ...] | None = None,
    sharded: str | None = None,
) -> LoadedModel:
    """Load a base model, frozen and in evaluation mode, onto one device; every process of a launch has to call it.

    `parts` of it alone (None: all): the towers to encode images, or what is left to train and to answer. `for_training`: an
    adapter will be trained. `answers`: what a head with one output for each is to tell apart (None: the base's own).
    `sharded`: by `FSDP` the processes of a machine share the language model's blocks, by `ZERO3` all processes every weight.
    """
    device = device or find_device()
    config = load_config(base_model_id, revision)
    remove_dropout(config)
    family = family_of(config)
    processor = load_processor(base_model_id, config, revision)
    torch_dtype, dtype_note = choose_dtype(dtype, family, device)
    bits, bits_note = "none", "none: the towers stay whole"
    whole = parts is None or LANGUAGE_MODEL in parts
    sharded = sharded if whole else None
    if sharded == ZERO3 and torch_dtype == torch.float16:
        raise InputError(
            f"ZeRO-3: the base is in float16 ({dtype_note}); give --dtype bfloat16 or float32, or use FSDP"
        )
    if sharded:
        bits_note = "none: the base is sharded"
    elif whole:
        bits, bits_note = choose_quantization(quantization, config, torch_dtype, device, parts)
    kwargs, stored = {}, stored_quantization(config)
    if stored or bits != "none":
        # One whole model a process: `device_map="auto"` would spread it over the GPUs of the other processes.
        kwargs["device_map"] = {"": device}
    if not stored and bits != "none":
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=bits == "8bit",
            load_in_4bit=bits == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch_dtype,
            llm_int8_skip_modules=list(family.kept_whole),
        )
    if _is_to_be_downloaded(base_model_id, revision) and not sys.stderr.isatty():  # a terminal shows the Hub's own bars
        logger.warning(
            "base model %s: its weights are downloaded from the Hub first, which may take long", base_model_id
        )
    # Drawn is what the checkpoint does not hold: a head for answers, put on a bare encoder.
    divided = dividing(torch_dtype) if sharded == ZERO3 else nullcontext()
    with own_random_state(device, seed=0), divided:
        model, found = reach(
            family.model_class.from_pretrained,
            base_model_id,
            revision,
            config=config,
            dtype=torch_dtype,
            absent=family.absent(parts),
            output_loading_info=True,
            **kwargs,
        )
        _check_complete(found["missing_keys"], family, base_model_id)
        known = family.set_answers(model, answers)
        if whole:
            family.fit_tokenizer(model, processor.tokenizer)
    if stored:
        _suit_stored(model, torch_dtype)
    elif sharded == ZERO3:
        model = model.to(device)
        send_undivided(model)
    elif sharded == FSDP:
        blocks = shard(model, model.language_model, device)
    elif bits == "none":
        model = model.to(device)
    if bits == "4bit" and for_training:
        # On a CPU the first answer repacks 4-bit weights for inference, and no gradient passes through them any more.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    notes = [f"precision: {dtype_note}", f"quantization: {bits_note}"]
    if known is not None:
        notes.append(f"answer head: {len(answers):,} answers, {known:,} of which the base knew")
    if sharded == ZERO3:
        notes.append("sharding: ZeRO-3, every weight divided among all processes")
    elif sharded:
        notes.append(f"sharding: FSDP, {blocks} blocks divided among the processes of each machine")
    if whole:
        suit_generation(model.language_model)
        if for_training:
            suit_training(model.language_model, device)
    if vision_model := getattr(model, "vision_model", None):
        suit_encoding(vision_model, device, torch_dtype)
    model.requires_grad_(False).eval()
    return LoadedModel(
        model, processor, family, base_model_id, revision, device, torch_dtype, bits, notes, sharded=sharded
    )

"""Base model, processor, quantization and adapter → one loaded model, checked before any weight is read."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub.errors import HFValidationError
from peft import PeftConfig, PeftModel
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BitsAndBytesConfig, Blip2Processor

from blip2vqa.attention import suit_training
from blip2vqa.errors import InputError
from blip2vqa.exchange.manifest import read_manifest
from blip2vqa.families import PARTS, SCOPES, Family, family_of, scope_of_module

logger = logging.getLogger(__name__)

IMAGE_TOKEN = "<image>"
# What stays in 16 or 32 bits: the frozen towers are small beside the language model, and what they see decides the
# answer; bitsandbytes would quantize them all but the output head.
KEPT_WHOLE = ["vision_model", "qformer", "language_projection", "lm_head"]
_DROPOUTS = {
    "dropout", "attention_dropout", "activation_dropout", "dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob",
}  # fmt: skip
BYTES_PER_WEIGHT = {"8bit": 1.0, "4bit": 0.56}  # 4 bits, and a doubly quantized scale for every 64 weights


@dataclass
class LoadedModel:
    """A base with its processor, on its device; `model` is a `PeftModel` once an adapter is in place."""

    model: Any
    processor: Blip2Processor
    family: Family
    base_model_id: str
    revision: str | None
    device: torch.device
    dtype: torch.dtype
    quantization: str
    notes: list[str]
    """What was decided by itself, in words: precision, quantization."""

    @property
    def where(self) -> str:
        """The base as an adapter remembers it: a Hub id, or an absolute path that holds from any working folder."""
        return str(Path(self.base_model_id).resolve()) if Path(self.base_model_id).is_dir() else self.base_model_id

    @property
    def base(self):
        """The `Blip2` itself, also under an adapter."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model


def find_device(use_cpu: bool = False) -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    if not use_cpu and torch.accelerator.is_available():
        return torch.device(torch.accelerator.current_accelerator().type, torch.accelerator.current_device_index())
    return torch.device("cpu")


def load_config(base_model_id: str, revision: str | None = None):
    """The base's configuration. Raises `InputError` when the base is neither there nor reachable, or of no known kind."""
    config = _reach(AutoConfig, base_model_id, revision)
    family_of(config)
    return config


def load_processor(base_model_id: str, config, revision: str | None = None) -> Blip2Processor:
    """The processor, with what old Hub copies leave out, and with PIL's image operations on every machine."""
    # torchvision, where it is installed, resizes a little differently: features would depend on the machine.
    image_processor = _reach(AutoImageProcessor, base_model_id, revision, backend="pil")
    tokenizer = _reach(AutoTokenizer, base_model_id, revision)
    # A tokenizer that already has an `image_token` attribute breaks Blip2Processor, which looks for `.content`.
    if isinstance(getattr(tokenizer, "image_token", None), str):
        del tokenizer.image_token
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=config.num_query_tokens)
    if config.image_token_index is None:
        config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    return processor


def _reach(loader, base_model_id: str, revision: str | None, **kwargs):
    try:
        return loader.from_pretrained(base_model_id, revision=revision, **kwargs)
    except (OSError, ValueError, HFValidationError, SafetensorError) as error:
        if Path(base_model_id).is_dir():
            raise InputError(f"base model {base_model_id}: the folder is not usable: {_first_line(error)}") from error
        at = f" at revision {revision}" if revision else ""
        raise InputError(
            f"base model {base_model_id}{at}: no such folder, and not reachable on the Hub ({_first_line(error)}); "
            "check the spelling, or download it and give the folder"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def choose_dtype(name: str, family: Family, device: torch.device) -> tuple[torch.dtype, str]:
    """`--dtype` → the precision and a note. Raises `InputError` for float16 where it is known to overflow."""
    if name == "float16" and not family.float16:
        raise InputError(f"--dtype float16: {family.name} overflows in it; use bfloat16, or float32")
    if name != "auto":
        return getattr(torch, name), f"{name}, as asked"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bfloat16, which this GPU computes in"
        if family.float16:
            return torch.float16, "float16, since this GPU has no bfloat16"
        return torch.float32, f"float32, since this GPU has no bfloat16 and {family.name} overflows in float16"
    if device.type == "cpu" and not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.float32, "float32, since this CPU does not compute in bfloat16"
    return torch.bfloat16, f"bfloat16, which this {device.type.upper()} computes in"


def choose_quantization(
    name: str, config, dtype: torch.dtype, device: torch.device, parts: tuple[str, ...] = PARTS
) -> tuple[str, str]:
    """`--quantization` → `none`, `8bit` or `4bit`, and a note. `auto` quantizes only what of `parts` would not fit."""
    if name != "auto":
        return name, f"{name}, as asked"
    with torch.device("meta"):
        model = family_of(config).model_class(config, parts)
    total = sum(p.numel() for p in model.parameters())
    quantized = sum(layer.weight.numel() for layer in quantized_layers(model))
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    room = 0.8 * free  # the rest is for activations, the adapter and its optimizer
    width = torch.empty((), dtype=dtype).element_size()
    need = {"none": total * width}
    need |= {bits: (total - quantized) * width + quantized * size for bits, size in BYTES_PER_WEIGHT.items()}
    choice = next((kind for kind in ("none", "8bit", "4bit") if need[kind] <= room), "4bit")
    if choice == "none":
        return choice, f"none: the weights take {need['none'] / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free"
    note = f"{choice}: the weights would take {need['none'] / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
    logger.warning("quantization %s", note)
    return choice, note


def remove_dropout(config) -> None:
    """Set every dropout of a base's configuration to 0, in place.

    Dropout is for weights that train, and the adapter has its own. The frozen ones answer alike in training and later, and
    draw no random numbers, which takes a CPU a tenth of the step.
    """
    for part in (config.vision_config, config.qformer_config, config.text_config):
        for name in _DROPOUTS & vars(part).keys():
            setattr(part, name, 0.0)


def quantized_layers(model) -> list[nn.Linear]:
    """What bitsandbytes would quantize of a base: the language model's linear layers, but those that are kept whole."""
    whole = {*KEPT_WHOLE, *(model._keep_in_fp32_modules or ())}
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [module for name, module in linear if name.startswith("language_model.") and not whole & {*name.split(".")}]


def suit_generation(language_model) -> RemovableHandle:
    """Let the output head see its input in one piece.

    `generate` hands it the last position of every row, a slice of the whole. For that torch multiplies row by row, with a copy
    of the head's matrix for each: at opt-2.7b's size 4 GB for 16 rows, and most of the time that an answer takes on a CPU.
    """
    head = language_model.get_output_embeddings()
    return head.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))


def load_base(
    base_model_id: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    quantization: str = "auto",
    device: torch.device | None = None,
    for_training: bool = False,
    parts: tuple[str, ...] = PARTS,
) -> LoadedModel:
    """Load a base model, frozen and in evaluation mode, onto one device.

    `parts` of it alone, if given: the towers to encode images, or what is left to train and to answer. `for_training`: an
    adapter will be trained.
    """
    device = device or find_device()
    config = load_config(base_model_id, revision)
    remove_dropout(config)
    family = family_of(config)
    processor = load_processor(base_model_id, config, revision)
    torch_dtype, dtype_note = choose_dtype(dtype, family, device)
    bits, bits_note = "none", "none: the towers stay whole"
    if "language_model" in parts:
        bits, bits_note = choose_quantization(quantization, config, torch_dtype, device, parts)
    kwargs = {}
    if bits != "none":
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=bits == "8bit",
            load_in_4bit=bits == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch_dtype,
            llm_int8_skip_modules=KEPT_WHOLE,
        )
        # One whole model a process: `device_map="auto"` would spread it over the GPUs of the other processes.
        kwargs["device_map"] = {"": device}
    model = _reach(family.model_class, base_model_id, revision, config=config, dtype=torch_dtype, parts=parts, **kwargs)
    rows = model.get_input_embeddings().weight.shape[0] if "language_model" in parts else len(processor.tokenizer)
    if len(processor.tokenizer) > rows:  # an old copy whose embeddings have no row to spare for <image>
        model.resize_token_embeddings(len(processor.tokenizer))
    if bits == "none":
        model = model.to(device)
    if bits == "4bit" and for_training:
        # On a CPU the first answer repacks 4-bit weights for inference, and no gradient passes through them any more.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    if "language_model" in parts:
        suit_generation(model.language_model)
        if for_training:
            suit_training(model.language_model, device)
    model.requires_grad_(False).eval()
    notes = [f"precision: {dtype_note}", f"quantization: {bits_note}"]
    return LoadedModel(model, processor, family, base_model_id, revision, device, torch_dtype, bits, notes)


def read_adapter_config(path: str, revision: str | None = None) -> PeftConfig:
    """The PEFT configuration of a local or Hub adapter. Raises `InputError` when it is none, or not reachable."""
    if Path(path).is_dir() and not (Path(path) / "adapter_config.json").is_file():
        raise InputError(f"adapter {path}: the folder holds no adapter_config.json, so it is not an adapter")
    try:
        return PeftConfig.from_pretrained(path, revision=revision)
    except (ValueError, OSError, TypeError, KeyError) as error:
        where = "" if Path(path).is_dir() else "no such folder, and not reachable on the Hub as an adapter: "
        raise InputError(f"adapter {path}: {where}{_first_line(error)}") from error


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as it lies on disk or on the Hub, found to fit its base before the base's weights are read."""

    path: str
    revision: str | None
    config: PeftConfig
    manifest: dict
    """`{}` for an adapter of other tools."""
    base_model_id: str
    base_model_revision: str | None
    digest: str
    """SHA-256 of its weights."""
    scopes: tuple[str, ...]
    """What it is put on."""


def find_adapter(
    path: str, revision: str | None = None, base_model_id: str | None = None, base_model_revision: str | None = None
) -> AdapterFile:
    """Read an adapter's configuration and check its weights against the base's shapes.

    The base is the one given, else the one the adapter remembers. PEFT only warns about weights that fit no module, and
    such an adapter changes nothing; here that is an `InputError`, as is a path that holds no adapter.
    """
    config, manifest = read_adapter_config(path, revision), read_manifest(path, revision)
    remembered = manifest.get("base_model_id") or config.base_model_name_or_path
    if not base_model_id:
        if not remembered:
            raise InputError(f"adapter {path}: does not say what its base model is; name it with --base_model_id")
        base_model_id = remembered
        base_model_revision = base_model_revision or manifest.get("base_model_revision") or config.revision
    elif remembered and remembered not in (base_model_id, str(Path(base_model_id).resolve())):
        logger.warning(
            "adapter %s was made for %s and is put on %s: right only if both hold the same weights",
            path, remembered, base_model_id,
        )  # fmt: skip
    try:
        base_config = load_config(base_model_id, base_model_revision)
    except InputError as error:
        hint = f"adapter {path} asks for it; where the base lies elsewhere, name it with --base_model_id"
        raise InputError(*error.problems, hint) from error
    if not manifest:
        logger.warning("adapter %s has no blip2vqa.json: prompt and decoding are the defaults unless given", path)
    misfit = f"adapter {path}: does not fit base model {base_model_id} (it was made for {remembered})"
    try:
        with torch.device("meta"):
            model = PeftModel(family_of(base_config).model_class(base_config), config)
    except ValueError as error:  # none of its modules is there
        raise InputError(f"{misfit}: {_first_line(error)}") from error
    expected = {key: tensor.shape for key, tensor in get_peft_model_state_dict(model).items()}
    weights = _adapter_weights(path, revision)
    found = {key: tensor.shape for key, tensor in weights.items()}
    missing, foreign = expected.keys() - found.keys(), found.keys() - expected.keys()
    unlike = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    if missing or foreign or unlike:
        raise InputError(
            f"{misfit}: {len(foreign)} of its weights have no place there, {len(missing)} places have no weight, "
            f"{len(unlike)} differ in shape"
        )
    digest = hashlib.sha256(save(dict(sorted(weights.items())))).hexdigest()
    found = {scope_of_module(key.removeprefix("base_model.model.")) for key in weights}
    scopes = tuple(scope for scope in SCOPES if scope in found)
    return AdapterFile(path, revision, config, manifest, base_model_id, base_model_revision, digest, scopes)


def _adapter_weights(path: str, revision: str | None) -> dict[str, torch.Tensor]:
    try:
        return load_peft_weights(path, device="cpu", **({"revision": revision} if revision else {}))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"adapter {path}: its weights are not readable: {_first_line(error)}") from error


def add_adapter(loaded: LoadedModel, adapter: AdapterFile, name: str = "default") -> None:
    """Put an adapter on its loaded base (in place), for inference.

    Into the base's own weights where they are not quantized: the adapter's products then cost nothing.
    """
    adapter.config.inference_mode = True
    loaded.model = PeftModel(loaded.model, adapter.config, adapter_name=name)
    set_peft_model_state_dict(loaded.model, _adapter_weights(adapter.path, adapter.revision), adapter_name=name)
    if loaded.quantization == "none":
        loaded.model = loaded.model.merge_and_unload()
    loaded.model.eval()

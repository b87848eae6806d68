"""Write a base with an adapter merged into its weights, in the Hub's layout: what loads the base loads it, without PEFT."""

import copy
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from peft.utils import set_peft_model_state_dict
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from blip2vqa.adapters.algebra import rank_and_scaling, split_weights
from blip2vqa.adapters.attach import find_adapter, misfit_of
from blip2vqa.adapters.base.checkpoints import Checkpoint, open_checkpoint, write_tensors
from blip2vqa.adapters.files.adapter import PREFIX, Adapter, check_output
from blip2vqa.adapters.files.card import is_hub_id
from blip2vqa.adapters.files.chat_template import CHAT_TEMPLATE, chat_template
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.utils.errors import InputError, file_error, raise_all
from blip2vqa.utils.files import new_folder, write_json_atomic, write_text_atomic
from blip2vqa.utils.progress import show_progress

COPIED = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer*", "vocab*",
    "merges.txt", "spiece.model", "special_tokens_map.json", "added_tokens.json", "chat_template*", "LICENSE*",
)  # fmt: skip
"""Files of a base that are copied, beside its weights."""


@dataclass(frozen=True)
class _Plan:
    """What an adapter changes in a base."""

    adapter: Adapter
    base: Checkpoint
    layers: dict[str, dict[str, torch.Tensor]]
    """Linear layer → the adapter's weights for it, by the end of their keys, such as `lora_A.weight`."""
    whole: dict[str, torch.Tensor]
    """Parameter → the adapter's weight that takes its place."""

    def weight(self, name: str) -> torch.Tensor | None:
        """Compute what a parameter becomes, in its stored precision; None where it stays as it is."""
        layer, _, kind = name.rpartition(".")
        if name in self.whole:
            dtype = self.base.dtype(name) if name in self.base.places else self.base.stored_dtype
            merged = self.whole[name].to(dtype)
        elif kind == "bias" and "lora_B.bias" in self.layers.get(layer, {}):
            stored = self.base.tensor(name)
            added = self.layers[layer]["lora_B.bias"].float() * rank_and_scaling(self.adapter.config, layer)[1]
            merged = (stored.float() + added).to(stored.dtype)
        elif kind == "weight" and layer in self.layers:
            stored = self.base.tensor(name)
            merged = merge_layer(self.adapter, layer, self.layers[layer], stored.float()).to(stored.dtype)
        else:
            return None
        if not merged.isfinite().all():
            raise InputError(
                f"adapter {self.adapter.name}: {name} with it is not finite in {str(merged.dtype).removeprefix('torch.')}; "
                "is it damaged, or made for another base?"
            )
        return merged


def fuse(adapter: str, output: str | Path, base_model_id: str | None = None) -> dict:
    """Write the base with an adapter in its weights; see `fuse_adapter`."""
    opened = open_adapter(adapter)
    if base_model_id:
        find_adapter(adapter, base_model_id=base_model_id)  # says what is wrong with another base
    return fuse_adapter(opened, output, base_model_id)


def fuse_adapter(adapter: Adapter, output: str | Path, base_model_id: str | None = None) -> dict:
    """Write the base with the adapter merged in: the same files, the same precision, a tensor at a time in memory.

    `base_model_id`: None for the one that the adapter remembers. Returns what was done, in JSON's types. Raises `InputError`
    where the adapter does not fit the base, the base is quantized, or `output` exists; the folder is written whole or not at
    all.
    """
    output = Path(output)
    check_output(output)
    own = adapter.base_model_id, adapter.base_model_revision
    where, revision = own if base_model_id is None else (base_model_id, None)
    if not where:
        raise InputError(f"adapter {adapter.name}: does not say what its base model is; name it with --base_model_id")
    base = open_checkpoint(where, revision)
    if base.quantized:
        raise InputError(
            f"base model {where}: is stored in {base.quantized}, where a merged weight would be rounded away; "
            "name the unquantized base with --base_model_id"
        )
    plan = _plan(adapter, base)
    try:
        with new_folder(output) as folder:
            _copy_files(base, folder)
            if plan.whole:
                _name_answers(plan, folder / "config.json")
            if prompt := adapter.manifest.get("prompt"):
                write_text_atomic(folder / CHAT_TEMPLATE, chat_template(prompt))
            size = _write_weights(plan, folder)
            write_text_atomic(folder / "README.md", _card(plan))
    except OSError as error:
        raise file_error(f"--output {output}: cannot be written", error) from error
    return {
        "adapter": adapter.name, "base_model_id": base.base_model_id, "base_model_revision": revision, "output": str(output),
        "layers": len(plan.layers), "whole": sorted(plan.whole), "dtype": str(base.stored_dtype).removeprefix("torch."),
        "files": len(base.files), "bytes": size,
    }  # fmt: skip


def merge_layer(adapter: Adapter, name: str, weights: Mapping[str, torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """Merge an adapter into one linear layer's weight [out, in] in float32, by PEFT itself.

    PEFT's own layer is made at this place of an otherwise empty model: so DoRA, rank patterns, and initialisations that change
    the base's weight (PiSSA, OLoRA) come out right. `weights`: as in `_Plan.layers`.
    """
    *above, last = name.split(".")
    root = module = nn.Module()
    for part in above:
        module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    module.add_module(last, layer)
    config = copy.deepcopy(adapter.config)
    config.target_modules, config.inference_mode, config.bias, config.lora_bias = {name}, True, "none", False
    config.modules_to_save = config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # patterns of other layers' ranks match nothing here
        model = PeftModel(root, config)
    held = {f"{PREFIX}{name}.{end}": tensor for end, tensor in weights.items() if end != "lora_B.bias"}
    set_peft_model_state_dict(model, held)
    return model.merge_and_unload().get_submodule(name).weight.data


def _plan(adapter: Adapter, base: Checkpoint) -> _Plan:
    """Sort an adapter's weights by what they change. Raises `InputError`, with every problem found, where they do not fit."""
    misfit = f"adapter {adapter.name}: does not fit base model {base.base_model_id}"
    layers, whole = split_weights(adapter)
    reason = misfit_of(adapter, partial(base.outline, adapter.answers))
    problems = [f"{misfit}: {reason}"] if reason else []
    ties = base.model.all_tied_weights_keys.items()
    shared = {name for second, first in ties if second not in base.names for name in (second, first)}
    tied = [name for name in (*(f"{layer}.weight" for layer in layers), *whole) if name in shared]
    if tied:
        name = tied[0].removesuffix(".weight")
        problems.append(
            f"{misfit}: {name} shares its weight with the token embeddings or the output head, which would change, too"
        )
    bare = [layer for layer, held in layers.items() if "lora_B.bias" in held and f"{layer}.bias" not in base.names]
    if bare:
        problems.append(f"{misfit}: {bare[0]} has no bias there that the bias of the adapter's could be added to")
    raise_all(problems)
    return _Plan(adapter, base, layers, whole)


def _write_weights(plan: _Plan, folder: Path) -> int:
    """Write the merged weights; return their size in bytes.

    Pickled files become safetensors files, without the second copies of tied parameters.
    """
    base, names = plan.base, {key: name for name, (_, key) in plan.base.places.items()}
    added = {name: tensor for name, tensor in plan.whole.items() if name not in base.places}
    weight_map, size = {}, 0
    total = sum(len(reader.stored) for reader in base.readers)
    with show_progress(total=total, desc="merging", unit="weight", leave=False) as bar:
        for number, reader in enumerate(base.readers, 1):
            stored = {}
            for key, entry in reader.stored.items():
                replaced = plan.whole and base.family and key not in names and key.startswith(base.family.replaced)
                if (reader.pickled and key in base.doubles) or replaced:
                    continue  # a second copy, or a head of the base in whose place the adapter brings another
                whole = plan.whole.get(names.get(key))
                stored[key] = entry if whole is None else whole.to("meta", entry.dtype)
            if number == len(base.readers):
                stored |= {name: tensor.to("meta", base.stored_dtype) for name, tensor in added.items()}

            def read(key: str, reader=reader) -> torch.Tensor:
                bar.update()
                merged = plan.weight(names.get(key, key))
                return reader.read(key) if merged is None else merged

            file = f"model-{number:05}-of-{len(base.readers):05}.safetensors"
            if len(base.readers) == 1:
                file = SAFE_WEIGHTS_NAME
            elif not reader.pickled:
                file = reader.path.name
            write_tensors(folder / file, stored, read)
            weight_map |= dict.fromkeys(stored, file)
            size += sum(tensor.nbytes for tensor in stored.values())
    if len(base.readers) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        write_json_atomic(folder / SAFE_WEIGHTS_INDEX_NAME, index)
    return size


def _copy_files(base: Checkpoint, folder: Path) -> None:
    source, copied = base.folder, [*COPIED, *(base.family.extra_files if base.family else ())]
    if not Path(base.base_model_id).is_dir():
        source = Path(snapshot_download(base.base_model_id, revision=base.revision, allow_patterns=copied))
    for pattern in copied:
        for file in source.glob(pattern):
            if file.is_file():
                target = folder / file.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)


def _name_answers(plan: _Plan, file: Path) -> None:
    """Let the configuration name the answers of the head that the adapter brings."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["architectures"] = [type(plan.base.model).__name__]
    answers = plan.adapter.answers
    if answers:
        config["id2label"] = {str(number): answer for number, answer in enumerate(answers)}
        config["label2id"] = {answer: number for number, answer in enumerate(answers)}
        config.pop("num_labels", None)  # older versions of transformers wrote it, too; it follows from the names
    write_json_atomic(file, config)


def _card(plan: _Plan) -> str:
    """Write README.md: what the model is, and how to ask it."""
    manifest, base = plan.adapter.manifest, plan.base
    where, linked = f"the local base model `{Path(base.base_model_id).name}`", ""
    if is_hub_id(base.base_model_id):
        where = f"[{base.base_model_id}](https://huggingface.co/{base.base_model_id})"
        where += f" at revision `{base.revision}`" if base.revision else ""
        linked = f"base_model: {base.base_model_id}\nbase_model_relation: finetune\n"
    head = any(weight.startswith(base.trained_whole) for weight in plan.whole)
    own = "the adapter's own head" if head else f"{len(plan.whole)} weights of the adapter's in place of the base's"
    name, head = type(base.model).__name__, f", and {own}" if plan.whole else ""
    text = (
        f"---\nlibrary_name: transformers\n{linked}tags:\n- lora\n---\n\n# {name} with a LoRA adapter merged in\n\n"
        f"The weights of {where}, with those of the adapter `{Path(plan.adapter.name).name}` (SHA-256 of its weights: "
        f"`{plan.adapter.digest}`) added to {len(plan.layers)} of its linear layers"
        f"{head}. All other weights are the base's, to the bit. "
        f"It loads as the base does:\n\n```python\nfrom transformers import AutoProcessor, {name}\n\n"
        f'processor = AutoProcessor.from_pretrained("THIS_FOLDER")\nmodel = {name}.from_pretrained("THIS_FOLDER")\n```\n'
    )
    if manifest.get("prompt"):
        text += f"\nIt was trained with this prompt, and is asked with it:\n\n```\n{manifest['prompt']}\n```\n"
    decoding = {"the answer ends with": manifest.get("end_token"), **(manifest.get("decoding") or {})}
    listed = [f"- {key}: `{value!r}`" for key, value in decoding.items() if value is not None]
    if listed:
        text += "\nDecoding:\n\n" + "\n".join(listed) + "\n"
    return text

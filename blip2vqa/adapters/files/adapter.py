"""An adapter's folder: read once it is found to be safe, and written whole or not at all."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from blip2vqa.adapters.validation.manifest_schema import FORMAT
from blip2vqa.adapters.validation.safety import MANIFEST, WEIGHTS, check_folder
from blip2vqa.utils.errors import InputError, file_error
from blip2vqa.utils.files import new_folder, write_json_atomic

PREFIX = "base_model.model."
"""What every key in PEFT's files begins with, before the module's name."""


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, found to be safe to read; which base it fits is another question."""

    name: str
    """What the user calls it: a folder, a Hub id, or a name in the store."""
    folder: Path
    revision: str | None
    """Branch, tag or commit on the Hub, where it came from there."""
    config: LoraConfig
    manifest: dict
    """`{}` for an adapter of other tools."""

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors as stored, under PEFT's keys. Raises `InputError` for a damaged file."""
        try:
            return load_file(self.folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"adapter {self.name}: its weights are not readable: {error}") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return hashlib.sha256(save(dict(sorted(self.weights.items())))).hexdigest()

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Names of the adapted layers, as the base names them."""
        end = ".lora_A.weight"
        return tuple(key.removeprefix(PREFIX).removesuffix(end) for key in self.weights if key.endswith(end))

    def factors(self, module: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A [rank, in] and B [out, rank] of an adapted layer, as stored."""
        return tuple(self.weights[f"{PREFIX}{module}.lora_{side}.weight"] for side in "AB")

    def renamed(self, names: Mapping[str, str]) -> "Adapter":
        """Return the same adapter with its layers renamed, `{name: name in another base}`; its numbers stay as they are."""
        config, weights = copy.deepcopy(self.config), {}
        for key, tensor in self.weights.items():
            module, sign, rest = key.removeprefix(PREFIX).rpartition(".lora_")
            weights[f"{PREFIX}{names[module]}{sign}{rest}" if sign else key] = tensor
        config.target_modules = set(names.values())
        config.layers_to_transform = config.layers_pattern = config.exclude_modules = None  # the names say it all
        for pattern in ("rank_pattern", "alpha_pattern"):
            given = getattr(config, pattern)
            setattr(config, pattern, {names.get(name, name): value for name, value in given.items()})
        made = replace(self, config=config)
        vars(made)["weights"] = weights
        return made

    def forget_weights(self) -> None:
        """Drop the weights from memory; they are read again when they are asked for."""
        vars(self).pop("weights", None)

    @property
    def base_model_id(self) -> str | None:
        """Hub id or folder of the base that it was made for."""
        return self.manifest.get("base_model_id") or self.config.base_model_name_or_path

    @property
    def base_model_revision(self) -> str | None:
        return self.manifest.get("base_model_revision") or self.config.revision

    @property
    def answers(self) -> tuple[str, ...] | None:
        """Answers to choose among; None allows any."""
        return tuple(self.manifest["answers"]) if self.manifest.get("answers") else None


def read_adapter(folder: Path, name: str | None = None, revision: str | None = None) -> Adapter:
    """Open the adapter in a folder, by the name that the user gives it; its weights are read when they are asked for.

    Raises `InputError`, with every problem found, for what is no adapter or not safe to load.
    """
    name = name or str(folder)
    _, manifest, _ = check_folder(folder, name)
    return Adapter(name, folder, revision, LoraConfig.from_pretrained(folder), manifest)


def versions() -> dict[str, str]:
    """Look up the installed versions of the packages that an adapter depends on."""
    return {package: version(package) for package in ("torch", "transformers", "peft", "accelerate", "bitsandbytes")}


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write `manifest` into the adapter's folder, whole or not at all."""
    write_json_atomic(folder / MANIFEST, {"format": FORMAT, **manifest})


def check_output(folder: Path) -> None:
    """Raise `InputError` where a new folder cannot be made: before the work, rather than after it."""
    if folder.exists() or folder.is_symlink():
        raise InputError(f"--output {folder}: is already there; choose another name, or remove it first")
    if not folder.parent.is_dir():
        raise InputError(f"--output {folder}: there is no folder {folder.parent} to put it in; make it first")


def save_adapter(folder: Path, config: LoraConfig, weights: Mapping[str, torch.Tensor], manifest: dict) -> None:
    """Write an adapter, whole or not at all; `weights` under PEFT's keys. Raises `InputError` where `folder` is there."""
    check_output(folder)
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    try:
        with new_folder(folder) as making:
            config.save_pretrained(making)
            save_file(tensors, making / WEIGHTS, {"format": "pt"})
            write_manifest(making, manifest)
    except OSError as error:
        raise file_error(f"--output {folder}: cannot be written", error) from error

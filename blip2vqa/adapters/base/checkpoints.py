"""Read a base's weights from disk tensor by tensor, in bounded memory, under the names that its model has."""

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import bitsandbytes.functional as bnb
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, utils
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key
from transformers.utils.hub import get_checkpoint_shard_files

from blip2vqa.adapters.validation.safe_weights import TYPES
from blip2vqa.features.key import raw_bytes
from blip2vqa.models.families import family_of, language_models
from blip2vqa.models.family import Family
from blip2vqa.models.loading import first_line, reach
from blip2vqa.models.precision import stored_quantization
from blip2vqa.utils.errors import InputError, raise_all

_DTYPES = {name: getattr(torch, kind) for name, (kind, _) in TYPES.items()}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
MAPPED_BYTES = 256 * 2**20
"""Bytes read of a pickled file before it is mapped anew."""


class SafetensorsFile:
    """The tensors of a safetensors file: `stored` has each by its key without content, on `meta`; `read` reads one."""

    pickled = False

    def __init__(self, path: Path):
        self.path = path
        # Of a mapped file every page that was read counts as this process's memory: at the end, all of them.
        self._file = safe_open(path, "pt", backend="pread")
        slices = {key: self._file.get_slice(key) for key in self._file.keys()}
        self.stored = {
            key: torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")
            for key, part in slices.items()
        }

    def read(self, key: str) -> torch.Tensor:
        return self._file.get_tensor(key)


class PickledFile:
    """The tensors of a file of `torch.save`, of which nothing but tensors is unpickled; otherwise as `SafetensorsFile`."""

    pickled = True

    def __init__(self, path: Path):
        self.path = path
        self._map()
        self.stored = {key: tensor.to("meta") for key, tensor in self._tensors.items()}

    def _map(self) -> None:
        self._tensors, self._seen = {}, 0  # the old mapping goes first
        loaded = torch.load(self.path, map_location="cpu", weights_only=True, mmap=is_zipfile(self.path))
        self._tensors = {
            key: tensor for key, tensor in loaded.items() if isinstance(key, str) and isinstance(tensor, torch.Tensor)
        }

    def read(self, key: str) -> torch.Tensor:
        if self._seen > MAPPED_BYTES:
            self._map()
        tensor = self._tensors[key].clone(memory_format=torch.contiguous_format)
        self._seen += tensor.nbytes
        return tensor


@dataclass(frozen=True)
class Checkpoint:
    """A base's weights in their files; none of them is in memory yet."""

    base_model_id: str
    revision: str | None
    config: Any
    family: Family | None
    """None for a language model alone."""
    model: nn.Module
    """The model of transformers, without content, on the device `meta`."""
    readers: tuple[SafetensorsFile | PickledFile, ...]
    """One reader for each file."""
    places: dict[str, tuple[SafetensorsFile | PickledFile, str]]
    """Parameter of the model, in the model's order and once where some are tied → (file, key in the file)."""
    doubles: frozenset[str]
    """Keys of tied parameters' second copies."""
    quantized: str | None
    """How bitsandbytes stored it: `4bit`, `8bit`, or None."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(reader.path for reader in self.readers)

    @property
    def folder(self) -> Path:
        """Folder of the files; in the Hub's cache, that of one revision."""
        return self.files[0].parent

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's parameters that the files hold."""
        return tuple(self.places)

    @property
    def language_model(self) -> str | None:
        """How the names of its language model begin; None where the text layers are none that stands alone."""
        return "" if self.family is None else self.family.language_prefix

    @property
    def trained_whole(self) -> tuple[str, ...]:
        """Modules that a run may put in place of the base's own, which need not have them."""
        return () if self.family is None else self.family.trained_whole

    def outline(self, answers: tuple[str, ...] | None = None) -> nn.Module:
        """Build the model without contents, its head (if it has one) for `answers`."""
        return self.family.outline(self.config, answers=answers) if self.family else copy.deepcopy(self.model)

    @cached_property
    def stored_dtype(self) -> torch.dtype:
        """Data type of most of the numbers; in a quantized checkpoint, of most of those that are not quantized."""
        sizes = Counter()
        for reader, key in self.places.values():
            stored = reader.stored[key]
            if stored.dtype.is_floating_point:
                sizes[stored.dtype] += stored.numel()
        return sizes.most_common(1)[0][0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape as the model has it, also where it is stored in 4 bits."""
        return tuple(self.model.get_parameter(name).shape)

    def dtype(self, name: str) -> torch.dtype:
        """Return the data type of what `tensor` returns."""
        reader, key = self.places[name]
        dtype = reader.stored[key].dtype
        return dtype if dtype.is_floating_point else torch.float32

    def tensor(self, name: str) -> torch.Tensor:
        """Read a parameter as it is stored; a quantized one in float32."""
        reader, key = self.places[name]
        weight = reader.read(key)
        if weight.is_floating_point():
            return weight
        # As the layers of bitsandbytes do: 8 bits have a scale for each row, 4 bits one for each block.
        where = {stored: reader for reader in self.readers for stored in reader.stored}
        if weight.dtype == torch.int8:
            scales = f"{key.removesuffix('weight')}SCB"
            return bnb.int8_vectorwise_dequant(weight, where[scales].read(scales).float())
        beside = {k.removeprefix(f"{key}."): where[k].read(k) for k in where if k.startswith(f"{key}.")}
        state = bnb.QuantState.from_dict(beside, device=torch.device("cpu"))
        return bnb.dequantize_4bit(weight, state).float()


def open_checkpoint(base_model_id: str, revision: str | None = None) -> Checkpoint:
    """Find a base's weights, in a folder or on the Hub, and which file holds what; keep none of them in memory.

    Parameters have the names that they have after `from_pretrained`, also in files of old layouts. Raises `InputError` for what
    is no base of a known architecture, not reachable, or incomplete.
    """
    base_model_id = str(base_model_id)
    config = reach(AutoConfig.from_pretrained, base_model_id, revision)
    family = None if config.model_type in language_models() else family_of(config)
    files = reach(_weight_files, base_model_id, revision)
    with torch.device("meta"):
        model = upstream_class(config)(config)
    try:
        readers = tuple((SafetensorsFile if f.suffix == ".safetensors" else PickledFile)(f) for f in files)
    except Exception as error:  # unpickling damaged bytes raises whatever it likes
        raise InputError(f"base model {base_model_id}: its weights are not readable: {first_line(error)}") from error
    places, doubles = _places(model, readers)
    quantized = stored_quantization(config)
    if quantized is None and getattr(config, "quantization_config", None):
        raise InputError(
            f"base model {base_model_id}: is quantized in a way that is not read here; name the unquantized base"
        )
    checkpoint = Checkpoint(base_model_id, revision, config, family, model, readers, places, doubles, quantized)
    _check_complete(checkpoint)
    return checkpoint


def upstream_class(config) -> type:
    """Find the class of transformers that a base of this configuration is loaded with; our own where there is none."""
    alone = language_models().get(config.model_type)
    if alone:
        return alone
    ours = family_of(config).model_class
    theirs = (cls for cls in ours.__mro__ if cls.__module__.startswith("transformers.models."))
    return next(theirs, ours)


def write_tensors(path: Path, stored: dict[str, torch.Tensor], read: Callable[[str], torch.Tensor]) -> None:
    """Write a safetensors file with one tensor at a time in memory; the library's own writer takes all at once.

    `stored`: the tensors by their keys, without content. The format is 8 bytes of header length, a header in JSON, then the
    numbers: https://github.com/huggingface/safetensors#format
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for key, entry in stored.items():
        begin, end = end, end + entry.nbytes
        header[key] = {"dtype": _DTYPE_NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, entry in stored.items():
            tensor = read(key)
            if (tensor.dtype, tensor.shape) != (entry.dtype, entry.shape):
                raise ValueError(f"{key}: is {tensor.dtype} {list(tensor.shape)}, not as announced")
            file.write(raw_bytes(tensor))


def _weight_files(base_model_id: str, revision: str | None) -> list[Path]:
    """List the files that `from_pretrained` would read, in its order of preference."""
    for name in (utils.SAFE_WEIGHTS_NAME, utils.SAFE_WEIGHTS_INDEX_NAME, utils.WEIGHTS_NAME, utils.WEIGHTS_INDEX_NAME):
        found = utils.cached_file(base_model_id, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if found and name in (utils.SAFE_WEIGHTS_NAME, utils.WEIGHTS_NAME):
            return [Path(found)]
        if found:
            return [Path(f) for f in get_checkpoint_shard_files(base_model_id, found, revision=revision)[0]]
    raise OSError(f"there is no {utils.SAFE_WEIGHTS_NAME} or {utils.WEIGHTS_NAME} in it, nor an index of their parts")


def _places(model: nn.Module, readers: Iterable) -> tuple[dict, frozenset[str]]:
    """Map each parameter, named as transformers names it, to its (reader, key); also return the keys of second copies."""
    known = model.state_dict()
    renamings = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    found = {}
    for reader in readers:
        for key in reader.stored:
            name, _ = rename_source_key(key, renamings, [], model.base_model_prefix, known)
            if name not in known and key in known:
                name = key
            found.setdefault(name, (reader, key))
    doubles = set()
    # Tied parameters are one only where the files hold one of them, or both alike: FLAN-T5's configuration and class tie
    # a head that has weights of its own. `tie_weights` of transformers decides in the same way.
    for second, first in model.all_tied_weights_keys.items():
        if second in found and first not in found:
            found[first] = found.pop(second)
        elif second in found:
            (reader, key), (other, double) = found[first], found[second]
            if torch.equal(reader.read(key), other.read(double)):
                del found[second]
                doubles.add(double)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if name in found]
    return {name: found[name] for name in names}, frozenset(doubles)


def _check_complete(base: Checkpoint) -> None:
    problems = []
    needed = (name for name, _ in base.model.named_parameters() if not name.startswith(base.trained_whole))
    missing = [name for name in needed if name not in base.places]
    if missing:
        problems.append(
            f"base model {base.base_model_id}: its files lack {len(missing)} of the weights that {type(base.model).__name__} "
            f"has, such as {missing[0]}"
        )
    for name, (reader, key) in base.places.items():
        stored, shape = reader.stored[key], base.shape(name)
        if stored.shape != shape and not (base.quantized and not stored.dtype.is_floating_point):
            problems.append(
                f"base model {base.base_model_id}: {name} is {list(stored.shape)} in its file and {list(shape)} by its "
                "config.json"
            )
    raise_all(problems)

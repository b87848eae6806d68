"""Adapters on disk or on the Hub → found to fit a base before its weights are read, then put on it, one or several."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save

from blip2vqa.errors import InputError
from blip2vqa.exchange.manifest import read_manifest
from blip2vqa.families import SCOPES, Family, family_of
from blip2vqa.loading import LoadedModel, first_line, load_config
from blip2vqa.lora import widen_trained_modules

logger = logging.getLogger(__name__)


def read_adapter_config(path: str, revision: str | None = None) -> PeftConfig:
    """The PEFT configuration of a local or Hub adapter. Raises `InputError` when it is none, or not reachable."""
    if Path(path).is_dir() and not (Path(path) / "adapter_config.json").is_file():
        raise InputError(f"adapter {path}: the folder holds no adapter_config.json, so it is not an adapter")
    try:
        return PeftConfig.from_pretrained(path, revision=revision)
    except (ValueError, OSError, TypeError, KeyError) as error:
        where = "" if Path(path).is_dir() else "no such folder, and not reachable on the Hub as an adapter: "
        raise InputError(f"adapter {path}: {where}{first_line(error)}") from error


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
    parameters: int

    @property
    def answers(self) -> tuple[str, ...] | None:
        """The only ones it gives; None: any."""
        return tuple(self.manifest["answers"]) if self.manifest.get("answers") else None


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
    family, weights = family_of(base_config), _weights(path, revision)
    if family.answers == "classes" and manifest.get("answers"):
        base_config.id2label = dict(enumerate(manifest["answers"]))
    _check_fit(f"adapter {path}: does not fit base model {base_model_id} (it was made for {remembered})",
               family, base_config, config, weights)  # fmt: skip
    digest = hashlib.sha256(save(dict(sorted(weights.items())))).hexdigest()
    found = {family.scope_of(key.removeprefix("base_model.model.")) for key in weights}
    scopes = tuple(scope for scope in SCOPES if scope in found)
    parameters = sum(tensor.numel() for tensor in weights.values())
    return AdapterFile(path, revision, config, manifest, base_model_id, base_model_revision, digest, scopes, parameters)


def _check_fit(misfit: str, family: Family, base_config, config: PeftConfig, weights: dict[str, torch.Tensor]) -> None:
    try:
        with torch.device("meta"):
            model = PeftModel(family.model_class(base_config), config)
    except ValueError as error:  # none of its modules is there
        raise InputError(f"{misfit}: {first_line(error)}") from error
    expected = {key: tensor.shape for key, tensor in get_peft_model_state_dict(model).items()}
    found = {key: tensor.shape for key, tensor in weights.items()}
    missing, foreign = expected.keys() - found.keys(), found.keys() - expected.keys()
    unlike = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    if missing or foreign or unlike:
        raise InputError(
            f"{misfit}: {len(foreign)} of its weights have no place there, {len(missing)} places have no weight, "
            f"{len(unlike)} differ in shape"
        )


def _weights(path: str, revision: str | None) -> dict[str, torch.Tensor]:
    try:
        return load_peft_weights(path, device="cpu", **({"revision": revision} if revision else {}))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"adapter {path}: its weights are not readable: {first_line(error)}") from error


def merge_adapter(loaded: LoadedModel, adapter: AdapterFile) -> None:
    """Put one adapter on its loaded base (in place), for inference.

    Into the base's own weights where they are not quantized: the adapter's products then cost nothing.
    """
    add_adapters(loaded, {"default": adapter})
    if loaded.quantization == "none":
        loaded.model = loaded.model.merge_and_unload()
    loaded.model.eval()


def add_adapters(loaded: LoadedModel, adapters: Mapping[str, AdapterFile]) -> None:
    """Put adapters side by side on their loaded base (in place), for inference, under these names; see `voices.speaking`."""
    classes = loaded.family.answers == "classes"
    head = loaded.base.own_head() if classes else None
    for name, adapter in adapters.items():
        adapter.config.inference_mode = True
        if classes and adapter.answers:  # the next copy of the head is made for them
            loaded.base.answer_with(adapter.answers)
        if isinstance(loaded.model, PeftModel):
            loaded.model.add_adapter(name, adapter.config)
        else:
            loaded.model = PeftModel(loaded.model, adapter.config, adapter_name=name)
        widen_trained_modules(loaded.model)
        set_peft_model_state_dict(loaded.model, _weights(adapter.path, adapter.revision), adapter_name=name)
    if classes:
        loaded.base.set_own_head(head)
    loaded.model.requires_grad_(False).eval()

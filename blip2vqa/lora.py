"""Scopes and roles → modules, wrapping with PEFT, and a summary of what matched."""

import re
from dataclasses import dataclass

from peft import LoraConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import set_seed

from blip2vqa.arguments import CHANGE_THE_BASE, LoraArguments
from blip2vqa.errors import InputError
from blip2vqa.families import Family, parse_roles, parse_scopes
from blip2vqa.fused_lora import fuse
from blip2vqa.loading import LoadedModel


@dataclass(frozen=True)
class LoraSummary:
    """What the adapter covers."""

    modules: dict[str, int]
    """Role → how many modules it matched; 0 where the architecture has no such layer."""
    trainable: int
    total: int

    def lines(self) -> list[tuple[str, str]]:
        """`(label, text)` pairs for the summary block."""
        matched = ", ".join(f"{role} {count}" if count else f"{role} –" for role, count in self.modules.items())
        share = 100 * self.trainable / self.total
        return [
            ("LoRA modules by role", matched),
            ("parameters", f"{self.trainable:,} train of {self.total:,} ({share:.2f} %)"),
        ]


def modules_to_adapt(
    model: nn.Module, family: Family, roles: tuple[str, ...], scopes: tuple[str, ...]
) -> dict[str, list[str]]:
    """What it covers (a role, of another scope than the language model with the scope in front) → names of its linear layers.

    Raises `InputError` when a role that the architecture has matches nothing, or when no role matches at all.
    """
    absent = [scope for scope in scopes if scope not in family.places]
    if absent:
        raise InputError(f"--lora_scope: {family.name} has no {', '.join(absent)}; it has {', '.join(family.places)}")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]  # bitsandbytes' are, too
    found: dict[str, list[str]] = {}
    for scope in scopes:
        here = [name for name in linear if family.scope_of(name) == scope]
        if scope == "projection":
            found["projection"] = here
            continue
        for role in roles:
            ends = family.role_modules[scope].get(role, ())
            label = role if scope == "language_model" else f"{scope} {role}"
            pattern = re.compile(rf"\.(?:{'|'.join(ends)})$")
            found[label] = [name for name in here if ends and pattern.search(name)]
            if ends and not found[label]:
                raise InputError(f"--lora_roles: no layer of the base does {label} (looked for {', '.join(ends)})")
    if not any(found.values()):
        known = ", ".join(dict.fromkeys(role for scope in scopes for role in family.role_modules[scope]))
        raise InputError(f"--lora_roles: {family.name} has no {', '.join(roles)} layers; it has {known}")
    return found


def widen_trained_modules(model: nn.Module) -> None:
    """Put what an adapter holds whole into float32 (in place), as PEFT does with LoRA's own weights.

    In 16 bits most steps of AdamW are too small to change a weight, and in float16 its denominator is 0.
    """
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save.float()


def wrap(loaded: LoadedModel, arguments: LoraArguments, seed: int, fused: bool = True) -> LoraSummary:
    """Put a fresh adapter on the loaded base (in place), drawn from `seed`; only the adapter trains.

    `fused`: see `fused_lora`; a compiler wants PEFT's own code, which it can trace.
    """
    if arguments.init_lora_weights in CHANGE_THE_BASE and loaded.quantization != "none":
        raise InputError(
            f"--init_lora_weights {arguments.init_lora_weights}: changes the base's weights, which {loaded.quantization} ones "
            "do not allow; use default or gaussian, or --quantization none"
        )
    roles, scopes = parse_roles(arguments.lora_roles), parse_scopes(arguments.lora_scope)
    found = modules_to_adapt(loaded.model, loaded.family, roles, scopes)
    # The ViT's q, k and v are one layer.
    names = list(dict.fromkeys(name for named in found.values() for name in named))
    config = LoraConfig(
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=names,
        modules_to_save=list(loaded.family.trained_whole) or None,
        use_rslora=arguments.use_rslora,
        use_dora=arguments.use_dora,
        init_lora_weights=arguments.lora_init(),
        base_model_name_or_path=loaded.where,
        revision=loaded.revision,
    )
    set_seed(seed)
    loaded.model.name_or_path = loaded.where  # PEFT writes this into adapter_config.json, whatever `config` says
    loaded.model = get_peft_model(loaded.model, config)
    widen_trained_modules(loaded.model)
    # PEFT has shortened long lists of names to endings that tell these layers from the others of this model. The whole base
    # has more of them: the ViT's fc1, which is no part of a model that reads features, would be adapted, too.
    loaded.model.peft_config["default"].target_modules = set(names)
    if fused:
        fuse(loaded.model)
    trainable, total = loaded.model.get_nb_trainable_parameters()
    return LoraSummary({role: len(names) for role, names in found.items()}, trainable, total)

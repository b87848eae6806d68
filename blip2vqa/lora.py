"""Roles → modules of the language model, wrapping with PEFT, and a summary of what matched."""

from dataclasses import dataclass

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import set_seed

from blip2vqa.arguments import CHANGE_THE_BASE, LoraArguments
from blip2vqa.errors import InputError
from blip2vqa.families import Family, parse_roles
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


def modules_by_role(model: nn.Module, family: Family, roles: tuple[str, ...]) -> dict[str, list[str]]:
    """Role → full names of the linear layers below `language_model` that do it.

    Raises `InputError` when a role that the architecture has matches nothing, or when no role matches at all.
    """
    found: dict[str, list[str]] = {role: [] for role in roles}
    for name, module in model.named_modules():
        # bitsandbytes' linear layers are subclasses of nn.Linear.
        if "language_model." in name and isinstance(module, nn.Linear):
            suffix = name.rsplit(".", 1)[-1]
            for role in roles:
                if suffix in family.role_modules.get(role, ()):
                    found[role].append(name)
    empty = [role for role in roles if role in family.role_modules and not found[role]]
    if empty:
        expected = ", ".join(name for role in empty for name in family.role_modules[role])
        raise InputError(f"--lora_roles: no layer of the base does {', '.join(empty)} (looked for {expected})")
    if not any(found.values()):
        known = ", ".join(family.role_modules)
        raise InputError(f"--lora_roles: {family.name} has no {', '.join(roles)} layers; it has {known}")
    return found


def wrap(loaded: LoadedModel, arguments: LoraArguments, seed: int) -> LoraSummary:
    """Put a fresh adapter on the loaded base (in place), drawn from `seed`; only the adapter trains."""
    if arguments.init_lora_weights in CHANGE_THE_BASE and loaded.quantization != "none":
        raise InputError(
            f"--init_lora_weights {arguments.init_lora_weights}: changes the base's weights, which {loaded.quantization} ones "
            "do not allow; use default or gaussian, or --quantization none"
        )
    roles = parse_roles(arguments.lora_roles)
    found = modules_by_role(loaded.model, loaded.family, roles)
    config = LoraConfig(
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=[name for names in found.values() for name in names],
        use_rslora=arguments.use_rslora,
        use_dora=arguments.use_dora,
        init_lora_weights=arguments.lora_init(),
        base_model_name_or_path=loaded.where,
        revision=loaded.revision,
    )
    set_seed(seed)
    loaded.model.name_or_path = loaded.where  # PEFT writes this into adapter_config.json, whatever `config` says
    loaded.model = get_peft_model(loaded.model, config)
    trainable, total = loaded.model.get_nb_trainable_parameters()
    return LoraSummary({role: len(names) for role, names in found.items()}, trainable, total)

"""Find the modules of scopes and roles, put a LoRA adapter on them with PEFT, and sum up what matched."""

from collections.abc import Iterable
from dataclasses import dataclass

from peft import LoraConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper, set_peft_model_state_dict
from torch import nn
from transformers import set_seed

from blip2vqa.adapters.fused_lora import fuse
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.keys import PREFIX
from blip2vqa.config.common import CHANGE_THE_BASE, LoraArguments
from blip2vqa.config.roles import parse_roles, parse_scopes
from blip2vqa.config.sharding import ZERO3
from blip2vqa.models.family import Family
from blip2vqa.models.loading import LoadedModel
from blip2vqa.models.places import role_label
from blip2vqa.utils.console import named
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.formatting import percent


@dataclass(frozen=True)
class LoraSummary:
    """What the adapter covers."""

    modules: dict[str, int]
    """Role → how many modules it matched; 0 where the architecture has no such layer."""
    trainable: int
    total: int
    layers: str = ""
    """How many layers are adapted, and whose code computes them."""

    def lines(self) -> list[tuple[str, str]]:
        """Make `(label, text)` pairs for the summary block."""
        matched = ", ".join(f"{role} {count}" if count else f"{role} –" for role, count in self.modules.items())
        share = percent(self.trainable / self.total, 2)
        return [
            ("LoRA modules by role", matched),
            *([("LoRA layers", self.layers)] if self.layers else []),
            ("parameters", f"{self.trainable:,} train of {self.total:,} ({share})"),
        ]


def modules_to_adapt(
    model: nn.Module, family: Family, roles: tuple[str, ...], scopes: tuple[str, ...]
) -> dict[str, list[str]]:
    """Map each role to the names of the linear layers that it matches; roles of other scopes than the language model are
    labelled with their scope, as in "qformer q".

    Raises `InputError` when a role that the architecture has matches nothing, or when no role matches at all.
    """
    absent = [scope for scope in scopes if scope not in family.scopes]
    if absent:
        raise InputError(f"--lora_scope: {family.name} has no {', '.join(absent)}; it has {', '.join(family.scopes)}")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]  # bitsandbytes' are, too
    found: dict[str, list[str]] = {}
    for scope in scopes:
        here = [name for name in linear if family.scope_of(name) == scope]
        known = family.roles(scope)
        if not known:
            found[scope] = here
            continue
        for role in roles:
            label = role_label(scope, role)
            found[label] = [name for name in here if role in family.roles_of(name)]
            if role in known and not found[label]:
                looked_for = ", ".join(known[role])
                raise InputError(f"--lora_roles: no layer of the base does {label} (looked for {looked_for})")
    if not any(found.values()):
        known = ", ".join(dict.fromkeys(role for scope in scopes for role in family.roles(scope)))
        raise InputError(f"--lora_roles: {family.name} has no {', '.join(roles)} layers; it has {known}")
    return found


def widen_trained_modules(model: nn.Module, family: Family) -> None:
    """Convert the modules that an adapter holds whole to float32 (in place), as PEFT does with LoRA's own weights.

    In 16 bits most steps of AdamW are too small to change a weight, and in float16 its denominator is 0. Modules whose input
    the family does not cast stay as they are.
    """
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and name.removeprefix(PREFIX).startswith(family.cast_to):
            module.modules_to_save.float()


def check_start(arguments: LoraArguments, names: Iterable[str]) -> None:
    """Raise `InputError` unless the adapter to start from is one of this rank, scale and kind on just these layers."""
    adapter = open_adapter(arguments.start_from)
    config, said = adapter.config, f"--start_from {arguments.start_from}"
    flags = {"r": "lora_r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "use_dora": "use_dora"}
    problems = [
        f"{said}: has {name} {getattr(config, name)}, not {getattr(arguments, flag)}; give --{flag} {getattr(config, name)}"
        for name, flag in flags.items() if getattr(config, name) != getattr(arguments, flag)
    ]  # fmt: skip
    ranks = {weight.shape[0] for key, weight in adapter.weights.items() if key.endswith(".lora_A.weight")}
    if not problems and ranks != {arguments.lora_r}:
        problems.append(f"{said}: its layers have ranks of their own; {named('exchange')} resize gives them one")
    if arguments.lora_init() is not True:
        problems.append(f"{said}: does not go with --init_lora_weights {arguments.init_lora_weights}")
    missing, more = {*names} - {*adapter.modules}, {*adapter.modules} - {*names}
    if missing or more:
        problems.append(
            f"{said}: {len(missing)} of the layers to adapt are not in it, and it has {len(more)} others; give the "
            f"--lora_roles and --lora_scope that it has, or {named('exchange')} transfer it to this base first"
        )
    raise_all(problems)


def wrap(loaded: LoadedModel, arguments: LoraArguments, seed: int, fused: bool = True) -> LoraSummary:
    """Put a fresh adapter on the loaded base (in place), drawn from `seed`; only the adapter trains.

    `fused`: see `fused_lora`; a compiler wants PEFT's own code, which it can trace. So does ZeRO-3, which gathers the weights
    of a module when it is called: fused, those of A and B are not.
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
    widen_trained_modules(loaded.model, loaded.family)
    # PEFT has shortened long lists of names to endings that tell these layers from the others of this model. The whole base
    # has more of them: the ViT's fc1, which is no part of a model that reads features, would be adapted, too.
    loaded.model.peft_config["default"].target_modules = set(names)
    if arguments.start_from:
        set_peft_model_state_dict(loaded.model, open_adapter(arguments.start_from).weights)
        widen_trained_modules(loaded.model, loaded.family)
    divided = loaded.sharded == ZERO3
    ours = fuse(loaded.model) if fused and not divided else 0
    trainable, total = loaded.model.get_nb_trainable_parameters()
    why = "ZeRO-3 gathers by module" if divided else "DoRA needs them" if fused else "a compiler traces them"
    layers = [f"{ours} fused"] * (ours > 0) + [f"{len(names) - ours} of PEFT's own code: {why}"] * (ours < len(names))
    return LoraSummary({role: len(names) for role, names in found.items()}, trainable, total, ", ".join(layers))

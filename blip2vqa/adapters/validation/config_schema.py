"""An adapter's configuration, as raw JSON, found to say nothing but names and numbers before PEFT reads it.

PEFT takes names of modules as regular expressions, imports what `megatron_core` and `auto_mapping` name, and rebuilds
the model for `layer_replication`. Keys that it does not know it drops with a warning, so they may stay.
"""

import re
import warnings
from operator import not_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from blip2vqa.adapters.validation.schema import (
    PLAIN,
    Line,
    ModuleName,
    Number,
    Place,
    Rank,
    Schema,
    has_to_be,
    problems_of,
    refused,
)
from blip2vqa.utils.strict_json import shown

if TYPE_CHECKING:
    from peft import LoraConfig

MAX_NAMES = 4096
"""In one list; a base has some hundred modules, and PEFT compares every module with every name."""
_RUNS_CODE = ("trust_remote_code", "auto_map", "custom_modules", "_custom_modules")
"""Wherever in the configuration they stand."""
_OTHER_KINDS = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
"""They add something else to a layer than scaling · B·A, with a bias at most."""
_LIBRARY = re.compile(r"(transformers|blip2vqa)\.models(\.[A-Za-z0-9_]+)+")
_WRAPPERS = {
    ("torch._dynamo.eval_frame", "OptimizedModule"),
    ("torch.nn.parallel.distributed", "DistributedDataParallel"),
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"),
    ("deepspeed.runtime.engine", "DeepSpeedEngine"),
}
"""What PEFT notes as the base's class where that was wrapped."""
_SETTING = re.compile(r"(?!(self|cls)$)[A-Za-z_][A-Za-z0-9_]{0,99}")
_INITS = re.compile(r"gaussian|eva|olora|pissa|pissa_niter_[0-9]{1,3}|corda|loftq|orthogonal|lora_ga|mica")


def _are_layers(value: object) -> bool:
    numbers = value if isinstance(value, list) else [] if value is None else [value]
    return all(type(number) is int and 0 <= number < 1 << 31 for number in numbers)


def _is_start(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and _INITS.fullmatch(value) is not None)


def _is_class_of_the_library(value: object) -> bool:
    """Whether it is the note that PEFT itself makes of the base's class."""
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() != {"base_model_class", "parent_library"}:
        return False
    name, library = str(value["base_model_class"]), str(value["parent_library"])
    return (library, name) in _WRAPPERS or bool(
        _LIBRARY.fullmatch(library) and re.fullmatch(r"[A-Za-z0-9_]{1,100}", name)
    )


def _no_pattern(value: object) -> object:
    """Refuse a text in place of a list."""
    if isinstance(value, str):
        text = "is the text {text}, a regular expression to PEFT; write a list of the modules' names"
        raise PydanticCustomError("refused", text, {"text": shown(value)})
    return value


Names = Annotated[list[ModuleName], Field(max_length=MAX_NAMES), BeforeValidator(_no_pattern)]
_IMPORTS = "names code to import; set it to null"


class AdapterConfig(Schema):
    """adapter_config.json of a LoRA adapter."""

    r: Rank
    lora_alpha: Number
    target_modules: Annotated[Names, Field(min_length=1)]
    exclude_modules: Names | None = None
    modules_to_save: Names | None = None
    layers_pattern: Annotated[
        Names | None,
        BeforeValidator(lambda value: [value] if isinstance(value, str) and PLAIN.fullmatch(value) else value),
    ] = None
    rank_pattern: dict[ModuleName, Rank] = Field({}, max_length=MAX_NAMES)
    alpha_pattern: dict[ModuleName, Number] = Field({}, max_length=MAX_NAMES)
    layers_to_transform: Annotated[Any, has_to_be("a list of layers' numbers", _are_layers)] = None
    lora_dropout: Annotated[Number, Field(ge=0, le=1)] = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    lora_bias: bool | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    fan_in_fan_out: bool | None = None
    ensure_weight_tying: bool | None = None
    inference_mode: bool | None = None
    init_lora_weights: Annotated[Any, has_to_be("true, false or one of PEFT's ways", _is_start)] = True
    loftq_config: dict | None = None
    eva_config: dict | None = None
    corda_config: dict | None = None
    lora_ga_config: dict | None = None
    task_type: (
        Literal["SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"] | None
    ) = None
    base_model_name_or_path: Place | None = None
    revision: Line | None = None
    peft_version: Line | None = None
    auto_mapping: Annotated[Any, refused(_IMPORTS, unless=_is_class_of_the_library)] = None
    megatron_config: Annotated[Any, refused(_IMPORTS, unless=not_)] = None
    megatron_core: Annotated[Any, refused(_IMPORTS, unless=lambda value: value in (None, "megatron.core"))] = None
    layer_replication: Annotated[Any, refused("rebuilds the base model, which is not supported", unless=not_)] = None


def check_config(config: object) -> list[str]:
    """Check the JSON value of adapter_config.json; return its problems, one line each. None: PEFT may be handed it."""
    if not isinstance(config, dict):
        return [f"is {shown(config)}, not an object"]
    problems = [f"{shown(key)} is no name of a setting" for key in config if not _SETTING.fullmatch(key)]
    problems += [
        f"{key} asks for code of its own, which is never run" for key in sorted(_true_keys(config, _RUNS_CODE))
    ]
    if config.get("peft_type") != "LORA":
        return [*problems, f"peft_type is {shown(config.get('peft_type'))}; only LORA is supported"]
    # PEFT takes an empty list as none, and stumbles over other empty values; 0 is False to `in`.
    absent = {key for key in _OTHER_KINDS if (value := config.get(key)) is None or value is False or value == []}
    others = [
        f"{key} is a kind of LoRA that is not supported; set it to null" for key in _OTHER_KINDS if key not in absent
    ]
    # A pattern in place of the modules' names is never used: the weights name the modules.
    names = {"target_modules": ["any"]} if is_pattern(config.get("target_modules")) else {}
    return problems + problems_of(AdapterConfig, config | names) + others


def is_pattern(target_modules: object) -> bool:
    """Tell whether the target modules are a regular expression, as PEFT takes every text."""
    return isinstance(target_modules, str) and target_modules.strip() != ""


def peft_config(config: dict) -> "LoraConfig":
    """Make PEFT's configuration of a checked one; keys that PEFT does not know are left out."""
    from peft import LoraConfig  # whose import takes seconds, which a list of adapters has no use for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {key: value for key, value in config.items() if key != "runtime_config"}
        return LoraConfig.from_peft_type(**LoraConfig.check_kwargs(**given))


def check_with_peft(config: dict) -> list[str]:
    """Return what PEFT refuses in a (checked) configuration beyond that, such as settings that do not go together."""
    try:
        peft_config(config)
    except Exception as error:  # whatever it is, PEFT cannot read this configuration
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [f"PEFT does not read it: {reason if reason.isprintable() else shown(reason)}"]
    return []


def _true_keys(value: object, keys: tuple[str, ...]) -> set[str]:
    """Find which of the keys stand, with a value that is not empty, anywhere in a JSON value."""
    if isinstance(value, list):
        return set().union(*(_true_keys(item, keys) for item in value))
    if not isinstance(value, dict):
        return set()
    return {key for key in keys if value.get(key)}.union(*(_true_keys(item, keys) for item in value.values()))

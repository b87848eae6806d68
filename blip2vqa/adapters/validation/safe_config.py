"""An adapter's configuration, as raw JSON, found to say nothing but names and numbers before PEFT reads it.

PEFT takes names of modules as regular expressions, imports what `megatron_core` and `auto_mapping` name, and rebuilds
the model for `layer_replication`. Keys that it does not know it drops with a warning, so they may stay.
"""

import re
import warnings
from collections.abc import Callable

from blip2vqa.utils.strict_json import shown

MAX_RANK = 4096
MAX_NAMES = 4096
"""In one list; a base has some hundred modules, and PEFT compares every module with every name."""
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,512}")
_RUNS_CODE = ("trust_remote_code", "auto_map", "custom_modules", "_custom_modules")
"""Wherever in the configuration they stand."""
_OTHER_KINDS = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
"""They add something else to a layer than scaling · B·A, with a bias at most."""
_LIBRARY = re.compile(r"(transformers|blip2vqa)\.models(\.[A-Za-z0-9_]+)+")
_TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
_INITS = re.compile(r"gaussian|eva|olora|pissa|pissa_niter_[0-9]{1,3}|corda|loftq|orthogonal|lora_ga|mica")


def check_config(config: object) -> list[str]:
    """The problems of the JSON value of adapter_config.json, one line each; none: PEFT may be handed it."""
    if not isinstance(config, dict):
        return [f"is {shown(config)}, not an object"]
    problems = [f"{shown(key)} is no name of a setting" for key in config if not _is_setting(key)]
    problems += [
        f"{key} asks for code of its own, which is never run" for key in sorted(_true_keys(config, _RUNS_CODE))
    ]
    problems += _imports(config)
    if config.get("peft_type") != "LORA":
        return [*problems, f"peft_type is {shown(config.get('peft_type'))}; only LORA is supported"]
    if config.get("layer_replication"):
        problems.append("layer_replication rebuilds the base model, which is not supported")
    problems += [f"{key} is a kind of LoRA that is not supported" for key in _OTHER_KINDS if config.get(key)]
    for key, (fits, wanted) in _SETTINGS.items():
        if key in config and not fits(config[key]):
            problems.append(f"{key} is {shown(config[key])}; it has to be {wanted}")
    for key in ("r", "lora_alpha", "target_modules"):
        if key not in config:
            problems.append(f"{key} is missing")
    for key in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"):
        problems += _names(key, config.get(key), required=key == "target_modules" and key in config)
    problems += _pattern("rank_pattern", config, is_rank, f"a whole number from 1 to {MAX_RANK}")
    problems += _pattern("alpha_pattern", config, is_number, "a number")
    return problems


def check_with_peft(config: dict) -> list[str]:
    """What PEFT refuses in a (checked) configuration beyond that, such as settings that do not go together."""
    from peft import LoraConfig  # whose import takes seconds, which a list of adapters has no use for

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = {key: value for key, value in config.items() if key != "runtime_config"}
            LoraConfig.from_peft_type(**LoraConfig.check_kwargs(**given))
    except Exception as error:  # whatever it is, PEFT cannot read this configuration
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [f"PEFT does not read it: {reason if reason.isprintable() else shown(reason)}"]
    return []


def _is_setting(key: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", key) is not None and key not in ("self", "cls")


def _true_keys(value: object, keys: tuple[str, ...]) -> set[str]:
    if isinstance(value, list):
        return set().union(*(_true_keys(item, keys) for item in value))
    if not isinstance(value, dict):
        return set()
    return {key for key in keys if value.get(key)}.union(*(_true_keys(item, keys) for item in value.values()))


def _imports(config: dict) -> list[str]:
    """PEFT itself notes in `auto_mapping` the class of the base that it was saved from; nothing else may stand there."""
    problems = []
    mapping = config.get("auto_mapping")
    if mapping is not None:
        noted = isinstance(mapping, dict) and mapping.keys() == {"base_model_class", "parent_library"}
        library, name = (str(mapping["parent_library"]), str(mapping["base_model_class"])) if noted else ("", "")
        if not (_LIBRARY.fullmatch(library) and re.fullmatch(r"[A-Za-z0-9_]{1,100}", name)):
            problems.append(f"auto_mapping names code to import, {shown(mapping)}; set it to null")
    if config.get("megatron_config") or config.get("megatron_core") not in (None, "megatron.core"):
        problems.append("megatron_config and megatron_core name code to import; set them to null")
    return problems


def _names(key: str, value: object, required: bool) -> list[str]:
    if isinstance(value, str):
        if key == "layers_pattern" and PLAIN.fullmatch(value):
            return []
        return [f"{key} is the text {shown(value)}, a regular expression to PEFT; write a list of the modules' names"]
    if value is None and not required:
        return []
    if not isinstance(value, list) or (required and not value):
        return [f"{key} is {shown(value)}; it has to be a list of the modules' names"]
    if len(value) > MAX_NAMES:
        return [f"{key} has {len(value)} names; at most {MAX_NAMES} are read"]
    return [f"{key}: {problem}" for problem in map(_name_problem, value) if problem]


def _name_problem(name: object) -> str | None:
    if isinstance(name, str) and PLAIN.fullmatch(name):
        return None
    return f"{shown(name)} is no module's name (letters, digits, '.', '_', '-'; no regular expression)"


def _pattern(key: str, config: dict, fits: Callable[[object], bool], wanted: str) -> list[str]:
    value = config.get(key, {})
    if not isinstance(value, dict) or len(value) > MAX_NAMES:
        return [f"{key} is {shown(value)}; it has to be an object of at most {MAX_NAMES} modules' names"]
    problems = [f"{key}: {problem}" for problem in map(_name_problem, value) if problem]
    return problems + [
        f"{key}: {shown(name)} has {shown(item)}; it has to be {wanted}"
        for name, item in value.items()
        if not fits(item)
    ]


def is_whole(value: object) -> bool:
    """Whether it is a whole number, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_rank(value: object) -> bool:
    """Whether a layer may have that rank."""
    return is_whole(value) and 1 <= value <= MAX_RANK


def is_number(value: object) -> bool:
    """Whether it is a finite number that can be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e9


def is_index(value: object) -> bool:
    """Whether it is a whole number from 0 that fits in 32 bits."""
    return is_whole(value) and 0 <= value < 1 << 31


def is_one_line(value: object) -> bool:
    """Whether a text can stand in a table, or is not there."""
    return value is None or (isinstance(value, str) and value.isprintable() and len(value) <= 4096)


def is_place(value: object) -> bool:
    """Whether a text can be asked for as a folder, on one line and nowhere too long for a file system, or is not there."""
    if value is None or not is_one_line(value):
        return value is None
    return len(value.encode()) < 4096 and all(len(part.encode()) <= 255 for part in value.split("/"))


def one_of(*values: object) -> Callable[[object], bool]:
    """Whether a value is one of these."""
    # Without its type True would be 1.
    return lambda value: any(type(value) is type(known) and value == known for known in values)


Rule = tuple[Callable[[object], bool], str]
"""(whether a value fits, what it has to be)"""
LINE: Rule = (is_one_line, "one line of text or null")
PLACE: Rule = (is_place, "a name or path, on one line, or null")
_FLAG = (one_of(True, False, None), "true or false")
_PART = (lambda value: value is None or isinstance(value, dict), "an object or null")
_SETTINGS: dict[str, Rule] = {
    "r": (is_rank, f"a whole number from 1 to {MAX_RANK}"),
    "lora_alpha": (is_number, "a number"),
    "lora_dropout": (lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "bias": (one_of("none", "all", "lora_only"), "none, all or lora_only"),
    "task_type": (one_of(None, *_TASKS), "one of PEFT's tasks or null"),
    "init_lora_weights": (
        lambda value: isinstance(value, bool) or (isinstance(value, str) and _INITS.fullmatch(value) is not None),
        "true, false or one of PEFT's ways",
    ),
    "layers_to_transform": (
        lambda value: value is None or is_index(value) or (isinstance(value, list) and all(map(is_index, value))),
        "a list of layers' numbers",
    ),
    "base_model_name_or_path": PLACE,
    "revision": LINE,
    "peft_version": LINE,
    **dict.fromkeys(
        ("fan_in_fan_out", "inference_mode", "use_rslora", "use_dora", "lora_bias", "ensure_weight_tying"), _FLAG
    ),
    **dict.fromkeys(("loftq_config", "eva_config", "corda_config", "lora_ga_config"), _PART),
}

"""Adapters that have to be refused: one change each to a good one, with a word of the reason expected."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "blip2vqa.json"


@dataclass(frozen=True)
class Bad:
    """`make` spoils a copy of the good folder in place."""

    make: Callable
    reason: str


class Runs:
    """A pickle of it leaves a file behind when it is read."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def canary_of(folder: Path) -> Path:
    """What appears when code of a malformed adapter is run."""
    return folder.parent / "canary"


# --- Configurations ---------------------------------------------------------------------------------------------------


def setting(key: str, value: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | {key: value}))

    return make


def without(key: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        del config[key]
        (folder / CONFIG).write_text(json.dumps(config))

    return make


def file_of(name: str, content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return make


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


_VALUES = {  # key → (values that are refused, a word of the reason)
    "r": ((0, -1, 4097, 10**30, 4.0, "4", None, True, [4], {}), "r is"),
    "lora_alpha": (("32", None, True, [1], 1e300, -(10**20)), "lora_alpha is"),
    "lora_dropout": ((-0.1, 1.5, "0.1", None, True), "lora_dropout is"),
    "bias": (("some", None, 1, True), "bias is"),
    "use_dora": (("yes", 1, 0, []), "use_dora is"),
    "use_rslora": (("true", 1.0), "use_rslora is"),
    "fan_in_fan_out": (("no",), "fan_in_fan_out is"),
    "inference_mode": ((1,), "inference_mode is"),
    "task_type": (("VQA", 3), "task_type is"),
    "init_lora_weights": (("pissa_niter_many", "../x", 1, None, []), "init_lora_weights is"),
    "layers_to_transform": (("0", [-1], [1.5], [True], {"0": 1}), "layers_to_transform is"),
    "base_model_name_or_path": ((7, "two\nlines", "\x1b[2J", [], "x" * 256), "base_model_name_or_path is"),
    "revision": ((3, "a\rb"), "revision is"),
    "peft_type": (("LOHA", "IA3", "PROMPT_TUNING", "XLORA", "lora", "", None, 1, ["LORA"], "os.system"), "peft_type is"),
    "auto_mapping": (
        (
            {"base_model_class": "Popen", "parent_library": "subprocess"},
            {"base_model_class": "Blip2", "parent_library": "transformers.models.blip_2;os"},
            {"base_model_class": "Blip2", "parent_library": "transformers.models"},
            {"base_model_class": "Blip2", "parent_library": "blip2vqa.modelsx.blip2"},
            {"base_model_class": "a.b", "parent_library": "transformers.models.opt"},
            {"base_model_class": "A", "parent_library": "transformers.models.opt", "AutoModel": "code.Model"},
            {"AutoModel": "modeling.Model"},
            "modeling.Model", [],
        ), "auto_mapping names code",
    ),
    "trust_remote_code": ((True, 1, "yes"), "trust_remote_code asks for code"),
    "auto_map": (({"AutoModel": "modeling.Model"},), "auto_map asks for code"),
    "custom_modules": (({"torch.nn.Linear": "evil.Linear"}, ["evil"]), "custom_modules asks for code"),
    "_custom_modules": (({"a": "b"},), "_custom_modules asks for code"),
    "model_kwargs": (({"deep": [{"trust_remote_code": True}]},), "trust_remote_code asks for code"),
    "megatron_config": (({"tensor_model_parallel_size": 1},), "megatron_config"),
    "megatron_core": (("os", "megatron.core.evil", 5), "megatron_core"),
    "layer_replication": (([[0, 1], [0, 1]],), "layer_replication rebuilds"),
    "arrow_config": (({"top_k": 1}, {}, "", 0, 0.0), "arrow_config is a kind"),
    "kasa_config": (({"a": 1},), "kasa_config is a kind"),
    "trainable_token_indices": (([1, 2], 0.0, "", {}, 0), "trainable_token_indices is a kind"),
    "target_parameters": ((["a.b"], ".*"), "target_parameters is a kind"),
    "use_qalora": ((True,), "use_qalora is a kind"),
    "lora_bias": (("yes", 1), "lora_bias is"),
    "eva_config": (("x",), "eva_config is"),
    "loftq_config": (([1],), "loftq_config is"),
    "target_modules": (
        ("", " ", None, [], {}, {"q_proj": 1}, 3, True, [".*q_proj"], ["q proj"],
         ["(a+)+$"], ["q_proj", 5], [""], ["a/b"], ["a\n"], [None], ["ü"], ["x" * 600], [["q_proj"]]),
        "target_modules",
    ),
    "exclude_modules": ((".*vision.*", ["[a]"], {"a": 1}), "exclude_modules"),
    "modules_to_save": (("classifier", ["clas.*"], [1], {"classifier": 1}), "modules_to_save"),
    "layers_pattern": (("h|x", ["^layers"], 4), "layers_pattern"),
    "rank_pattern": (
        ({".*": 4}, {"^a": 4}, {"q_proj": 0}, {"q_proj": -3}, {"q_proj": 5000}, {"q_proj": "4"}, {"q_proj": True},
         {"q_proj": None}, {"": 4}, [], None, "q_proj"),
        "rank_pattern",
    ),
    "alpha_pattern": (({"(a|b)": 4}, {"q_proj": "x"}, {"q_proj": None}, [], None), "alpha_pattern"),
    "self": ((1,), "is no name of a setting"),
    "cls": ((1,), "is no name of a setting"),
    "import os": ((1,), "is no name of a setting"),
}  # fmt: skip


def _bad_configs() -> dict[str, Bad]:
    found = {
        f"config-{key}-{number}": Bad(setting(key, value), reason)
        for key, (values, reason) in _VALUES.items()
        for number, value in enumerate(values)
    }
    texts = {
        "empty": (b"", "JSON"), "blank": (b"  \n", "JSON"), "word": (b"adapter", "JSON"), "half": (b'{"r": 4,', "JSON"),
        "array": (b"[]", "not an object"), "text": (b'"LORA"', "not an object"), "null": (b"null", "not an object"),
        "number": (b"4", "not an object"), "html": (b"<html><body>Not Found</body></html>", "JSON"),
        "two": (b"{}{}", "JSON"), "python": (b"{'r': 4}", "JSON"), "latin": (b'{"r": "\xe9"}', "UTF-8"),
        "utf16": ('{"r": 4}'.encode("utf-16"), "UTF-8"), "bom": (b"\xef\xbb\xbf{}", "JSON"), "zeros": (bytes(100), "JSON"),
        "deep": (b'{"r":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        "nested": (b'{"r":' + b"[" * 40 + b"]" * 40 + b"}", "nested too deeply"),
        "objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        "nan": (b'{"peft_type": "LORA", "r": NaN}', "NaN"), "infinity": (b'{"r": -Infinity}', "Infinity"),
        "large": (b'{"lora_alpha": 1e999}', "too large"), "digits": (b'{"r": ' + b"9" * 5000 + b"}", "JSON"),
        "twice": (b'{"peft_type": "LORA", "r": 4, "r": 8}', "twice"), "surrogate": (b'{"r": "\\ud800"}', "Unicode"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "JSON"),
        "oversize": (b'{"r": 4}' + b" " * (4 << 20), "at most"),
    }  # fmt: skip
    found |= {f"config-{name}": Bad(file_of(CONFIG, text), reason) for name, (text, reason) in texts.items()}
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        found[f"config-without-{key}"] = Bad(without(key), key)
    found["config-layers-of-no-number"] = Bad(setting("layers_pattern", "layers"), "PEFT does not read it")
    return found


# --- Folders ----------------------------------------------------------------------------------------------------------


def pickled(name: str, keep: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(Runs(canary_of(folder))))
        if not keep:
            (folder / WEIGHTS).unlink()

    return make


def link(name: str, target: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(str(target(folder)))

    return make


def _outside(name: str) -> Callable[[Path], None]:
    """The file itself is good, but lies elsewhere."""

    def make(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / f"outside-{name}")
        (folder / name).symlink_to(folder.parent / f"outside-{name}")

    return make


def _other(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: ((folder / name).unlink(missing_ok=True), make(folder / name))


def _bad_folders() -> dict[str, Bad]:
    found = {f"pickle-{end}": Bad(pickled(f"adapter_model.{end}", keep=False), "--convert_pickle")
             for end in ("bin", "pt", "pth", "pkl", "pickle", "ckpt")}  # fmt: skip
    found |= {
        f"pickle-beside-{end}": Bad(pickled(f"adapter_model.{end}", keep=True), "remove it") for end in ("bin", "pt")
    }
    python = (
        "modeling.py",
        "x.PY",
        "code/run.py",
        "a/x.pyc",
        "m.so",
        "m.pyd",
        ".hidden/x.py",
        "checkpoints/x.py",
        "x.pyw",
    )
    found |= {f"python-{number}": Bad(file_of(name, b"import os"), "Python file") for number, name in enumerate(python)}
    manifests = {
        "broken": (b'{"format": 1', "JSON"), "array": (b"[1]", "not an object"), "format": (b'{"format": 2}', "format"),
        "formless": (b"{}", "format"), "answers": (b'{"format": 1, "answers": "yes"}', "answers"),
        "answer": (b'{"format": 1, "answers": [1]}', "answers"),
        "base": (b'{"format": 1, "base_model_id": 3}', "base_model_id"),
        "lines": (b'{"format": 1, "task": "a\\nb"}', "task"),
        "twice": (b'{"format": 1, "format": 1}', "twice"), "latin": (b"\xff\xfe", "UTF-8"),
        "oversize": (b" " * ((4 << 20) + 1), "at most"),
    }  # fmt: skip
    found |= {f"manifest-{name}": Bad(file_of(MANIFEST, text), reason) for name, (text, reason) in manifests.items()}
    return found | {
        "metrics-broken": Bad(file_of("metrics.json", b"{"), "JSON"),
        "readme-oversize": Bad(file_of("README.md", b" " * ((4 << 20) + 1)), "at most"),
        "no-config": Bad(lambda folder: (folder / CONFIG).unlink(), "no adapter_config.json"),
        "no-weights": Bad(lambda folder: (folder / WEIGHTS).unlink(), "no adapter_model.safetensors"),
        "nothing": Bad(lambda folder: [file.unlink() for file in folder.iterdir()], "no adapter_config.json"),
        "config-folder": Bad(_other(CONFIG, Path.mkdir), "no file"),
        "weights-folder": Bad(_other(WEIGHTS, Path.mkdir), "no file"),
        "config-pipe": Bad(_other(CONFIG, os.mkfifo), "no file"),
        "weights-pipe": Bad(_other(WEIGHTS, os.mkfifo), "no file"),
        "manifest-pipe": Bad(_other(MANIFEST, os.mkfifo), "no file"),
        "link-config": Bad(_outside(CONFIG), "leads out"),
        "link-weights": Bad(_outside(WEIGHTS), "leads out"),
        "link-readme": Bad(link("README.md", lambda folder: "/etc/passwd"), "leads out"),
        "link-relative": Bad(link("README.md", lambda folder: "../../../../../../etc/passwd"), "leads out"),
        "link-folder": Bad(link("data", lambda folder: folder.parent), "leads out"),
        "link-device": Bad(link(WEIGHTS, lambda folder: "/dev/zero"), "leads out"),
        "link-broken": Bad(link(WEIGHTS, lambda folder: folder / "nowhere"), "no file"),
        "link-itself": Bad(link(WEIGHTS, lambda folder: WEIGHTS), "no file"),
        "link-blobs": Bad(link("README.md", lambda folder: "../../blobs/x"), "leads out"),
    }  # fmt: skip


CONFIGS, FOLDERS = _bad_configs(), _bad_folders()
"""Name → what is wrong. The first spoil a file that an archive can hold as well."""

"""exchange.py as a user runs it: an adapter's way through every command, exit codes, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from blip2vqa.adapters.base.fingerprints import fingerprint_base
from helpers.family_bases import random_adapter
from helpers.launching import run_script
from helpers.malformed_adapters import CONFIGS, FOLDERS, canary_of
from helpers.malformed_archives import ARCHIVES
from helpers.malformed_weights import TENSORS
from helpers.paths import ROOT
from helpers.tiny_blip2 import make_base

# Stands still in the middle of copying an adapter.
SLOW = """
import shutil, signal, sys, time
import exchange
from blip2vqa.utils.console import run_script

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are started without
copy = shutil.copyfile
def slow(source, target):
    copy(source, target)
    print("copied", flush=True)
    time.sleep(60)
shutil.copyfile = slow
run_script(exchange.main)
"""
Done = namedtuple("Done", ("code", "out", "err"))


def environment(store: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "BLIP2VQA_STORE": str(store), "COLUMNS": "120"}


def run(store: Path, *argv: object) -> Done:
    """One command, in a process of its own."""
    done = run_script("exchange.py", *argv, BLIP2VQA_STORE=str(store))
    return Done(done.returncode, done.stdout, done.stderr)


def pure_json(text: str) -> object:
    """Fails for NaN and the like, which Python's own reader takes."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture(scope="module")
def place(tiny_opt, tmp_path_factory) -> Path:
    """Two adapters, and a base that shares the language model with theirs behind another Q-Former."""
    folder = tmp_path_factory.mktemp("exchange")
    asked = {"task": "vqa", "family": "BLIP-2 with OPT", "prompt": "Question: {question} Answer:", "rank": 4}
    facts = {"base": fingerprint_base(tiny_opt), "roles": ["q", "k", "v", "o", "up", "down"], **asked}
    scores = {"adapter": {"accuracy": 0.75}, "blind": {"accuracy": 0.25}, "swapped": {"accuracy": float("nan")}}
    random_adapter(tiny_opt, folder / "a", 1, **facts, metrics=scores)
    random_adapter(tiny_opt, folder / "b", 2, **facts)
    shutil.copytree(tiny_opt, folder / "eyes")
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_opt)
    with torch.no_grad():
        model.query_tokens.mul_(1.5)
    model.save_pretrained(folder / "eyes")
    return folder


@pytest.fixture(scope="module")
def journey(place, tiny_opt) -> dict[str, Done]:
    """What each command says and returns, on an adapter's way through all of them."""
    other = make_base(place / "other", seed=7)
    commands = {
        "add": ["add", place / "a"], "list": ["list"], "inspect": ["inspect", "a", "--plot", place / "norms.png"],
        "inspect json": ["inspect", "--json", "a"], "ok": ["check", "a", tiny_opt],
        "convertible": ["check", "--quick", "a", other, "--json"],
        "export": ["export", "a", "--output", place / "a.zip"], "remove": ["remove", "a"], "empty": ["list", "--json"],
        "import": ["import", place / "a.zip", "--name", "again"],
        "merge": ["merge", "again=0.7", f"{place / 'b'}=0.3", "--output", place / "merged", "--json"],
        "resize": ["resize", place / "merged", "--rank", "2", "--output", place / "resized"],
        "fuse": ["fuse", "again", "--output", place / "fused"],
        "on the fused": ["check", "again", place / "fused", "--quick"],
        "extract": ["extract", tiny_opt, place / "fused", "--rank", "4", "--output", place / "extracted"],
        "extracted": ["check", place / "extracted", tiny_opt, "--json"],
        "transfer": ["transfer", "again", place / "eyes", "--output", place / "moved", "--json"],
        "taken": ["merge", "--output", place / "merged", "again", place / "b"],
    }  # fmt: skip
    return {name: run(place / "store", *argv) for name, argv in commands.items()}


def test_every_command_does_what_it_says(journey, place, tiny_opt):
    codes = {name: done.code for name, done in journey.items()}
    assert codes == dict.fromkeys(journey, 0) | {"convertible": 3, "on the fused": 3, "taken": 2}
    assert journey["add"].out.strip() == str(place / "store" / "a")
    row = next(line for line in journey["list"].out.splitlines() if line.startswith("│ a "))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:8] == ["a", "vqa", tiny_opt.name, "4", "q k v o up down", "75.0%", "25.0%", cells[7]]
    assert "‖ΔW‖" in journey["inspect"].out and (place / "norms.png").read_bytes().startswith(b"\x89PNG")
    assert journey["ok"].out.startswith("ok\n")
    assert journey["on the fused"].out.startswith("convertible\n")
    assert "other weights than it was made for: language_model" in journey["on the fused"].out
    assert [path.name for path in (place / "store").iterdir()] == ["again"]
    assert journey["taken"].err == f"error: --output {place / 'merged'}: is already there; " + (
        "choose another name, or remove it first\n"
    )


def test_json_is_all_that_stands_on_stdout(journey):
    found = {name: pure_json(journey[name].out) for name in ("inspect json", "convertible", "merge", "empty")}
    assert found["inspect json"]["manifest"]["metrics"]["swapped"] == {"accuracy": None}
    assert found["convertible"]["verdict"] == "convertible" and found["convertible"]["move"] == "copy"
    assert [one["weight"] for one in found["merge"]["of"]] == [0.7, 0.3] and found["empty"] == []
    assert pure_json(journey["extracted"].out)["verdict"] == "ok"
    moved = pure_json(journey["transfer"].out)
    assert (moved["method"], moved["state"], moved["measured"]) == ("exact", "exact", None)


# What was written, for plain transformers and PEFT


def logits(base: Path, model) -> torch.Tensor:
    picture = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    inputs = AutoProcessor.from_pretrained(base)(images=picture, text="Is the square red?", return_tensors="pt")
    with torch.inference_mode():
        return model.eval()(**inputs).logits


def plain(base: Path):
    return Blip2ForConditionalGeneration.from_pretrained(base, dtype=torch.float32)


def with_peft(base: Path, adapter: Path) -> torch.Tensor:
    """Logits with an adapter that PEFT finds whole."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(plain(base), adapter)
    assert not [warning for warning in said if "missing" in str(warning.message)]
    held, stored = get_peft_model_state_dict(model), load_file(adapter / "adapter_model.safetensors")
    assert held.keys() == stored.keys() and all(torch.equal(held[key], stored[key]) for key in held)
    return logits(base, model)


def added(base: Path, adapters: dict[Path, float]) -> torch.Tensor:
    """Logits with weight · alpha / r · B A of each adapter added to the base's own weights, by hand."""
    model = plain(base)
    for folder, weight in adapters.items():
        config, held = (
            json.loads((folder / "adapter_config.json").read_text()),
            load_file(folder / "adapter_model.safetensors"),
        )
        for key in (key for key in held if ".lora_A" in key):
            layer = model.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            product = held[key.replace("lora_A", "lora_B")] @ held[key]
            layer.weight.data += weight * config["lora_alpha"] / config["r"] * product
    return logits(base, model)


@pytest.mark.parametrize("name", ["imported", "merged", "resized", "extracted", "moved"])
def test_plain_peft_loads_what_was_written(journey, place, tiny_opt, name):
    a, b = place / "a", place / "b"
    folder = place / "store" / "again" if name == "imported" else place / name
    base = place / "eyes" if name == "moved" else tiny_opt
    said = with_peft(base, folder)
    assert not torch.allclose(said, logits(base, plain(base)), rtol=1e-2, atol=1e-2)
    if name == "resized":  # of a lower rank, it is another
        assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2
        return
    expected = added(base, {a: 0.7, b: 0.3} if name == "merged" else {a: 1.0})
    torch.testing.assert_close(said, expected, rtol=1e-3, atol=1e-3)


def test_plain_transformers_loads_the_fused_base(journey, place, tiny_opt):
    said = logits(place / "fused", plain(place / "fused"))
    torch.testing.assert_close(said, added(tiny_opt, {place / "a": 1.0}), rtol=1e-4, atol=1e-4)


# Interpreters of their own


def test_list_prints_json_and_nothing_else(journey, place):
    command = [sys.executable, "exchange.py", "list", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(place / "store"), capture_output=True, text=True, timeout=240
    )
    (entry,) = pure_json(done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    assert (entry["name"], entry["rank"], entry["problem"]) == ("again", 4, None)
    assert entry["score"] == {"metric": "accuracy", "adapter": 0.75, "blind": 0.25}


def test_an_adapter_of_another_family_is_incompatible(place, tiny_t5):
    done = run(place / "nowhere", "check", place / "a", tiny_t5)
    assert done.code == 1 and done.out.startswith("incompatible\n") and "Traceback" not in done.err
    assert not (place / "nowhere").exists()


def test_a_pickle_is_refused_unread(place, tmp_path):
    shutil.copytree(place / "a", tmp_path / "a")
    FOLDERS["pickle-bin"].make(tmp_path / "a")
    done = run(tmp_path / "store", "add", tmp_path / "a")
    assert (done.code, done.out) == (2, "") and done.err.startswith(
        f"error: adapter {tmp_path / 'a'}: its weights are a pickle"
    )
    assert done.err.count("\n") == 1 and not canary_of(tmp_path / "a").exists() and not (tmp_path / "store").exists()


def test_an_interrupted_add_leaves_nothing(place, tmp_path):
    command = [sys.executable, "-c", SLOW, "add", str(place / "b")]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(tmp_path / "store"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "copied\n"
        assert [path.name.startswith(".b.") for path in (tmp_path / "store").iterdir()] == [True]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.startswith("interrupted") and said.count("\n") == 1
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").iterdir())


# What is refused

SPOILED = CONFIGS | TENSORS | FOLDERS
ADAPTERS = (
    "config-peft_type-0", "config-auto_mapping-0", "config-trust_remote_code-0", "config-target_modules-1", "config-r-1",
    "config-half", "header-length-huge", "header-overlap", "header-name-1", "tensors-nan", "tensors-no-a", "python-0",
    "link-readme", "manifest-broken",
)  # fmt: skip
PACKED = (
    "entry-up", "entry-absolute", "entry-link", "entry-python", "record-encrypted", "bytes-half", "name-3", "sums-other",
    "bomb", "hidden-bomb", "link-weights", "many",
)  # fmt: skip
WRONG = {
    "mergee A B": "command 'mergee': not known; choose from list, ",
    "inspect": "ADAPTER: missing",
    "check a": "BASE_MODEL_ID: missing",
    "merge a b": "--output: missing",
    "merge a=x b --output c": "a=x: is ADAPTER=WEIGHT",
    "merge a a=2 --output c": "a: is given twice",
    "resize a --output c": "--rank, --energy: give one of the two",
    "resize a --rank 0 --output c": "--rank: 0 is out of range",
    "extract a b --rank 0 --output c": "--rank: 0 is out of range",
    "inspect a --plto c": "argument --plto: unknown; did you mean --plot?",
    "check a b c": "argument 'c': not expected here",
    "remove a/b": "adapter name 'a/b': may have",
    "remove a": "holds no adapter a; it holds none",
    "list nowhere-at-all": "store nowhere-at-all: there is no such folder",
    "inspect nowhere-at-all": "adapter nowhere-at-all: no such folder",
    "import nowhere.zip": "archive nowhere.zip: there is no such file",
    "transfer a b --output c --method distil": "--method distil: needs --csv_path",
}


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_wrong_input_is_one_line_and_leaves_nothing(place, tmp_path):
    commands, reasons = [], []
    (tmp_path / "store").mkdir()
    for name in ADAPTERS:
        folder = tmp_path / name / "adapter"
        shutil.copytree(place / "a", folder)
        (folder / "README.md").write_text("A card.")
        SPOILED[name].make(folder)
        commands.append(["add", folder])
        reasons.append(SPOILED[name].reason)
    good = tmp_path / "good"
    shutil.copytree(place / "a", good)
    (good / "README.md").write_text("A card.")
    for name in PACKED:
        ARCHIVES[name].make(good, tmp_path / f"{name}.zip")
        commands.append(["import", tmp_path / f"{name}.zip"])
        reasons.append(ARCHIVES[name].reason)
    commands += [["add", good, "--name", name] for name in ("../up", "/abs", "a b", ".hidden")]
    reasons += ["adapter name"] * 4
    commands += [["inspect", good, "--plot", tmp_path / "good"], *(line.split() for line in WRONG)]
    reasons += ["cannot be written", *WRONG.values()]
    before = everything(tmp_path)
    for argv, reason in zip(commands, reasons, strict=True):
        done = run(tmp_path / "store", *argv)
        assert done.code == 2 and done.out == "", (argv, done)
        lines = done.err.splitlines()
        assert all(line.startswith("error: ") for line in lines) and len(lines) <= 2 and reason in done.err, (
            argv,
            done,
        )
    assert everything(tmp_path) == before
    assert not [name for name in ("nowhere.zip", "c") if (ROOT / name).exists()]

"""Malformed adapters and archives are refused with one clear line each, and nothing of them is loaded, run or kept."""

import json
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage.archive import import_adapter
from blip2vqa.adapters.storage.local import add, list_store
from blip2vqa.adapters.validation.safety import check_folder, check_name
from helpers import malformed_adapters
from helpers.family_bases import Bases, adapted, random_adapter
from helpers.malformed_adapters import CONFIG, CONFIGS, FOLDERS, WEIGHTS, canary_of
from helpers.malformed_archives import ARCHIVES, compressed, contents, write
from helpers.malformed_manifests import MANIFESTS
from helpers.malformed_weights import TENSORS, A, B, first, header, join, length, split
from helpers.refusals import everything, refused

SPOILED = CONFIGS | TENSORS | FOLDERS | MANIFESTS


def test_there_are_enough_of_them():
    assert len(SPOILED) + len(ARCHIVES) >= 600


@pytest.mark.parametrize("name", SPOILED)
def test_malformed_adapters_are_refused(name, spoil, tmp_path, nothing_is_loaded):
    folder, store = spoil(name), tmp_path / "store"
    store.mkdir()
    before = everything(tmp_path)
    lines = refused(lambda: open_adapter(folder), SPOILED[name].reason)
    assert all(line.startswith(f"adapter {folder}: ") for line in lines)
    refused(lambda: add(folder, "new", store), SPOILED[name].reason)
    assert everything(tmp_path) == before and not canary_of(folder).exists()


# Without 4 GB of zeros: ARCHIVES has one that says that it holds them.
@pytest.mark.parametrize("name", sorted((CONFIGS | TENSORS).keys() - {"header-oversize"}))
def test_malformed_adapters_in_good_archives_are_refused(name, spoil, tmp_path, nothing_is_loaded):
    folder, store, archive = spoil(name), tmp_path / "store", tmp_path / "bad.zip"
    store.mkdir()
    write(archive, contents(folder))
    before = everything(tmp_path)
    refused(lambda: import_adapter(archive, store=store), SPOILED[name].reason)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ARCHIVES)
def test_malformed_archives_are_refused(name, good, tmp_path, nothing_is_loaded):
    store, archive = tmp_path / "a" / "b" / "store", tmp_path / "bad.zip"
    store.mkdir(parents=True)
    ARCHIVES[name].make(good, archive)
    before = everything(tmp_path)
    refused(lambda: import_adapter(archive, store=store), ARCHIVES[name].reason)
    assert everything(tmp_path) == before


def test_the_archive_that_they_are_made_of_is_good(good, tmp_path):
    write(tmp_path / "good.zip", contents(good))
    assert import_adapter(tmp_path / "good.zip", store=tmp_path / "store").name == "good"
    compressed(zipfile.ZIP_DEFLATED)(good, tmp_path / "small.zip")
    assert import_adapter(tmp_path / "small.zip", "small", tmp_path / "store").name == "small"


def test_archives_that_are_none(tmp_path):
    refused(lambda: import_adapter(tmp_path / "no.zip", store=tmp_path / "store"), "no such file")
    refused(lambda: import_adapter(tmp_path, store=tmp_path / "store"), "no such file")
    assert not (tmp_path / "store").exists()


def test_every_problem_is_told(spoil):
    folder = spoil("config-r-0")
    malformed_adapters.setting("bias", "x")(folder)
    malformed_adapters.file_of("blip2vqa.json", b"[]")(folder)
    length(lambda n: 0)(folder)
    lines = refused(lambda: check_folder(folder, "a"), "r is 0")
    assert len(lines) == 4 and all(line.startswith("adapter a: ") for line in lines)


def test_many_problems_are_not_a_flood(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "bad")
    header(lambda old: {f"{key} ": value for key, value in old.items() if key != "__metadata__"})(folder)
    lines = refused(lambda: check_folder(folder, "a\nb"), "no tensor's name")
    assert len(lines) == 9 and "more problems" in lines[-1]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", ".a", "-a", "a b", "a\n", "ü", "x" * 101, "a\\b", "C:a", "a.", "a.b."]
)
def test_names_outside_the_alphabet(name):
    refused(lambda: check_name(name), "adapter name")


@pytest.mark.parametrize("name", ["CON", "nul", "Aux.v2", "prn.x.y", "COM1", "lpt9.zip", "com0"])
def test_names_of_devices(name):
    refused(lambda: check_name(name), f"adapter name {name}: is a device's on Windows")


def test_good_names():
    names = ["a", "A.b_c-9", "_x", "x" * 100, "null", "console", "com10", "a.con", "com"]
    assert [check_name(name) for name in names] == names


# --- What has to pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["opt", "t5", "vilt"])
@pytest.mark.parametrize("use_dora", [False, True])
def test_own_adapters_pass(kind, use_dora, tmp_path_factory, tmp_path):
    bases = Bases(tmp_path_factory.getbasetemp() / "safe-bases")
    manifest = {"answers": ["a", "b", "c"]} if kind == "vilt" else {}
    folder = random_adapter(bases[kind], tmp_path / "one", 1, use_dora, **manifest)
    check_folder(folder, "one")
    assert any("classifier" in key for key in open_adapter(folder).weights) == (kind == "vilt")


def test_rank_patterns_as_peft_reads_them_pass(tiny_opt, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    from helpers.family_bases import load_float32

    attention = "language_model.model.decoder.layers.{}.self_attn.{}_proj"
    modules = [attention.format(layer, end) for layer in (0, 1) for end in "qv"]
    config = LoraConfig(
        r=4, use_rslora=True, target_modules=modules, modules_to_save=["lm_head"], lora_bias=True,
        rank_pattern={"layers.1.self_attn.v_proj": 7, modules[2]: 3, "q_proj": 2, "v_proj": 9}, alpha_pattern={"v_proj": 5},
    )  # fmt: skip
    get_peft_model(load_float32(tiny_opt).model, config).save_pretrained(tmp_path / "one")
    check_folder(tmp_path / "one", "one")
    ranks = [
        tensor.shape[0] for key, tensor in sorted(open_adapter(tmp_path / "one").weights.items()) if "lora_A" in key
    ]
    assert ranks == [2, 9, 3, 7]  # the first entry that fits
    PeftModel.from_pretrained(load_float32(tiny_opt).model, tmp_path / "one")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_pass(good, dtype, tmp_path):
    folder = shutil.copytree(good, tmp_path / "one")
    weights = {key: value.to(dtype) for key, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)
    check_folder(folder, "one")
    # The largest value that there is is not infinite; zeros are another question.
    weights[next(iter(weights))].fill_(torch.finfo(dtype).max)
    weights[first(weights, B)].zero_()
    save_file(weights, folder / WEIGHTS)
    check_folder(folder, "one")


def test_files_that_are_not_padded_pass(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "one")
    head_of, body = split(folder / WEIGHTS)
    head = json.dumps(head_of).encode()
    join(folder / WEIGHTS, head + b" " * ((3 - len(head)) % 8), body)
    check_folder(folder, "one")


def test_a_training_folder_passes(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "run")
    for name in ("run.json", "split.json", "taught.json"):
        (folder / name).write_text("{}")
    (folder / "predictions.csv").write_text("a,b\n")
    checkpoint = shutil.copytree(good, folder / "checkpoints" / "checkpoint-5")
    for place in (folder, checkpoint):
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            torch.save({"step": 1}, place / name)
    check_folder(folder, "run")
    check_folder(checkpoint, "checkpoint")


def test_a_snapshot_of_the_hubs_cache_passes(good, tmp_path):
    cache = tmp_path / "models--user--name"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(good.iterdir())):
        shutil.copyfile(file, cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", str(number)))
    check_folder(snapshot, "user/name")
    assert open_adapter(snapshot).weights.keys() == load_file(good / WEIGHTS).keys()
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to("../../refs/main")
    refused(lambda: check_folder(snapshot, "user/name"), "leads out")


def test_links_within_the_folder_pass(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "one")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.safetensors").symlink_to(f"../{WEIGHTS}")
    check_folder(folder, "one")
    (tmp_path / "link").symlink_to(folder)
    check_folder(tmp_path / "link", "link")


@pytest.mark.parametrize(
    "key, value",
    [
        ("unheard_of", {"a": 1}), ("runtime_config", {}), ("trust_remote_code", False), ("auto_mapping", None),
        ("layer_replication", None), ("lora_alpha", 0.5), ("init_lora_weights", "pissa_niter_16"), ("task_type", "CAUSAL_LM"),
        ("auto_mapping", {"base_model_class": "Blip2ForConditionalGeneration",
                          "parent_library": "transformers.models.blip_2.modeling_blip_2"}),
    ],
)  # fmt: skip
def test_settings_of_other_tools_pass(key, value, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "one")
    malformed_adapters.setting(key, value)(folder)
    check_folder(folder, "one")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_among_many_is_found(dtype, good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "one")
    size = 1000
    weights = {f"x{A}": torch.randn(4, size).to(dtype), f"x{B}": torch.randn(size, 4).to(dtype)}
    for place in (0, 1, 7, 8, 31, 2047, 3998, 3999):
        for number in (float("nan"), float("inf"), float("-inf")):
            spoiled = {key: value.clone() for key, value in weights.items()}
            spoiled[f"x{B}"].view(-1)[place] = number
            save_file(spoiled, folder / WEIGHTS)
            refused(lambda: check_folder(folder, "one"), "NaN or infinite")
    save_file(weights, folder / WEIGHTS)
    check_folder(folder, "one")


def test_an_adapter_of_real_size_is_looked_at_quickly(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "one")
    weights = {}
    for layer in range(32):
        for end in ("q", "k", "v", "o", "up", "down"):
            shapes = {"up": (2560, 10240), "down": (10240, 2560)}.get(end, (2560, 2560))
            weights[f"base_model.model.{layer}.{end}{A}"] = torch.ones(16, shapes[0])
            weights[f"base_model.model.{layer}.{end}{B}"] = torch.ones(shapes[1], 16)
    save_file(weights, folder / WEIGHTS)
    malformed_adapters.setting("r", 16)(folder)
    start = time.perf_counter()
    check_folder(folder, "one")
    assert time.perf_counter() - start < 2  # about 0.05 s on a quiet machine, for 94 MB


def test_the_store_survives_a_damaged_adapter(good, tmp_path):
    add(good, "fine", tmp_path / "store")
    add(good, "hurt", tmp_path / "store")
    (tmp_path / "store" / "hurt" / CONFIG).write_text("{")
    fine, hurt = list_store(tmp_path / "store")
    assert fine["problem"] is None and fine["task"] == "vqa"
    assert hurt["name"] == "hurt" and "JSON" in hurt["problem"] and hurt["rank"] is None


def test_training_can_go_on_from_what_passed(good, tiny_opt):
    """What is checked is what PEFT itself then loads."""
    from peft import set_peft_model_state_dict

    assert not set_peft_model_state_dict(adapted(tiny_opt, 3).model, open_adapter(good).weights).unexpected_keys

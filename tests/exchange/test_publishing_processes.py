"""From training to a stranger's answers by way of the Hub: real processes, the real client, a server on loopback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from helpers.loopback_hub import serve
from helpers.paths import ROOT

TOKEN = "hf_" + "W" * 34
FILES = {"adapter_config.json", "adapter_model.safetensors", "blip2vqa.json", "metrics.json", "README.md"}


@pytest.fixture
def hub(tiny_opt, tmp_path):
    """A Hub with a base on it, and one user."""
    shutil.copytree(tiny_opt, tmp_path / "hub" / "someone" / "tiny-base")
    with serve(tmp_path / "hub") as server:
        server.users[TOKEN] = {"name": "user"}
        yield server


@pytest.fixture
def run(hub, tmp_path):
    def start(*words, home: str = "home", **environment) -> subprocess.CompletedProcess:
        network = {
            "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / home), "HF_HUB_DISABLE_XET": "1",
            "OMP_NUM_THREADS": "1", "BLIP2VQA_STORE": str(tmp_path / "store"), **environment,
        }  # fmt: skip
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=ROOT, env=os.environ | network, capture_output=True, text=True, timeout=240)

    return start


def test_trained_published_and_used_by_a_stranger(hub, run, drawn, tmp_path):
    images, table = drawn
    data = ["--image_dir", images, "--csv_path", table, "--bertscore_model", "none"]
    tune = [
        "finetune.py", *data, "--base_model_id", "someone/tiny-base", "--epochs", "1", "--use_cpu", "--push_to_hub",
        "--hub_model_id", "user/squares", "--disable_tqdm", "true",
    ]  # fmt: skip
    refused = run(*tune, "--output_dir", tmp_path / "no", home="nobody")
    assert refused.returncode == 2 and "log in" in refused.stderr and "Traceback" not in refused.stderr
    assert not (tmp_path / "no" / "checkpoints").exists()

    out = tmp_path / "out"
    done = run(*tune, "--output_dir", out, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"published:  {hub.endpoint}/user/squares" in done.stdout
    there = hub.root / "user" / "squares"
    assert {path.name for path in there.iterdir()} - {".gitattributes"} == FILES
    assert "user/squares" in hub.private
    card = ModelCard((there / "README.md").read_text())
    assert card.data.base_model == "someone/tiny-base" and card.data.library_name == "peft" and card.data.eval_results
    assert str(tmp_path) not in "".join(
        (there / name).read_text() for name in FILES if not name.endswith("safetensors")
    )
    written = [path for path in out.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
    assert TOKEN not in done.stdout + done.stderr

    hub.requests.clear()
    asked = ["inference.py", *data, "--batch_size", "16", "--output_path", tmp_path / "answers.csv"]
    done = run(*asked, "--lora_model_path", "user/squares@main", home="stranger", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    ours = json.loads((out / "metrics.json").read_text())
    assert (tmp_path / "answers.metrics.json").is_file() and ours["adapter"]["n"]
    fetched = {path.split("/")[-1] for path in hub.requests if "/user/squares/resolve/" in path}
    assert fetched and fetched <= FILES

    done = run("exchange.py", "pull", "user/squares", home="stranger", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    pulled = tmp_path / "store" / "squares" / "adapter_model.safetensors"
    assert pulled.read_bytes() == (out / "adapter_model.safetensors").read_bytes()


def test_a_local_base_is_refused_before_training(run, tiny_opt, drawn, tmp_path):
    images, table = drawn
    done = run(
        "finetune.py", "--image_dir", images, "--csv_path", table, "--base_model_id", tiny_opt, "--bertscore_model", "none",
        "--output_dir", tmp_path / "out", "--push_to_hub", "--hub_token", TOKEN, "--use_cpu",
    )  # fmt: skip
    assert done.returncode == 2 and TOKEN not in done.stderr
    assert "the base is a local folder" in done.stderr and not (tmp_path / "out").exists()

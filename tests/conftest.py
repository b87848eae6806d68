"""Shared fixtures: tiny bases, a drawn table, no network."""

import os
from pathlib import Path

# Before any Hugging Face import: tests never reach out, and small tensors are fastest on one thread.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from PIL import Image

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def own_feature_cache(tmp_path_factory):
    """Features of one test session are not those of the next, nor the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_opt(tmp_path_factory) -> Path:
    """A random BLIP-2 with OPT, in the Hub's layout."""
    from helpers.tiny_blip2 import make_base

    return make_base(tmp_path_factory.mktemp("tiny") / "opt")


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory) -> Path:
    """A random BLIP-2 with T5, in the Hub's layout."""
    from helpers.tiny_blip2 import make_base

    return make_base(tmp_path_factory.mktemp("tiny") / "t5", seq2seq=True)


@pytest.fixture(params=["opt", "t5"])
def tiny_base(request, tiny_opt, tiny_t5) -> Path:
    """Both random bases in turn."""
    return tiny_opt if request.param == "opt" else tiny_t5


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> tuple[Path, Path]:
    """(image folder, table) of drawn squares."""
    from helpers.tiny_blip2 import make_table

    return make_table(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def write(tmp_path):
    """Write text or bytes under a name in tmp_path; hands back the path as a user would give it."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.fixture
def image_dir(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return str(folder)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store with shards of four images."""
    from blip2vqa.features import cache as store_module
    from helpers.feature_stores import KEY

    monkeypatch.setattr(store_module, "SHARD_IMAGES", 4)
    return store_module.FeatureStore(tmp_path / "cache", KEY)


@pytest.fixture
def endpoint(monkeypatch):
    """The environment of the API back end: a key, no address, and short waits before it tries again."""
    from helpers.api_runs import KEY

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)  # of time-outs and broken connections


@pytest.fixture
def ask(tmp_path):
    """Ask an endpoint about pictures with the ledger of tmp_path: `ask(server, number, **arguments)`."""
    from blip2vqa.generate.ask.api.backend import ask_api
    from blip2vqa.generate.ledger import Ledger
    from helpers.api_runs import make_args
    from helpers.chat_server import make_items

    def ask(server, number=1, **changes):
        items = make_items(tmp_path, number)
        with Ledger(tmp_path / "ledger.jsonl") as ledger:
            return ask_api(items, make_args(server, **changes), ledger, 5, seed=1)

    return ask

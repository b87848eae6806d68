"""Adapters to and from the Hub: the real client, in a process of its own, against a server on loopback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from blip2vqa import exchange
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage import hub
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.loopback_hub import commit_of, serve
from helpers.paths import ROOT

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKEN, READER, OTHER = "hf_" + "W" * 34, "hf_" + "R" * 34, "hf_" + "O" * 34

# Reads calls as JSON lines and writes what came of them. It waits no longer than it must, and adds up how long it would have.
WORKER = """
import json, os, sys, time
from pathlib import Path
from huggingface_hub import constants
from blip2vqa.utils.errors import InputError
from blip2vqa.adapters.storage import hub
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.exchange import pull

constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = hub.PATIENCE = 0.3
waited = []
time.sleep = waited.append

def push(folder, *args, **more):
    return hub.push(open_adapter(folder), *args, **more)

def full_disk(name):
    from huggingface_hub import file_download
    def http_get(url, file, **more):
        file.write(b"some")
        raise OSError(28, "No space left on device")
    before, file_download.http_get = file_download.http_get, http_get
    try:
        return hub.fetch_adapter(name)
    finally:
        file_download.http_get = before

def no_network(name):
    before, constants.ENDPOINT = constants.ENDPOINT, "http://127.0.0.1:9"
    try:
        return hub.fetch_adapter(name)
    finally:
        constants.ENDPOINT = before

def environ(**values):
    for name, value in values.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})

def xet(on):
    constants.HF_HUB_DISABLE_XET = not on

for line in sys.stdin:
    call, args, more = json.loads(line)
    if "store" in more:
        more["store"] = Path(more["store"])
    waited.clear()
    try:
        done = globals().get(call) or getattr(hub, call)
        answer = {"is": str(done(*args, **more))}
    except InputError as error:
        answer = {"problems": error.problems}
    except BaseException as error:
        answer = {"broken": repr(error)}
    print("@" + json.dumps({**answer, "waited": sum(waited)}), flush=True)
"""


class Client:
    """The project's functions in a process with its own cache, told where the Hub is."""

    def __init__(self, endpoint: str, folder: Path):
        self.cache, self.said = folder / "hub", folder / "output.txt"
        folder.mkdir()
        environment = {
            **os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0", "BLIP2VQA_STORE": str(folder / "store"),
        }  # fmt: skip
        environment.pop("HF_TOKEN", None)
        self.log = self.said.open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip
        self.lines: list[str] = []

    def _call(self, name: str, args, more) -> dict:
        more = {key: str(value) if isinstance(value, Path) else value for key, value in more.items()}
        self.process.stdin.write(json.dumps([name, [str(arg) for arg in args], more]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("@"):
                answer = json.loads(line[1:])
                assert "broken" not in answer, answer["broken"]
                assert answer["waited"] <= 30  # seconds that a user would have waited for the client to try again
                return answer
        raise AssertionError(self.said.read_text())

    def does(self, name: str, *args, **more) -> str:
        """What a call gave."""
        answer = self._call(name, args, more)
        assert "is" in answer, answer
        return answer["is"]

    def refuses(self, name: str, *args, **more) -> str:
        """The one line with which a call failed."""
        answer = self._call(name, args, more)
        assert len(answer["problems"]) == 1 and "\n" not in answer["problems"][0]
        return answer["problems"][0]

    def output(self) -> str:
        self.log.flush()
        return self.said.read_text() + "".join(self.lines)

    def close(self) -> None:
        self.process.kill()  # it takes seconds to leave by itself
        self.process.communicate()
        self.log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("hub")) as server:
        server.users = {
            TOKEN: {"name": "someone", "orgs": ["club"]},
            READER: {"name": "someone", "role": "read"},
            OTHER: {"name": "other"},
        }
        yield server


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    client = Client(server.endpoint, tmp_path_factory.mktemp("client") / "home")
    yield client
    client.close()


@pytest.fixture(scope="module")
def adapter(tiny_opt, tmp_path_factory) -> Path:
    """As finetune.py leaves it: with a local base, a table somewhere on this machine, scores, and more than an adapter."""
    folder = tmp_path_factory.mktemp("adapter") / "mine"
    scores = {"accuracy": 0.75, "n": 4}
    metrics = {"base": {**scores, "accuracy": 0.25}, "adapter": scores, "blind": {"accuracy": 0.5, "n": 4}}
    random_adapter(
        tiny_opt, folder, 1, task="vqa", family="BLIP-2 with OPT", prompt="Question: {question} Answer:", rank=4,
        data={"table": str(folder / "secret" / "table.csv"), "rows_train": 8}, metrics=metrics,
    )  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text("{}")
    (folder / "predictions.csv").write_text("image_name\n")
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture
def repo(server, adapter, request):
    """`make(name)`: an adapter that is there already, and gone afterwards with all faults."""
    made = []

    def make(name: str, private: bool = False) -> Path:
        folder = server.root / "someone" / name
        folder.mkdir(parents=True)
        for file in (CONFIG, WEIGHTS, "blip2vqa.json", "metrics.json", "run.json"):
            shutil.copy(adapter / file, folder)
        (folder / "model.safetensors").write_bytes(b"a whole model" * 1000)
        (folder / "optimizer.pt").write_bytes(b"a pickle")
        if private:
            server.private.add(f"someone/{name}")
        made.append(folder)
        return folder

    yield make
    server.faults.clear()
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture
def logged_in(client):
    client.does("environ", HF_TOKEN=TOKEN)
    yield
    client.does("environ", HF_TOKEN=None)


def files_of(folder: str | Path) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


# Fetching


def test_only_what_an_adapter_needs_is_fetched(client, server, repo, adapter):
    repo("plain")
    server.requests.clear()
    folder = client.does("fetch_adapter", "someone/plain")
    assert files_of(folder) == {CONFIG, WEIGHTS, "blip2vqa.json", "metrics.json"}
    asked = {path.split("/")[-1] for path in server.requests if "/resolve/" in path}
    assert asked == files_of(folder)
    assert (Path(folder) / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()


def test_a_revision_is_a_branch_or_a_commit(client, server, repo):
    folder = repo("branches")
    branch = shutil.copytree(folder, folder.with_name("branches@v1"))
    (branch / "metrics.json").write_text("{}")
    try:
        for revision in ("v1", commit_of(branch)):
            found = Path(client.does("fetch_adapter", "someone/branches", revision))
            assert (found / "metrics.json").read_text() == "{}"
        assert (Path(client.does("fetch_adapter", "someone/branches")) / "metrics.json").read_text() != "{}"
        assert "'v2'" in client.refuses("fetch_adapter", "someone/branches", "v2")
        for revision in ("../main", "v 1", "", "-x"):
            assert "no name of a branch" in client.refuses("fetch_adapter", "someone/branches", revision)
    finally:
        shutil.rmtree(branch)


@pytest.mark.parametrize(
    "name",
    ["no adapter", "a b/c", "../up", "a/../b", "a/b/c", "someone/", "/etc/passwd", "someone/x\ny", "some--one/x", "x"],
)
def test_what_is_no_name_is_not_asked_for(client, server, name):
    server.requests.clear()
    assert "no such folder" in client.refuses("open_adapter", name)
    assert "no valid name" in client.refuses("fetch_adapter", name)
    assert not server.requests


def test_absent_and_private_look_alike(client, server, repo):
    repo("closed", private=True)
    for token in (None, OTHER, "hf_unknown"):
        client.does("environ", HF_TOKEN=token)
        for name in ("someone/absent", "someone/closed"):
            line = client.refuses("fetch_adapter", name)
            assert name in line and "check the spelling" in line and "hf auth login" in line
    client.does("environ", HF_TOKEN=TOKEN)
    client.does("fetch_adapter", "someone/closed")
    client.does("environ", HF_TOKEN=None)


def test_a_repository_without_a_safe_adapter_is_refused_unread(client, server, repo):
    folder = repo("odd")
    server.requests.clear()
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    assert "--convert_pickle" in client.refuses("fetch_adapter", "someone/odd")
    (folder / "adapter_model.bin").unlink()
    assert f"holds no {WEIGHTS}" in client.refuses("fetch_adapter", "someone/odd")
    (folder / "metrics.json").write_bytes(b" " * (5 << 20))
    (folder / WEIGHTS).touch()
    assert "5,242,880 bytes" in client.refuses("fetch_adapter", "someone/odd")
    (folder / CONFIG).unlink()
    assert "is not an adapter" in client.refuses("fetch_adapter", "someone/odd")
    (folder / "vqa").mkdir()
    (folder / "vqa" / CONFIG).touch()
    assert "it has one in vqa: download that folder" in client.refuses("fetch_adapter", "someone/odd")
    assert not any("/resolve/" in path for path in server.requests)


@pytest.mark.parametrize(
    ("number", "where", "fault", "said"),
    [
        (1, "GET /api/models", "500", "500 Internal Server Error"),
        (2, "GET /api/models", "slow", "timed out"),
        (3, "GET /api/models", "cut", "connection"),
        (4, "GET /api/models", "403", "check the spelling"),
        (5, "HEAD /someone", "500", "500 Internal Server Error"),
        (6, "GET /someone", "503", "503 Service Unavailable"),
        (7, "GET /someone", "slow", "timed out"),
        (8, "GET /someone", "cut", "connection"),
        (9, "GET /someone", "404", "check the spelling"),
        (10, "GET /someone", "wrong", "damaged"),
    ],
)
def test_every_fault_is_one_line_and_mends(client, server, repo, adapter, tmp_path, number, where, fault, said):
    """Of the listing, of what is asked about a file, and of the file itself."""
    name, store = f"someone/fault-{number}", tmp_path / "store"
    repo(name.split("/")[1])
    server.faults = {where: fault}
    assert said in client.refuses("fetch_adapter", name)
    assert said in client.refuses("pull", name, store=store)
    assert not store.exists() or not files_of(store)
    assert not list(client.cache.rglob("*.incomplete"))
    server.faults.clear()
    folder = client.does("fetch_adapter", name)
    assert (Path(folder) / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()


def test_weights_damaged_on_the_way_leave_the_cache(client, server, repo):
    repo("damaged")
    server.faults = {WEIGHTS: "wrong"}
    assert WEIGHTS in client.refuses("fetch_adapter", "someone/damaged")
    kept = {
        path.name for path in (client.cache / "models--someone--damaged" / "snapshots").rglob("*") if path.is_file()
    }
    assert kept == {CONFIG, "blip2vqa.json", "metrics.json"}
    server.faults.clear()
    client.does("fetch_adapter", "someone/damaged")


def test_weights_other_than_the_manifest_says_are_refused(client, server, repo):
    folder = repo("swapped")
    manifest = json.loads((folder / "blip2vqa.json").read_text())
    (folder / "blip2vqa.json").write_text(json.dumps({**manifest, "files": {WEIGHTS: "0" * 64}}))
    assert "000000000000…" in client.refuses("fetch_adapter", "someone/swapped")


def test_a_full_disk_is_one_line_and_nothing_half_stays(client, repo):
    repo("big")
    line = client.refuses("full_disk", "someone/big")
    assert "disk is full" in line and str(client.cache) in line
    assert not list(client.cache.rglob("*.incomplete"))
    client.does("fetch_adapter", "someone/big")


def test_without_a_connection_a_whole_copy_serves(client, server, repo, monkeypatch):
    repo("kept")
    folder = client.does("fetch_adapter", "someone/kept")
    assert client.does("no_network", "someone/kept") == folder
    server.faults = {"GET /api/models": "500"}
    assert client.does("fetch_adapter", "someone/kept") == folder
    server.faults.clear()
    repo("half")
    server.faults = {WEIGHTS: "cut"}
    client.refuses("fetch_adapter", "someone/half")
    assert "no whole copy" in client.refuses("no_network", "someone/half")
    # Tests of this process are offline by HF_HUB_OFFLINE.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(client.cache))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(client.cache), raising=False)
    assert str(hub.fetch_adapter("someone/kept")) == folder
    for name in ("someone/half", "someone/never"):
        with pytest.raises(InputError, match=f"{name}.*HF_HUB_OFFLINE is set"):
            hub.fetch_adapter(name)


def test_pull_puts_it_into_the_store(client, repo, adapter, tmp_path):
    repo("pulled")
    for more, name in (({}, "pulled"), ({"as_name": "other"}, "other")):
        folder = client.does("pull", "someone/pulled@main", store=tmp_path / "store", **more)
        assert Path(folder) == tmp_path / "store" / name
        assert (Path(folder) / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()
    assert "pulled" in client.refuses("pull", "someone/pulled", store=tmp_path / "store")
    assert files_of(tmp_path / "store") == {"pulled", "other"}


# Publishing


def test_what_is_pushed_comes_back_the_same(client, server, logged_in, adapter, tmp_path):
    before = {path: path.read_bytes() for path in adapter.iterdir() if path.is_file()}
    base = {"base_model_id": "Salesforce/blip2-opt-2.7b", "licence": "mit"}
    assert client.does("push", adapter, "someone/new", **base) == f"{server.endpoint}/someone/new"
    assert "someone/new" in server.private
    assert {path: path.read_bytes() for path in before} == before
    there = server.root / "someone" / "new"
    assert files_of(there) == {CONFIG, WEIGHTS, "blip2vqa.json", "metrics.json", "README.md"}
    text = "".join((there / file).read_text() for file in files_of(there) - {WEIGHTS})
    assert str(adapter.parent) not in text and "secret" not in text and "Salesforce/blip2-opt-2.7b" in text
    manifest = json.loads((there / "blip2vqa.json").read_text())
    assert manifest["data"] == {"table": "table.csv", "rows_train": 8} and manifest["format"] == 1
    assert manifest["prompt"] == "Question: {question} Answer:"
    card = ModelCard((there / "README.md").read_text())
    assert card.data.license == "mit" and card.data.base_model == "Salesforce/blip2-opt-2.7b"
    assert "--lora_model_path someone/new" in card.text and 'load("someone/new")' in card.text

    folder = client.does("pull", "someone/new", store=tmp_path / "store")
    pulled, pushed = load_file(Path(folder) / WEIGHTS), load_file(adapter / WEIGHTS)
    assert pulled.keys() == pushed.keys() and all(torch.equal(pulled[key], pushed[key]) for key in pushed)


def test_an_adapter_is_pushed_anew_and_elsewhere(client, server, logged_in, adapter, tmp_path):
    base = {"base_model_id": "Salesforce/blip2-opt-2.7b"}
    client.does("push", adapter, "again", private=False, **base)  # one's own, by its bare name
    there = server.root / "someone" / "again"
    assert "someone/again" not in server.private and 'load("someone/again")' in (there / "README.md").read_text()
    bare = shutil.copytree(adapter, tmp_path / "bare")
    for file in ("blip2vqa.json", "metrics.json"):  # as other tools leave it
        (bare / file).unlink()
    client.does("push", bare, "someone/again", private=True, **base)
    assert files_of(there) == {CONFIG, WEIGHTS, "README.md"}  # what does not belong to it is gone
    assert "someone/again" not in server.private and "is public already" in client.output()
    client.does("push", adapter, "club/branch", revision="v1", **base)
    assert files_of(server.root / "club" / "branch") == set()
    assert WEIGHTS in files_of(server.root / "club" / "branch@v1")


def test_a_base_that_nobody_else_has_is_refused_before_anything_is_made(client, server, logged_in, adapter, tiny_opt):
    for more, said in (({}, "a local folder"), ({"base_model_id": str(tiny_opt)}, "a local folder")):
        line = client.refuses("push", adapter, "someone/never", **more)
        assert said in line and "--base_model_id" in line
    line = client.refuses("push", adapter, "someone/never", base_model_id="a/b", licence="no such licence")
    assert "license" in line
    assert not (server.root / "someone" / "never").exists()


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        (None, "someone/x", "nobody is logged in"),
        ("hf_unknown", "someone/x", "not valid"),
        (READER, "someone/x", "may write"),
        (TOKEN, "other/x", "not allowed"),
        (TOKEN, "a b", "no valid name"),
        (TOKEN, "a/b/c", "no valid name"),
    ],
)
def test_who_may_not_publish_is_told_so(client, server, adapter, token, name, said):
    client.does("environ", HF_TOKEN=token)
    assert said in client.refuses("push", adapter, name, base_model_id="a/b")
    client.refuses("check_push", name)
    assert not (server.root / name).exists()
    client.does("environ", HF_TOKEN=None)


def test_who_may_publish_is_found_beforehand(client, server, repo, logged_in):
    repo("mine")
    server.requests.clear()
    for name in ("new", "someone/new-too", "someone/mine", "club/new"):
        client.does("check_push", name)
    assert not any("create" in path or "commit" in path for path in server.requests)
    server.faults = {"auth-check": "403"}  # a token for some repositories only
    assert "not allowed" in client.refuses("check_push", "someone/mine")
    server.faults = {"whoami": "slow"}
    assert "timed out" in client.refuses("check_push", "someone/mine")


@pytest.mark.parametrize(
    ("fault", "where", "said"),
    [
        ("500", "POST /api/repos/create", "500 Internal Server Error"),
        ("slow", "POST /api/repos/create", "timed out"),
        ("500", "preupload", "500"),
        ("slow", "PUT /lfs", "timed out"),
        ("500", "PUT /lfs", "500"),
        ("cut", "PUT /lfs", "connection"),
        ("wrong", "PUT /lfs", "refused"),
        ("401", "POST /api/models", "nobody is logged in"),
        ("403", "/commit/", "not allowed"),
        ("500", "/commit/", "500"),
        ("cut", "/commit/", "connection"),
    ],
)
def test_a_push_that_fails_is_one_line(client, server, repo, logged_in, adapter, fault, where, said):
    folder = repo("target")
    before = commit_of(folder)
    server.objects.clear()
    server.faults = {where: fault}
    assert said in client.refuses("push", adapter, "someone/target", base_model_id="a/b")
    assert commit_of(folder) == before
    server.faults.clear()
    client.does("push", adapter, "someone/target", base_model_id="a/b")


def test_a_hub_without_xet_is_told_from_one_that_fails(client, logged_in, adapter):
    client.does("xet", on=True)
    assert "HF_HUB_DISABLE_XET=1" in client.refuses("push", adapter, "someone/xet", base_model_id="a/b")
    client.does("xet", on=False)
    client.does("push", adapter, "someone/xet", base_model_id="a/b")


def test_no_token_is_written_anywhere(client, server, adapter, logged_in, repo, tmp_path):
    """Last of all: in no output, file or message of all that was done above."""
    repo("last")
    client.does("push", adapter, "someone/last", token=TOKEN, base_model_id="a/b")
    client.refuses("push", adapter, "other/last", token=TOKEN, base_model_id="a/b")
    client.refuses("push", adapter, "someone/last", token=OTHER, base_model_id="a/b")
    client.does("pull", "someone/last", store=tmp_path)
    written = client.output().encode()
    for folder in (client.cache.parent, server.root, tmp_path, adapter):
        written += b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert not any(token[5:].encode() in written for token in (TOKEN, READER, OTHER))


# Names


@pytest.mark.parametrize("name", ["x", "no adapter", "me/x y", "a/b/c", "../up", "me/", "x@main", "me/x\ny"])
def test_what_a_name_on_the_hub_looks_like(name, made, tmp_path):
    says = r"no valid name on the Hub, which is USER/NAME of letters, digits, '-', '_' and '\.'$"
    calls = [lambda: exchange.pull(name, store=tmp_path / "store")]
    if name not in ("x", "x@main"):  # may be published among one's own, and is asked for at a revision
        calls += [lambda: hub.push(open_adapter(made), name), lambda: hub.check_push(name)]
    for call in calls:
        with pytest.raises(InputError, match=says) as raised:
            call()
        assert "folder" not in str(raised.value) and "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []

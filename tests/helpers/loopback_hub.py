"""A server on loopback that speaks as much of the Hub's protocol as going to and from it takes, with faults on demand."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import yaml
from huggingface_hub.utils.sha import git_hash

LARGE = (".safetensors", ".bin")  # kept as Git LFS objects
LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "other")
SLOW = 30
"""Seconds of silence, if nobody hangs up."""


def commit_of(folder: Path) -> str:
    """A repository's commit: another one whenever a file is another one."""
    files = [
        (path.name, hashlib.sha1(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir()) if path.is_file()
    ]
    return hashlib.sha1(json.dumps(files).encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """Serves the repositories `root/user/name`; a branch of one lies in `root/user/name@branch`."""

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []
        """Paths, in the order in which they came."""
        self.users: dict[str, dict] = {}
        """Token → `name`, and if need be `role` (`write` unless given) and `orgs`."""
        self.private: set[str] = set()
        self.faults: dict[str, str] = {}
        """What a request's "METHOD PATH" holds → `slow`, `cut`, `wrong`, or a status to fail with."""
        self.objects: dict[str, bytes] = {}
        """SHA-256 → what was uploaded."""
        self.closing = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """Quiet, where a client has hung up."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._serve()

    def do_HEAD(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def do_PUT(self):
        self._serve()

    def do_DELETE(self):
        self._serve()

    def _serve(self) -> None:
        hub = self.server
        hub.requests.append(self.path)
        line = f"{self.command} {self.path}"
        self.fault = next((fault for part, fault in hub.faults.items() if part in line), None)
        length = int(self.headers.get("Content-Length") or 0)
        if self.fault == "cut" and length:
            self.rfile.read(length // 2)
            return
        content = self.rfile.read(length)
        if self.fault == "slow":
            hub.closing.wait(SLOW)
        elif self.fault and self.fault.isdigit():
            self._json({"error": "at fault"}, int(self.fault))
        else:
            self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            self.user = hub.users.get(self.token)
            self._route([unquote(part) for part in self.path.split("?")[0].strip("/").split("/")], content)

    def _route(self, parts: list[str], content: bytes) -> None:
        if self.command == "PUT" and parts[0] == "lfs":
            return self._put(parts[1], content)
        if parts[:2] == ["api", "whoami-v2"]:
            return self._whoami()
        if parts[:2] == ["api", "validate-yaml"]:
            return self._validate(json.loads(content)["content"])
        if parts[:3] == ["api", "repos", "create"]:
            return self._create(**json.loads(content))
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            repo, rest = "/".join(parts[2:4]), parts[4:]
        elif len(parts) >= 4 and (parts[2] == "resolve" or parts[1].endswith(".git")):
            repo, rest = f"{parts[0]}/{parts[1].removesuffix('.git')}", parts[2:]
        else:
            return self._missing("RepoNotFound")
        if not self._may_read(repo):  # the Hub does not say which of both it is
            return self._missing("RepoNotFound", 404 if self.user else 401)
        if (self.command == "POST" or rest[-1:] == ["write"]) and not self._may_write(repo.split("/")[0]):
            return self._json({"error": "You have no rights here"}, 403)
        action = rest[0] if rest else "revision"
        actions = {
            "revision": self._revision, "tree": self._tree, "resolve": self._resolve, "auth-check": self._auth_check,
            "branch": self._branch, "preupload": self._preupload, "info": self._info, "commit": self._commit,
        }  # fmt: skip
        if action not in actions:  # of Xet, among others: such a server has Git LFS alone
            return self._missing("EntryNotFound")
        return actions[action](repo, rest[1:], content)

    def _may_read(self, repo: str) -> bool:
        hub = self.server
        return (hub.root / repo).is_dir() and (repo not in hub.private or self._owns(repo.split("/")[0]))

    def _owns(self, owner: str) -> bool:
        return bool(self.user) and owner in (self.user["name"], *self.user.get("orgs", ()))

    def _may_write(self, owner: str) -> bool:
        return self._owns(owner) and self.user.get("role", "write") == "write"

    # What is read

    def _folder(self, repo: str, revision: str) -> Path | None:
        folder = self.server.root / repo
        if revision in ("main", commit_of(folder)):
            return folder
        branches = folder.parent.glob(f"{folder.name}@*")
        return next((path for path in branches if revision in (path.name.split("@")[1], commit_of(path))), None)

    def _revision(self, repo: str, rest: list[str], content: bytes) -> None:
        folder = self._folder(repo, rest[0] if rest else "main")
        if folder is None:
            return self._missing("RevisionNotFound")
        files = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            files.append(
                {"rfilename": path.relative_to(folder).as_posix(), "size": len(data), "blobId": git_hash(data)}
            )
            if path.suffix in LARGE:
                sha256 = hashlib.sha256(data).hexdigest()
                files[-1]["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
        private = repo in self.server.private
        return self._json({"id": repo, "sha": commit_of(folder), "private": private, "siblings": files})

    def _tree(self, repo: str, rest: list[str], content: bytes) -> None:
        self._json([])

    def _resolve(self, repo: str, rest: list[str], content: bytes) -> None:
        folder = self._folder(repo, rest[0])
        if folder is None:
            return self._missing("RevisionNotFound")
        file = folder.joinpath(*rest[1:])
        if not file.is_file():
            return self._missing("EntryNotFound")
        data = file.read_bytes()
        tag = hashlib.sha256(data).hexdigest() if file.suffix in LARGE else git_hash(data)
        if self.fault == "wrong":
            data = data[:-1] + bytes([data[-1] ^ 1])
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit_of(folder), "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(data[start:], 206 if start else 200, headers)

    def _whoami(self) -> None:
        if not self.user:
            return self._json({"error": "Invalid credentials in Authorization header"}, 401)
        groups = [{"name": name, "roleInOrg": "write"} for name in self.user.get("orgs", ())]
        role = {"displayName": "test", "role": self.user.get("role", "write")}
        access = {"type": "access_token", "accessToken": role}
        return self._json({"type": "user", "name": self.user["name"], "orgs": groups, "auth": access})

    def _auth_check(self, repo: str, rest: list[str], content: bytes) -> None:
        self._json({})

    # What is written

    def _create(self, name: str, organization: str | None = None, visibility: str = "public", **more) -> None:
        if not self.user:
            return self._json({"error": "Invalid credentials in Authorization header"}, 401)
        owner = organization or self.user["name"]
        if not self._may_write(owner):
            return self._json({"error": f"You have no right to create a model under {owner}"}, 403)
        repo, url = f"{owner}/{name}", f"{self.server.endpoint}/{owner}/{name}"
        if (self.server.root / repo).is_dir():
            return self._json({"error": "You already created this model repo", "url": url}, 409)
        (self.server.root / repo).mkdir(parents=True)
        if visibility == "private":
            self.server.private.add(repo)
        return self._json({"url": url, "name": repo})

    def _branch(self, repo: str, rest: list[str], content: bytes) -> None:
        folder = self.server.root / f"{repo}@{rest[0]}"
        if folder.is_dir():
            return self._json({"error": "Reference already exists"}, 409)
        folder.mkdir()
        return self._json({})

    def _validate(self, card: str) -> None:
        try:
            said = yaml.safe_load(card.split("---\n")[1])
            wrong = [] if said.get("license", "mit") in LICENCES else ["license is not a known one"]
            for result in (said.get("model-index") or [{"results": []}])[0]["results"]:
                metrics = all(metric["type"] and "value" in metric for metric in result["metrics"])
                if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"] and metrics):
                    wrong.append("model-index is not complete")
        except (yaml.YAMLError, IndexError, KeyError, TypeError) as error:
            wrong = [str(error)]
        self._json({"errors": [{"message": text} for text in wrong], "warnings": []}, 400 if wrong else 200)

    def _preupload(self, repo: str, rest: list[str], content: bytes) -> None:
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
             "shouldIgnore": False}
            for file in json.loads(content)["files"]
        ]  # fmt: skip
        self._json({"files": modes})

    def _info(self, repo: str, rest: list[str], content: bytes) -> None:
        """Where Git LFS objects go; the path ends in info/lfs/objects/batch."""
        objects = []
        for wanted in json.loads(content)["objects"]:
            upload = {"upload": {"href": f"{self.server.endpoint}/lfs/{wanted['oid']}"}}
            objects.append(wanted if wanted["oid"] in self.server.objects else {**wanted, "actions": upload})
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str, content: bytes) -> None:
        if self.fault == "wrong" or hashlib.sha256(content).hexdigest() != oid:
            return self._json({"error": "checksum does not match"}, 400)
        self.server.objects[oid] = content
        return self._json({})

    def _commit(self, repo: str, rest: list[str], content: bytes) -> None:
        folder = self.server.root / (repo if rest[0] == "main" else f"{repo}@{rest[0]}")
        changes = {}
        for line in map(json.loads, content.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.server.objects:
                    return self._json({"error": "no such object was uploaded"}, 400)
                changes[value["path"]] = self.server.objects[value["oid"]]
            elif kind == "deletedFile":
                changes[value["path"]] = None
        for name, data in changes.items():
            (folder / name).unlink(missing_ok=True) if data is None else (folder / name).write_bytes(data)
        commit = commit_of(folder)
        url = f"{self.server.endpoint}/{repo}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    # How it is answered

    def _json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _missing(self, code: str, status: int = 404) -> None:
        self._json({"error": "Not found"}, status, {"X-Error-Code": code})

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if self.fault == "cut" else data)

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serve(root: Path):
    """Serve the repositories `root/user/name`; yields the server, with its `endpoint` and the `requests` it saw."""
    server = HubServer(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()

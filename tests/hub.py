"""A server on loopback that speaks as much of the Hub's protocol as downloading takes."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 39 + "1"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        root: Path = self.server.root
        parts = self.path.split("?")[0].strip("/").split("/")
        self.server.requests.append(self.path)
        if parts[:2] == ["api", "models"] and (root / "/".join(parts[2:4])).is_dir():
            files = [{"rfilename": path.name} for path in sorted((root / "/".join(parts[2:4])).iterdir())]
            payload = {"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": files}
            return self._send(json.dumps(payload if len(parts) == 4 else []).encode(), body)
        if len(parts) >= 5 and parts[2] == "resolve":
            file = root.joinpath(parts[0], parts[1], *parts[4:])
            if not (root / parts[0] / parts[1]).is_dir():
                return self._missing("RepoNotFound")
            if parts[3] not in ("main", COMMIT):
                return self._missing("RevisionNotFound")
            if not file.is_file():
                return self._missing("EntryNotFound")
            return self._send(file.read_bytes(), body)
        return self._missing("RepoNotFound")

    def _send(self, data: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serve(root: Path):
    """Serve the repositories `root/user/name`; yields the server, with its `endpoint` and the `requests` it saw."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.root, server.requests = root, []
    server.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

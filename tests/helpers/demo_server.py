"""The demo as a process of its own, and a client of it in another."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from helpers.launching import start_script
from helpers.paths import ROOT


@dataclass
class Demo:
    """A demo that is up."""

    url: str
    process: BaseProcess
    out: Path
    """File with what it has printed."""


@contextmanager
def running(folder: Path, *argv: object) -> Iterator[Demo]:
    """Start `demo.py --port 0 ARGV…` and wait until it is up; what it prints goes into `folder`."""
    streams = [folder / "out.txt", folder / "err.txt"]
    process = start_script(streams, "demo.py", "--port", "0", *argv)
    try:
        yield Demo(_address(process, *streams), process, streams[0])
    finally:
        process.kill()
        process.join()


def _address(process: BaseProcess, out: Path, err: Path) -> str:
    began = time.monotonic()
    while time.monotonic() - began < 120:
        lines = out.read_text().splitlines() if out.exists() else []
        for line in lines:
            if line.startswith("Demo: "):
                return line.split()[1]
        assert process.exitcode is None, err.read_text()
        time.sleep(0.1)
    raise TimeoutError(err.read_text())


def by_client(url: str, code: str, **values: object) -> object:
    """Run code with a `gradio_client.Client` called `client` in a process of its own; what it leaves in `result`."""
    script = (
        "import json, sys; from concurrent.futures import ThreadPoolExecutor; from gradio_client import Client, handle_file\n"
        f"client = Client({url!r}, verbose=False)\nglobals().update(json.loads(sys.argv[1]))\n{code}\nprint(json.dumps(result))"
    )
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(values)], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

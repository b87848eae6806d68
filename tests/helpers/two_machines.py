"""Two machines that share a disk and a cable: network namespaces of this one, each with an address of its own."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def why_not() -> str | None:
    """Say why namespaces cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if not shutil.which("ip"):
        return "no `ip` (Debian's iproute2)"
    name = f"b{os.getpid()}t"
    if _ip("netns", "add", name).returncode:
        return "this kernel makes no network namespaces"
    _ip("netns", "delete", name)
    return None


def _ip(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@contextmanager
def two_machines() -> Iterator[list[str]]:
    """Make two namespaces with a cable between them; hands out their names."""
    names = [f"b{os.getpid()}{side}" for side in "ab"]
    cable = [f"v{name}" for name in names]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", "name", cable[1], "netns", names[1])
        for name, end, address in zip(names, cable, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                assert _ip("-n", name, "link", "set", device, "up").returncode == 0
        yield names
    finally:
        for name in names:
            _ip("netns", "delete", name)


def enter(name: str) -> None:
    """Move this process into a namespace."""
    with Path("/var/run/netns", name).open() as space:
        assert ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0) == 0

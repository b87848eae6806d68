"""The network interface by which the machines of a launch reach one another over gloo."""

import os
import socket

import psutil

NAME = "GLOO_SOCKET_IFNAME"


def choose_interface() -> None:
    """Make gloo use the interface that leads to machine 0, unless `GLOO_SOCKET_IFNAME` names one.

    By itself it takes the address of this machine's own name, which on many is 127.0.0.1 or 127.0.1.1: there no other machine
    can reach it.
    """
    several = os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", "1")
    if not several or NAME in os.environ or "MASTER_ADDR" not in os.environ:
        return
    try:
        found = socket.getaddrinfo(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), type=socket.SOCK_DGRAM)
        family, kind, *_, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing, but asks for the way
            own = probe.getsockname()[0]
    except OSError:
        return  # the launch itself says that machine 0 is not to be reached
    for name, addresses in psutil.net_if_addrs().items():
        if own in [one.address.partition("%")[0] for one in addresses]:
            os.environ[NAME] = name
            return

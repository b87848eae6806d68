"""Limits the threads that torch computes with, and the time that a step may take."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread inside the block, and with as many as before after it.

    Several threads make thousands of small products slower: beside another busy process, each product waits for a core.
    """
    import torch  # whose import takes a second, which a list of adapters has no use for

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def call_within(seconds: float, step: Callable, *args):
    """Call `step(*args)` in a thread, and return or raise what it does; `TimeoutError` when it takes longer than `seconds`.

    Limits of libraries on sockets count from byte to byte, and leave looking up a host's name unlimited. The thread goes on
    when time is up, and ends with the server's patience or with the process.
    """
    result = Future()

    def run() -> None:
        try:
            result.set_result(step(*args))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(seconds)

"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """For thousands of small products, which threads make slower: beside another busy process, each then waits for a core."""
    import torch  # whose import takes a second, which a list of adapters has no use for

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The most memory that this process has held, and threads that are put back."""

import mmap

import torch

from blip2vqa.utils import memory
from blip2vqa.utils.memory import find_free_memory, free_memory, peak_memory, reset_peak_memory
from blip2vqa.utils.threads import one_thread


def test_the_peak_counts_what_was_held_and_let_go():
    reset_peak_memory()
    before = peak_memory()
    held = mmap.mmap(-1, 64 * 2**20)  # a tensor may be given memory that the process has had before
    for start in range(0, len(held), 2**20):
        held[start : start + 2**20] = b"1" * 2**20
    held.close()
    free_memory()
    assert peak_memory() - before > 48 * 2**20
    reset_peak_memory()
    assert peak_memory() - before < 48 * 2**20


def test_apples_cache_is_emptied_like_cudas(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    free_memory()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    free_memory()
    assert emptied == ["mps"]


def test_processes_on_one_card_count_each_other(monkeypatch):
    """Three processes, two of them on one card: as they would be told by `gather_from_all`."""
    free = {"a": (2**30, 2**29), "b": (3 * 2**28,)}
    everyone = [(("machine", card), bytes_) for card, found in free.items() for bytes_ in found]
    monkeypatch.setattr(memory, "gather_from_all", lambda own: everyone)
    assert find_free_memory(torch.device("cpu")) == (2**28, 2)
    monkeypatch.setattr(memory, "gather_from_all", lambda own: everyone[1:])
    assert find_free_memory(torch.device("cpu")) == (2**29, 1)


def test_one_thread_inside_and_as_many_as_before_behind():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

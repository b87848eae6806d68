"""The most memory that this process has held, and threads that are put back."""

import mmap

import torch

from blip2vqa.utils.memory import free_memory, peak_memory, reset_peak_memory
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


def test_one_thread_inside_and_as_many_as_before_behind():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

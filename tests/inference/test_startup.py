"""What the start block says of the machine."""

import psutil
import pytest

from blip2vqa.inference.startup import idle_cores


@pytest.mark.parametrize(
    "threads, processes, line",
    [
        (1, 1, "1 of 8 cores in use; OMP_NUM_THREADS=8 before the command uses 8"),
        (1, 3, "3 of 8 cores in use; OMP_NUM_THREADS=2 before the command uses 6"),
        (2, 3, None),
        (8, 1, None),
        (1, 16, None),
    ],
)
def test_cores_that_nothing_uses_are_told(monkeypatch, threads, processes, line):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(16), raising=False)
    assert idle_cores(threads, processes) == ([("processor", line)] if line else [])

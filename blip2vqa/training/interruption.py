"""Ctrl-C and SIGTERM during training: noted, so that a step is finished and a checkpoint saved before the run ends."""

import os
import signal
import threading
import time

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
ONE_KEY = 1.0
"""Seconds within which a second Ctrl-C is taken for the first: a launcher hands on what the terminal has sent already."""


class Interruption:
    """Notes the first signal, as a context manager; a second Ctrl-C ends the process at once, with exit code 130.

    Signals that are ignored, as those of a shell's background jobs, stay ignored; so does everything outside of the main
    thread, where Python allows no handlers.
    """

    def __init__(self, speaks: bool = True):
        """`speaks`: whether this process says what it does."""
        self.speaks, self.signal, self.since = speaks, None, 0.0
        self._before: dict = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self.signal is None:
            self.signal, self.since = signal.Signals(number), time.monotonic()
            self._say("the step, or the validation under way, is finished and saved; Ctrl-C again ends at once")
        elif number == signal.SIGINT and time.monotonic() - self.since > ONE_KEY:
            self._say("ended at once; --resume_from_checkpoint goes on from the last checkpoint")
            os._exit(128 + number)

    def _say(self, text: str) -> None:
        if self.speaks:  # past Python's buffers, which the handler may have interrupted
            os.write(2, f"\n{SIGNALS[self.signal]}: {text}\n".encode())

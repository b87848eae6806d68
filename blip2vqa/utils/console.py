"""How a script is called, how it ends, and what it prints.

Exit code 0: done; 1: failed on the way; 2: wrong input, with a line for each problem; 130 and 143: training was stopped by
Ctrl-C or SIGTERM.
"""

import errno
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blip2vqa.utils.errors import Failure, InputError, find_os_error
from blip2vqa.utils.interface import NAME, choose_interface
from blip2vqa.utils.terminal import guard_terminal, one_line

LEVELS = ("debug", "info", "warning", "error", "critical")
MAIN_FIRST = 3.0
"""Seconds that other processes of a launch wait before they end over wrong input: a launcher ends all as soon as one has ended,
and the main process is to say before that what is wrong."""
_ENDED = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe",
    "ncclRemoteError", "remote process exited", "NCCL communicator was aborted",
)  # fmt: skip
_UNREACHABLE = ("connectFullMesh failed", "Connection timed out", "Timed out waiting", "timed out connecting")
"""What libraries say of a connection to another process of a launch that has ended, and of one that is not to be reached."""
_VERBOSITY = "TRANSFORMERS_VERBOSITY"
_GIVEN = os.environ.get(_VERBOSITY)
"""The user's own wish, which goes before ours."""

COMMANDS = {
    "finetune": "accelerate launch finetune.py",
    "infer": "python inference.py",
    "caption": "python caption.py",
    "generate": "python generate_vqa.py",
    "exchange": "python exchange.py",
    "report": "python report.py",
    "demo": "python demo.py",
}
"""Command → how its script is called, in the order of the help."""


def called(command: str) -> str:
    """Return how the user runs `command`: as `blip2vqa COMMAND` if this process was, else by the script of the same purpose."""
    program = Path(sys.argv[0])
    by_name = program.name == "blip2vqa" or program.parts[-2:] == ("blip2vqa", "__main__.py")
    return f"blip2vqa {command}" if by_name else COMMANDS[command]


def command_line(command: str) -> str:
    """Return the whole command line of this process, as the user may give it again."""
    words = sys.argv[2:] if called(command).startswith("blip2vqa ") else sys.argv[1:]
    return f"{called(command)} {shlex.join(words)}".strip()


def named(command: str) -> str:
    """Return how a sentence names `command`: as `called`, without what starts the script."""
    return called(command).removeprefix("python ").removeprefix("accelerate launch ")


def run_script(main: Callable[[], None], go_on: str = "run the same command again") -> None:
    """Run a script's `main` and exit with its code. `go_on` tells what to do after Ctrl-C."""
    guard_terminal(logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    is_main = os.environ.get("LOCAL_RANK", "0") == "0"  # each machine has a screen of its own
    quiet_libraries()
    choose_interface()
    try:
        _run(main)
    except (InputError, Failure) as error:
        if is_main:
            _print_errors(error.problems, "" if error.exit_code > 2 else "error: ")
        else:
            time.sleep(MAIN_FIRST)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if is_main:
            _print_errors([f"interrupted; files that were finished are kept; {go_on}"], "")
        sys.exit(1)
    except Exception as error:
        failed = find_os_error(error)
        if lost := failed is None and _lost_another(error, go_on):
            _print_errors([lost])
            sys.exit(1)
        if failed is None:
            raise
        logging.getLogger(__name__).debug("where it failed", exc_info=error)
        what = failed.filename or ("the output" if _stdout_fails() else "a file could not be written")
        if failed.errno == errno.ENAMETOOLONG:
            _print_errors([f"{what}: the name is too long for a file"])
            sys.exit(2)
        _print_errors([f"{what}: {failed.strerror}; files that were finished are kept; {go_on}"])
        sys.exit(1)
    _leave_process_group()


def _run(main: Callable[[], None]) -> None:
    """Run `main`, and see to it that all it has printed is out."""
    try:
        main()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _lost_another(error: Exception, go_on: str) -> str | None:
    """Say what has become of another process of a launch, where an error is about nothing else; else None."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    if any(text in str(error) for text in _ENDED):
        return f"another process of this launch has ended: it has said why, or was killed; {go_on}"
    if any(text in str(error) for text in _UNREACHABLE):
        return (
            "the processes of this launch do not reach one another; check --main_process_ip and the firewall, and set "
            f"{NAME} (of NCCL: NCCL_SOCKET_IFNAME) to the network's interface"
        )
    return None


def _stdout_fails() -> bool:
    """Tell whether stdout cannot be written to, and if so leave it, or Python would complain once more at its end."""
    try:
        print(flush=True)  # a flush alone finds nothing to write, after one that has failed
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _print_errors(problems: list[str], prefix: str = "error: ") -> None:
    with suppress(OSError):  # stderr may be on the disk that is full
        for problem in problems:
            print(f"{prefix}{one_line(problem)}", file=sys.stderr)


def say(line: str) -> None:
    """Print a line in the main process of a launch alone."""
    if os.environ.get("RANK", "0") == "0":
        print(one_line(line), flush=True)


def set_log_level(name: str | None) -> None:
    """Print log lines of this level and above; None, or a word of Trainer's that names no level, changes nothing.

    Warnings of Python follow: `debug` shows those that are hidden by default, `error` and above hide all.
    """
    if name not in LEVELS:
        return
    level = logging.getLevelNamesMapping()[name.upper()]
    logging.getLogger().setLevel(level)
    os.environ[_VERBOSITY] = _GIVEN or name
    if "transformers" in sys.modules and not _GIVEN:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity(level)
    if level >= logging.ERROR:
        warnings.filterwarnings("ignore")
    elif level == logging.DEBUG:
        warnings.resetwarnings()


def quiet_libraries() -> None:
    """Hide what libraries print and a user of the scripts can do nothing about; the environment may say otherwise.

    It has to be called before transformers and huggingface_hub are imported.
    """
    os.environ.setdefault(_VERBOSITY, "error")
    # Of an unreachable Hub it reports every retry, twice; what follows from it is said in one line here.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # Raised by upstream for its own deprecations.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not sys.stderr.isatty():  # bars of transformers, huggingface_hub and datasets
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def _leave_process_group() -> None:
    """Leave the process group of a launch of several processes, after all work is done.

    Without it gloo's threads may still be letting go of tensors while the interpreter shuts down, which aborts the process
    and fails the launch after its files were written. After a failure it is left out: ending a group is itself a meeting of
    its processes, and some may be waiting for another one.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()

"""Scripts as processes of their own that begin where the imports end.

A new interpreter spends seconds of a core on importing torch, transformers and peft. A fork server has done so once;
arguments, folder, environment, output and exit code are each process's own. What libraries read from the environment while
they are imported (HF_HOME, HF_ENDPOINT) is the server's: tests about that, and one of each script, start interpreters.
"""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory

import transformers.utils.logging
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from helpers.paths import ROOT
from helpers.two_machines import ADDRESSES, enter

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "blip2vqa.training.recipe",
        "blip2vqa.inference.answering",
        "blip2vqa.inference.captioning",
        "blip2vqa.exchange.commands",
    ]
)


def run_script(
    script: str, *argv: object, timeout: float = 240, folder: Path = ROOT, **environment: str
) -> CompletedProcess:
    """Run `python SCRIPT ARGV…` in `folder`, without the network; its output as text."""
    words = [script if folder == ROOT else str(ROOT / script), *map(str, argv)]
    with TemporaryDirectory() as output:
        streams = [Path(output, name) for name in ("out", "err")]
        process = _start(words, folder, environment, streams)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise TimeoutExpired(words, timeout)
        said = [path.read_text(encoding="utf-8") for path in streams]
    return CompletedProcess(words, process.exitcode, *said)


def start_script(streams: list[Path], script: str, *argv: object, **environment: str) -> BaseProcess:
    """Start `python SCRIPT ARGV…` as `run_script` does, and do not wait for it; `streams`: files for its output and errors."""
    return _start([script, *map(str, argv)], ROOT, environment, streams)


def in_launch(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment that a launcher gives to process `rank` of `size` on this machine, which meet at `port`."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def in_two_processes(function: Callable, *arguments: object) -> list:
    """What `function(*arguments)` returns in each of two processes of one launch."""
    answers, port = _server.Queue(), free_port()
    processes = [
        _server.Process(target=_answer, args=(in_launch(rank, 2, port), function, arguments, answers))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    return [found["0"], found["1"]]


def _answer(environment: dict[str, str], function: Callable, arguments: tuple, answers) -> None:
    os.environ.update(environment)
    answers.put((environment["RANK"], function(*arguments)))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Launch:
    """Two processes of one launch, as `accelerate launch --config_file CONFIG` would start them, each with files of output."""

    def __init__(
        self,
        folder: Path,
        config: str,
        script: str,
        *argv: object,
        machines: Sequence[str] = (),
        own: Sequence[dict] = ({}, {}),
        folders: Sequence[Path] = (ROOT, ROOT),
    ):
        """`folder`: for the files of output. `machines`: namespaces, one for each process; none: both run here.

        `own` and `folders`: what only one finds in its environment, and where it runs.
        """
        args, *_ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", config, script]))
        args.main_process_port, args.deepspeed_fields_from_accelerate_config = free_port(), ""
        found = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
        from_config = {name: value for name, value in found.items() if os.environ.get(name) != value}
        port = str(free_port())
        self.streams, self.processes = [], []
        for rank in range(2):
            ranks = {"RANK": rank, "LOCAL_RANK": 0 if machines else rank, "GROUP_RANK": rank if machines else 0}
            sizes = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1 if machines else 2}
            address = {"MASTER_ADDR": ADDRESSES[0] if machines else "127.0.0.1", "MASTER_PORT": port}
            environment = {
                name: str(value) for name, value in (from_config | ranks | sizes | address | own[rank]).items()
            }
            streams = [folder / f"{script}-{rank}.{name}" for name in ("out", "err")]
            words = [str(ROOT / script), *map(str, argv)]
            self.streams.append(streams)
            machine = machines[rank] if machines else None
            self.processes.append(_start(words, folders[rank], environment, streams, machine))

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *error) -> None:
        for process in self.processes:
            process.kill()

    def wait(self, timeout: float = 240) -> list[int | None]:
        """Wait for both; returns their exit codes, None of one that goes on."""
        for process in self.processes:
            process.join(timeout)
        return [process.exitcode for process in self.processes]

    def said(self, stream: int) -> list[str]:
        """Return what each process has written: 0 to its output, 1 to its errors."""
        files = [streams[stream] for streams in self.streams]
        return [file.read_text(encoding="utf-8") if file.exists() else "" for file in files]


def _start(
    words: list[str], folder: Path, environment: dict[str, str], streams: list[Path], machine: str | None = None
) -> BaseProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120", **environment}
    process = _server.Process(target=_begin, args=(words, folder, environment, streams, machine))
    process.start()
    return process


def _begin(
    words: list[str], folder: Path, environment: dict[str, str], streams: list[Path], machine: str | None
) -> None:
    if machine:
        enter(machine)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, (name, path) in enumerate(zip(("stdout", "stderr"), streams, strict=True), 1):
        file = path.open("w", encoding="utf-8", buffering=1)
        os.dup2(file.fileno(), number)
        setattr(sys, name, file)
    # A new interpreter would read this from the environment, where `run_script` of the package sets it.
    transformers.utils.logging.disable_progress_bar()
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")

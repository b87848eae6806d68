"""Gets a process ready from which every command can be forked: servers on loopback, imports, and what commands start from."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from fault_parts.jobs import TOKEN, make_materials


def prepare(scratch: Path, jobs: Iterable[str]) -> str:
    """Start servers, import everything, and make materials for these jobs; returns the address of an endpoint for chats."""
    hub, chat = _serve(scratch)
    os.environ.update(
        HF_ENDPOINT=hub, HF_HUB_OFFLINE="0", HF_HOME=str(scratch / "hf"), HF_HUB_DISABLE_XET="1", OMP_NUM_THREADS="1",
        HF_HUB_VERBOSITY="error", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_TELEMETRY="1",
    )  # fmt: skip
    _import_everything()
    (scratch / "materials").mkdir()
    if not all(side_by_side(1, lambda number: make_materials(scratch / "materials", jobs))):
        sys.exit("the materials could not be made")
    return chat


def side_by_side(processes: int, work: Callable[[int], None]) -> list[bool]:
    """Do `work(number)` in so many processes forked from this one; returns which of them did it without an error."""
    begun = []
    for number in range(processes):
        begun.append(os.fork())
        if begun[-1] == 0:
            code = 1
            try:
                work(number)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
    return [os.waitpid(process, 0)[1] == 0 for process in begun]


def _serve(scratch: Path) -> tuple[str, str]:
    """Start a Hub and an endpoint in a process of their own, which ends with this one; returns their addresses."""
    (scratch / "hub" / "user").mkdir(parents=True)
    reading, writing = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        from helpers.chat_server import ChatServer, picture_of, questions
        from helpers.loopback_hub import serve

        def answer(request: dict):
            """Name a material that depends on the picture."""
            word = ("wood", "metal", "leather", "cotton")[int(picture_of(request), 16) % 4]
            return questions(("What material is this product made of?", word, "material"))

        with serve(scratch / "hub") as hub, ChatServer(reply=answer) as chat:
            hub.users[TOKEN] = {"name": "user"}
            os.write(writing, f"{hub.endpoint} {chat.url}".encode())
            while os.getppid() == parent:
                time.sleep(0.2)
            os._exit(0)
    hub, chat = os.read(reading, 1000).decode().split()
    return hub, chat


def _import_everything() -> None:
    """Import what commands import, so that those forked from this process begin at once.

    Nothing is computed here: threads of torch would not live in the forked ones.
    """
    import datasets  # noqa: F401
    import evaluate  # noqa: F401

    import blip2vqa.config.finetune
    import blip2vqa.evaluation.bertscore
    import blip2vqa.exchange.distilling
    import blip2vqa.generate.generating
    import blip2vqa.inference.answering
    import blip2vqa.inference.captioning
    import blip2vqa.inference.systems
    import blip2vqa.training.recipe  # noqa: F401
    from blip2vqa.exchange.commands import COMMANDS

    [command.function for command in COMMANDS.values()]

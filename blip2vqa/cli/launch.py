"""Several processes for one command, started by accelerate's launcher, whose exit code is that of the command."""

import logging
import subprocess
import sys
import warnings

from blip2vqa.utils.errors import InputError

FLAGS = {
    "config_file": "accelerate's own configuration, as `accelerate config` writes it",
    "num_processes": "processes of all machines together: one for each GPU",
    "num_machines": "machines",
    "machine_rank": "this machine's number, from 0",
    "main_process_ip": "address of machine 0",
    "main_process_port": "port of machine 0",
    "gpu_ids": "GPUs to use, as in 0,1",
    "mixed_precision": "no, fp16 or bf16",
}
"""Options of `accelerate launch` that a command hands on."""
TOLD = (2, 130, 143)
"""Exit codes of a command that say why: wrong input, Ctrl-C, SIGTERM."""


def split_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into flags of the launcher, and the rest."""
    launcher, rest, words = [], [], list(argv)
    while words:
        word = words.pop(0)
        flag, sign, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in FLAGS:
            rest.append(word)
            continue
        if not sign and not words:
            raise InputError(f"argument {flag}: expected one argument")
        launcher.append(f"--{name}={value if sign else words.pop(0)}")
    return launcher, rest


def launch(command: str, flags: list[str], argv: list[str]) -> None:
    """Run `blip2vqa COMMAND ARGV…` in several processes, and exit with the code of the first that failed.

    Processes of a machine without accelerator meet over gloo. Raises `InputError` for flags that the launcher refuses.
    """
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # This process only waits: what failed, the others have said themselves.
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    if not torch.accelerator.is_available():
        if not any(flag.startswith("--config_file=") for flag in flags):
            flags = ["--multi_gpu", *flags]  # accelerate's --cpu would start one process
        if command == "finetune":
            argv = [*argv, "--use_cpu=true"]
    parser = launch_command_parser()
    parser.error = _refuse
    try:
        launch_command(parser.parse_args([*flags, "--module", "blip2vqa", command, *argv]))
    except (ValueError, OSError) as error:
        raise InputError(" ".join(str(error).split())) from error
    except SignalException as error:
        sys.exit(128 + error.sigval)  # the others have been told, and have said what they kept
    except ChildFailedError as error:
        # The launcher ends the others when the first has ended, so that their codes say nothing.
        codes = {failure.exitcode for failure in error.failures.values()}
        sys.exit(next((code for code in TOLD if code in codes), 1))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode in TOLD else 1)


def _refuse(message: str) -> None:
    raise InputError(message)

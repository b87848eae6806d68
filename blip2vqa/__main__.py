"""The command `blip2vqa`, and `python -m blip2vqa`: one front door to all scripts.

blip2vqa COMMAND …                      COMMAND --help lists a command's options
blip2vqa finetune --num_processes 2 …   in two processes, started by accelerate's launcher
"""

import difflib
import sys
from importlib import import_module

from blip2vqa.utils.console import COMMANDS, run_script
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.version import __version__

LAUNCHABLE = ("finetune", "infer", "caption")
"""Commands that may run in several processes."""


def main() -> None:
    """Run the command that the first argument names."""
    argv = sys.argv[1:]
    module = import_module(f"blip2vqa.cli.{argv[0]}") if argv and argv[0] in COMMANDS else None
    run_script(lambda: _run(module, argv), module.GO_ON if module else "")


def _run(module, argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
    elif argv[0] == "--version":
        print(f"blip2vqa {__version__}")
    elif module is None:
        begun = [name for name in COMMANDS if name.startswith(argv[0])]
        near = begun or difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        raise InputError(f"command {argv[0]!r}: not known; {hint}")
    elif argv[0] in LAUNCHABLE:
        from blip2vqa.cli.launch import launch, split_flags

        flags, rest = split_flags(argv[1:])
        if flags:
            module.check(rest)
            launch(argv[0], flags, rest)
        else:
            module.main(rest)
    else:
        module.main(argv[1:])


def _help() -> str:
    from blip2vqa.cli.launch import FLAGS

    summaries = {name: import_module(f"blip2vqa.cli.{name}").__doc__.splitlines()[0] for name in COMMANDS}
    lines = [__doc__, "Commands:", *(f"  {name:<10} {summary}" for name, summary in summaries.items())]
    lines += ["", f"Options of accelerate's launcher, for {', '.join(LAUNCHABLE)}:"]
    return "\n".join([*lines, *(f"  --{name:<18} {text}" for name, text in FLAGS.items())])


if __name__ == "__main__":
    main()

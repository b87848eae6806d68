"""Keep, check, merge, move and publish adapters.

    blip2vqa exchange COMMAND …

ADAPTER is a folder, a name in the store, or a Hub id. `blip2vqa exchange COMMAND --help` lists a
command's options; --json prints its result as JSON. The exit code of check is 0 for an adapter that
fits, 3 for one that can be converted, 1 for one that cannot. Commands:
"""

import difflib
import json
import sys

from blip2vqa.cli.arguments import check_paths, described
from blip2vqa.exchange.commands import COMMANDS, overview
from blip2vqa.utils.console import called
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.terminal import some_lines
from blip2vqa.utils.version import __version__

GO_ON = "run the same command again"


def main(argv: list[str] | None = None) -> None:
    """Carry out one command, and print its result."""
    argv = sys.argv[1:] if argv is None else argv
    example = f"; for example: {called('exchange')} check ADAPTER BASE (--help shows what each does)"
    if not argv:
        raise InputError(f"command: missing; choose from {', '.join(COMMANDS)}{example}")
    name, *argv = argv
    if name in ("-h", "--help"):
        print(described("exchange", __doc__), overview(), sep="\n")
        return
    if name == "--version":
        print(f"blip2vqa {__version__}")
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else example
        raise InputError(f"command {name!r}: not known; choose from {', '.join(COMMANDS)}{hint}")
    from blip2vqa.config.parser import parse_command

    command = COMMANDS[name]
    args = parse_command(name, command.arguments, argv, called("exchange"))
    check_paths([args])
    raise_all(args.check())
    result = command.run(args)
    if args.json:
        # A score may be NaN, which JSON has not.
        result = json.loads(json.dumps(result, default=str), parse_constant=lambda name: None)
        text = json.dumps(result, indent=2, ensure_ascii=False)
        print(text if text == some_lines(text) else json.dumps(result, indent=2))
    else:
        command.show(result)
    if code := command.exit_code(result):
        sys.exit(code)

"""Keep, check, merge, move and publish adapters.

    python exchange.py COMMAND …

ADAPTER is a folder, a name in the store, or a Hub id. `python exchange.py COMMAND --help` lists a command's options; --json
prints its result as JSON. Commands:
"""

import json
import sys

from blip2vqa.utils.console import run_script


def main() -> None:
    from blip2vqa.exchange.commands import COMMANDS, overview
    from blip2vqa.utils.errors import InputError, raise_all

    name, *argv = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__, overview(), sep="\n")
        return
    if name not in COMMANDS:
        raise InputError(f"command {name!r}: not known; choose from {', '.join(COMMANDS)}")
    from blip2vqa.config.parser import parse_command

    command = COMMANDS[name]
    args = parse_command(name, command.arguments, argv)
    raise_all(args.check())
    result = command.run(args)
    if args.json:
        # A score may be NaN, which JSON has not.
        result = json.loads(json.dumps(result, default=str), parse_constant=lambda name: None)
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        command.show(result)
    sys.exit(command.exit_code(result))


if __name__ == "__main__":
    run_script(main)

"""Keep, check, merge, move and publish adapters.

    blip2vqa exchange list [STORE]                             adapters in the store
    blip2vqa exchange inspect ADAPTER [--plot NORMS.png]       what it is, how much it adds where
    blip2vqa exchange check ADAPTER BASE                       whether it fits the base, and why
    blip2vqa exchange add ADAPTER [--name NAME]                into the store
    blip2vqa exchange remove NAME                              out of the store
    blip2vqa exchange export ADAPTER [--output FILE.zip]       as one file with checksums
    blip2vqa exchange import FILE.zip                          such a file into the store
    blip2vqa exchange merge A=0.7 B=0.3 --output C             weighted sum of what they add
    blip2vqa exchange resize ADAPTER --rank 8 --output B       the best adapter of another rank
    blip2vqa exchange extract BASE TUNED --rank 16 --output A  from two checkpoints' difference
    blip2vqa exchange fuse ADAPTER --output MODEL              the base with it in its weights
    blip2vqa exchange transfer ADAPTER TARGET_BASE --output B  to another base, measured there
    blip2vqa exchange swap A B --output FOLDER                 each to the other's base
    blip2vqa exchange push ADAPTER USER/NAME                   to the Hub, private by default
    blip2vqa exchange pull USER/NAME[@REVISION]                from the Hub into the store

ADAPTER is a folder, a name in the store, or a Hub id. `blip2vqa exchange COMMAND --help` lists a
command's options; --json prints its result as JSON. The exit code of check is 0 for an adapter that
fits, 3 for one that can be converted, 1 for one that cannot.
"""

import json
import sys

from blip2vqa.cli.arguments import called, check_paths, described
from blip2vqa.config.exchange import COMMANDS
from blip2vqa.utils.errors import InputError, raise_all

GO_ON = "run the same command again"


def main(argv: list[str] | None = None) -> None:
    """Carry out one command, and print its result."""
    argv = sys.argv[1:] if argv is None else argv
    name, *argv = argv or ["--help"]
    if name in ("-h", "--help"):
        print(described("exchange", __doc__))
        return
    if name not in COMMANDS:
        raise InputError(f"command {name!r}: not known; choose from {', '.join(COMMANDS)}")
    from blip2vqa.config.parser import parse_command

    args = parse_command(name, COMMANDS[name], argv, called("exchange"))
    check_paths([args])
    raise_all(args.check())
    from blip2vqa.exchange import commands
    from blip2vqa.reporting.exchange import EXIT_CODES, show

    result = commands.run(name, args)
    if args.json:
        # A score may be NaN, which JSON has not.
        result = json.loads(json.dumps(result, default=str), parse_constant=lambda name: None)
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        show(name, result)
    if name == "check":
        sys.exit(EXIT_CODES[result["verdict"]])

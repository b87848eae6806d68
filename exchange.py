"""Keep, check, merge, move and publish adapters.

    python exchange.py list [STORE]                               adapters in the store
    python exchange.py inspect ADAPTER [--plot NORMS.png]         what it is, and how much it adds where
    python exchange.py check ADAPTER BASE                         ok (exit code 0), convertible (3) or incompatible (1), and why
    python exchange.py add ADAPTER [--name NAME]                  into the store; remove NAME takes it out
    python exchange.py export ADAPTER [--output FILE.zip]         as one file with checksums; import FILE.zip reads it
    python exchange.py merge A=0.7 B=0.3 --output C               weighted sum of what they add
    python exchange.py resize ADAPTER --rank 8 --output B         the best adapter of another rank
    python exchange.py extract BASE TUNED --rank 16 --output A    LoRA from the difference of two checkpoints
    python exchange.py fuse ADAPTER --output MODEL                the base with the adapter in its weights
    python exchange.py transfer ADAPTER TARGET_BASE --output B    to another base; with a table it is measured there
    python exchange.py swap A B --output FOLDER                   each to the other's base
    python exchange.py push ADAPTER USER/NAME                     to the Hub, private unless --private false
    python exchange.py pull USER/NAME[@REVISION]                  from the Hub into the store

ADAPTER is a folder, a name in the store, or a Hub id. `python exchange.py COMMAND --help` lists a command's options; --json
prints its result as JSON.
"""

import json
import sys

from blip2vqa.utils.console import run_script


def main() -> None:
    from blip2vqa.utils.errors import InputError, raise_all

    name, *argv = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    from blip2vqa.config.exchange import COMMANDS

    if name not in COMMANDS:
        raise InputError(f"command {name!r}: not known; choose from {', '.join(COMMANDS)}")
    from blip2vqa.config.parser import parse_command

    args = parse_command(name, COMMANDS[name], argv)
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


if __name__ == "__main__":
    run_script(main)

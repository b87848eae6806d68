"""Command lines: a JSON configuration first, flags on top, every mistake said in one line."""

import difflib
import json
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter
from pathlib import Path

from transformers import HfArgumentParser

from blip2vqa.config.styles import style_file
from blip2vqa.utils.errors import InputError, raise_all

# Going on with a run, or publishing it, is not part of what it is; and a token is for nobody's eyes.
_ONCE = ("resume_from_checkpoint", "push_to_hub", "hub_token")
_SWITCH = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
"""What `HfArgumentParser` reads as a truth value."""


class _Parser(HfArgumentParser):
    def error(self, message: str):
        # argparse would print the usage of over a hundred options first, and hide the one line that matters.
        raise InputError(f"{message} (--help lists the options)")


def parse(dataclasses: list[type], description: str, argv: list[str] | None = None) -> tuple[tuple, dict]:
    """Parse `[CONFIG.json] [--flag value …]` into `dataclasses`; the options of a `--style` lie beneath both.

    Returns the instances, and the resolved values as a flat dict that repeats the run when read as CONFIG.json.
    Raises `InputError` for whatever does not parse.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(dataclasses, description=description, allow_abbrev=False, add_help=True)
    options = {option.lstrip("-"): action for action in parser._actions for option in action.option_strings}
    flags = []
    if argv and not argv[0].startswith("-"):
        flags = _flags_of_json(argv.pop(0), options)
    argv = flags + argv
    style = _last_value(argv, "--style") if "style" in options else None
    if style:
        argv = _flags_of_json(str(style_file(style)), options) + argv  # beneath all others
    if argv and not argv[0].startswith("-"):
        raise InputError(f"argument {argv[0]!r}: expected a CONFIG.json first or a --flag")
    _allow_bare_resume(argv)
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        problems = [_unknown(item, options, "argument") for item in unknown if item.startswith("-")]
        raise InputError(
            *problems or [f"argument {unknown[0]!r}: not expected here; text with blanks needs quotation marks"]
        )
    resolved = _resolved(dataclasses, vars(namespace), vars(parser.parse_known_args([])[0]))
    try:
        return parser.parse_args_into_dataclasses(argv, look_for_args_file=False), resolved
    except (ValueError, ImportError) as error:  # what the dataclasses check by themselves in __post_init__
        raise InputError(" ".join(str(error).split())) from error


def _resolved(dataclasses: list[type], values: dict, defaults: dict) -> dict:
    """All of the options declared by the project itself, whose defaults may change, and what differs of the others."""
    own = {name for cls in dataclasses for name in cls.__annotations__}
    chosen = {name: value for name, value in values.items() if name in own or value != defaults[name]}
    return {name: value for name, value in chosen.items() if value is not None and name not in _ONCE}


def _flags_of_json(path: str, options: dict) -> list[str]:
    """A JSON object as flags, so that one parser checks and converts both."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"configuration {path}: no such file; the first argument is a JSON file or a --flag")
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise InputError(f"configuration {path}: not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"configuration {path}: must hold one JSON object of option: value")
    problems = [_unknown(key, options, f"configuration {path}: key") for key in values if key not in options]
    if problems:
        raise InputError(*problems)
    spelt: dict[str, str] = {}
    for key in values:
        other = spelt.setdefault(options[key].dest, key)
        if other != key:
            problems.append(f"configuration {path}: {other} and {key} are the same option; keep one")
    if problems:
        raise InputError(*problems)
    flags = []
    for key, value in values.items():
        if value is None:
            continue  # null stands for the default
        if isinstance(value, list):
            flags += [f"--{key}", *map(str, value)]
        elif isinstance(value, dict):
            flags.append(f"--{key}={json.dumps(value)}")
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            flags.append(f"--{key}={text}")
    return flags


def _last_value(argv: list[str], flag: str) -> str | None:
    """What a flag is given last, in either spelling; None without it."""
    value = None
    for item, following in zip(argv, [*argv[1:], None], strict=True):
        value = following if item == flag else item[len(flag) + 1 :] if item.startswith(f"{flag}=") else value
    return value


def _unknown(name: str, options: dict, what: str) -> str:
    name = name.split("=")[0]
    near = difflib.get_close_matches(name.lstrip("-"), options, n=1)
    hint = f"did you mean {'--' if name.startswith('-') else ''}{near[0]}?" if near else "--help lists the options"
    return f"{what} {name}: unknown; {hint}"


def _allow_bare_resume(argv: list[str]) -> None:
    """`--resume_from_checkpoint` with no value means the last checkpoint, as in Trainer's own `True`."""
    name = "--resume_from_checkpoint"
    for position, item in enumerate(argv):
        if item == name and (position + 1 == len(argv) or argv[position + 1].startswith("--")):
            argv[position] = f"{name}=true"


def parse_command(name: str, arguments: type, argv: list[str]):
    """Parse `WORD … [--flag value …]` of the command `name` into its dataclass; see `exchange_arguments`.

    Words and flags may stand in any order; a word is the first of `WORDS` that no flag gives. Raises `InputError`.
    """
    words = [word.upper() if word in arguments.NEEDED else f"[{word.upper()}]" for word in arguments.WORDS]
    needed = [f"--{one} {one.upper()}" for one in arguments.NEEDED if one not in arguments.WORDS]
    shown = {"usage": " ".join(["%(prog)s", name, *words, *needed, "[--option VALUE …]"]), "formatter_class": _Help}
    parser = _Parser([arguments], description=arguments.__doc__, allow_abbrev=False, **shown)
    options = {option.lstrip("-"): action for action in parser._actions for option in action.option_strings}
    words, flags = _words_and_flags(argv, options)
    names = [flag.partition("=")[0].lstrip("-") for flag in flags if flag.startswith("-")]
    given = {options[name].dest for name in names if name in options}
    for option in arguments.WORDS:
        if not words or option in given:
            continue
        count = len(words) if options[option].nargs == "+" else 1
        flags += [f"--{option}", *words[:count]]
        words = words[count:]
    if words:
        raise InputError(f"argument {words[0]!r}: not expected here; text with blanks needs quotation marks")
    namespace = parser.parse_args(flags)
    missing = [option for option in arguments.NEEDED if getattr(namespace, option) in (None, "", [])]
    if missing:
        shown = [f"--{option}" if option not in arguments.WORDS else option.upper() for option in missing]
        raise InputError(f"{', '.join(shown)}: missing (--help lists the options)")
    return arguments(**vars(namespace))


class _Help(ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


def _words_and_flags(argv: list[str], options: dict) -> tuple[list[str], list[str]]:
    """Words that are no flag's value, and the rest; a switch takes none but yes or no, and what follows it stays a word."""
    words, flags, problems, rest = [], [], [], list(argv)
    while rest:
        item = rest.pop(0)
        if not item.startswith("-"):
            words.append(item)
            continue
        flags.append(item)
        flag, sign, _ = item.partition("=")
        action = options.get(flag.lstrip("-"))
        if action is None:
            problems.append(_unknown(item, options, "argument"))
        if action is None or sign or action.nargs == 0:
            continue
        most = len(rest) if action.nargs == "+" else 1
        while rest and most and not rest[0].startswith("--") and (action.nargs != "?" or rest[0].lower() in _SWITCH):
            flags.append(rest.pop(0))
            most -= 1
    raise_all(problems)
    return words, flags

"""Command lines and configuration files as dataclasses: a file first, flags on top, every mistake said in one line."""

import difflib
import json
import math
from argparse import Action
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from transformers.hf_argparser import HfArgumentParser

from blip2vqa.config.fields import Option
from blip2vqa.config.files import read_config
from blip2vqa.config.help import format_help
from blip2vqa.config.paths import from_file
from blip2vqa.config.styles import style_file
from blip2vqa.utils.console import LEVELS, set_log_level
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.version import __version__

# How a run is launched, gone on with, published or printed is not part of what it is; and a token is for nobody's eyes.
_ONCE = ("resume_from_checkpoint", "push_to_hub", "hub_token", "log_level", "ddp_backend")
_SWITCH = ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
"""What `HfArgumentParser` reads as a truth value."""


class Parser(HfArgumentParser):
    """`HfArgumentParser` with this project's --help, --version and --log_level, whose errors are `InputError`."""

    def __init__(
        self, dataclasses: list[type], usage: str, description: str, example: str = "", known: Sequence[str] = ()
    ):
        """`example`: a whole command line. `known`: further options, whose values are taken and not looked at."""
        super().__init__(dataclasses, usage=usage, description=description, allow_abbrev=False, add_help=False)
        self.example = example
        self.add_argument("-h", "--help", nargs="?", const="", action=_Help)
        self.add_argument("--version", action="version", version=f"blip2vqa {__version__}")
        if "log_level" not in (*self.options, *known):
            self.add_argument("--log_level", "--log-level", choices=LEVELS)
        for name in known:
            if name not in self.options:
                self.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs="*", dest=name)
        if "resume_from_checkpoint" in self.options:  # with no value: from the last one, as Trainer's own True
            resume = self.options["resume_from_checkpoint"]
            resume.nargs, resume.const = "?", "true"

    @property
    def options(self) -> dict[str, Action]:
        """Every spelling of an option, without its dashes."""
        return {text.lstrip("-"): action for action in self._actions for text in action.option_strings}

    def instances(self, namespace) -> tuple:
        """Make the dataclasses of what was parsed. Raises `InputError` for what they refuse themselves."""
        set_log_level(namespace.log_level)
        values = vars(namespace)
        endless = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        raise_all(
            [f"--{name}: {values[name]} is no number that can be computed with; give another" for name in endless]
        )
        try:
            return tuple(
                cls(**{one.name: values[one.name] for one in fields(cls) if one.init}) for cls in self.dataclass_types
            )
        except (ValueError, ImportError, TypeError, OSError, OverflowError) as error:  # of __post_init__
            raise InputError(" ".join(str(error).split())) from error

    def error(self, message: str):
        # argparse would print the usage of over a hundred options first, and hide the one line that matters.
        example = f"; for example: {self.example}" if self.example else ""
        raise InputError(f"{message}{example} (--help lists the options)")


class _Help(Action):
    def __call__(self, parser, namespace, values, option_string=None):
        if values not in ("", "all"):
            raise InputError(f"--help {values}: takes nothing, or all")
        print(format_help(parser.usage, parser.description, parser.dataclass_types, everything=values == "all"))
        parser.exit()


def parse(
    dataclasses: list[type],
    description: str,
    argv: Sequence[str],
    *,
    usage: str = "",
    example: str = "",
    known: Sequence[str] = (),
) -> tuple[tuple, dict]:
    """Parse `[CONFIG.json|yaml] [--flag value …]` into `dataclasses`; the options of a `--style` lie beneath both.

    Returns the instances, and the resolved values as a flat dict that repeats the run when read as a configuration.
    `known`: further options, that are taken and not read. Raises `InputError` for whatever does not parse.
    """
    parser = Parser(dataclasses, usage, description, example, known)
    options, argv, in_file = parser.options, list(argv), []
    if argv and not argv[0].startswith("-"):
        in_file = _flags_of_file(argv.pop(0), options)
    if argv and not argv[0].startswith("-"):
        raise InputError(f"argument {argv[0]!r}: expected a CONFIG.json first or a --flag")
    raise_all(_spelt_twice((item for item in argv if item.startswith("--")), options))
    argv = in_file + argv
    style = getattr(parser.parse_known_args(argv)[0], "style", None)
    if style:
        argv = _flags_of_file(str(style_file(style)), options) + argv  # beneath all others
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        problems = [unknown_option(item, options, "argument") for item in unknown if item.startswith("-")]
        raise InputError(*problems or [not_expected(unknown[0])])
    defaults = vars(parser.parse_known_args([])[0])
    return parser.instances(namespace), _resolved(dataclasses, vars(namespace), defaults)


def _resolved(dataclasses: list[type], values: dict, defaults: dict) -> dict:
    """Return all of the options declared by the project itself, whose defaults may change, and what differs of the others."""
    own = {one.name for cls in dataclasses for one in fields(cls) if isinstance(one, Option)}
    chosen = {name: value for name, value in values.items() if name in own or value != defaults[name]}
    return {name: value for name, value in chosen.items() if value is not None and name not in _ONCE}


def _flags_of_file(path: str, options: dict[str, Action]) -> list[str]:
    """Return a configuration file as flags, so that one parser checks and converts both."""
    if not Path(path).is_file():
        raise InputError(f"configuration {path}: no such file; the first argument is a JSON or YAML file or a --flag")
    values, where = from_file(read_config(path), Path(path).parent), f"configuration {path}: "
    known = options.keys() - {"h", "help", "version"}
    raise_all([unknown_option(key, options, f"{where}key") for key in values if key not in known])
    raise_all([where + problem for problem in _spelt_twice(values, options)])
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


def _spelt_twice(names: Iterable[str], options: dict[str, Action]) -> list[str]:
    """Name every two spellings of one option; a flag may be repeated in one spelling, the last counts."""
    first: dict[str, str] = {}
    problems = []
    for given in names:
        name = given.partition("=")[0]
        action = options.get(name.lstrip("-"))
        other = first.setdefault(action.dest, name) if action else name
        if other != name:
            problems.append(f"{other} and {name} are the same option; keep one")
    return problems


def unknown_option(name: str, options: dict[str, Action], what: str) -> str:
    """Say that an option is not known, with the one that is spelt most like it."""
    name = name.split("=")[0]
    near = difflib.get_close_matches(name.lstrip("-"), options, n=1)
    hint = f"did you mean {'--' if name.startswith('-') else ''}{near[0]}?" if near else "--help lists the options"
    return f"{what} {name}: unknown; {hint}"


def not_expected(word: str) -> str:
    """Say that a word stands where none may stand."""
    return f"argument {word!r}: not expected here; text with blanks needs quotation marks"


def parse_command(name: str, arguments: type, argv: list[str], program: str = "exchange.py"):
    """Parse `WORD … [--flag value …]` of the command `name` into its dataclass, one of `blip2vqa.config.exchange`.

    A word is the value of the first of its `words` that no flag gives. Raises `InputError`.
    """
    needed, words = arguments.needed(), arguments.words()
    flags = [f"--{one} {one.upper()}" for one in needed if one not in words]
    # A script of one command is called without its name.
    program = program if program.endswith(f" {name}") or program.endswith(f"{name}.py") else f"{program} {name}"
    example = " ".join([program, *(word.upper() for word in words if word in needed), *flags])
    shown = [word.upper() if word in needed else f"[{word.upper()}]" for word in words]
    usage = " ".join([program, *shown, *flags, "[--option VALUE …]"])
    parser = Parser([arguments], usage, arguments.__doc__, example)
    options = parser.options
    words, flags = _words_and_flags(argv, options)
    names = [flag.partition("=")[0].lstrip("-") for flag in flags if flag.startswith("-")]
    given = {options[name].dest for name in names if name in options}
    for option in arguments.words():
        if not words or option in given:
            continue
        count = len(words) if options[option].nargs == "+" else 1
        flags += [f"--{option}", *words[:count]]
        words = words[count:]
    if words:
        raise InputError(not_expected(words[0]))
    namespace = parser.parse_args(flags)
    missing = [option for option in arguments.needed() if getattr(namespace, option) in (None, "", [])]
    if missing:
        shown = [f"--{option}" if option not in arguments.words() else option.upper() for option in missing]
        raise InputError(f"{', '.join(shown)}: missing; for example: {example} (--help lists the options)")
    return parser.instances(namespace)[0]


def _words_and_flags(argv: list[str], options: dict[str, Action]) -> tuple[list[str], list[str]]:
    """Split a command line into words that are no flag's value, and the rest.

    A switch takes yes or no as its value and nothing else: what follows it stays a word.
    """
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
            problems.append(unknown_option(item, options, "argument"))
        if action is None or sign or action.nargs == 0:
            continue
        most = len(rest) if action.nargs == "+" else 1
        values = (*_SWITCH, "all") if action.dest == "help" else _SWITCH
        while rest and most and not rest[0].startswith("--") and (action.nargs != "?" or rest[0].lower() in values):
            flags.append(rest.pop(0))
            most -= 1
    raise_all(problems)
    return words, flags

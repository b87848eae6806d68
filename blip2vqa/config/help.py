"""The text of --help: options under headings, one line each, the default in brackets."""

import re
import textwrap
from dataclasses import MISSING, Field, fields, is_dataclass

from blip2vqa.config.fields import Option
from blip2vqa.utils.console import LEVELS

WIDTH = 100


def option_groups(dataclasses: list[type]) -> dict[str, list[Field]]:
    """Return heading → the options under it. Those that a class takes over from a library come last, under "Trainer"."""
    groups: dict[str, list[Field]] = {}
    others = []
    for arguments in dataclasses:
        classes = [cls for cls in arguments.__mro__ if is_dataclass(cls)]
        own = next(cls for cls in classes if all(isinstance(one, Option) for one in fields(cls)))
        names = {one.name for one in fields(own)}
        others += [one for one in fields(arguments) if one.init and one.name not in names]
        heading = "Options"
        for one in sorted(fields(own), key=lambda one: not one.positional):
            heading = one.group or heading
            groups.setdefault(heading, []).append(one)
    return groups | ({"Trainer": others} if others else {})


def format_help(usage: str, description: str, dataclasses: list[type], everything: bool) -> str:
    """Format the help of a command: the first sentence of each option, or with `everything` all of its text."""
    lines = [f"usage: {usage}", "", *description.strip().splitlines()]
    groups = option_groups(dataclasses)
    column = max(len(one.name) for group in groups.values() for one in group) + 6
    for heading, group in groups.items():
        lines += ["", f"{heading}:"]
        for one in group:
            text = one.metadata.get("help", "").replace("%%", "%")
            default = _shown_default(one, text)
            text = " ".join(text.split()) if everything else text.partition(". ")[0].removesuffix(".")
            text += f" [{default}]" if default else ""
            start = f"  --{one.name:<{column - 4}}"
            lines += textwrap.wrap(start + text, WIDTH, subsequent_indent=" " * column, break_on_hyphens=False)
    return "\n".join([*lines, "", f"Also: --log_level {'|'.join(LEVELS)}, --version, --help all"])


def _shown_default(one: Field, text: str) -> str:
    told = re.search(r"Default: (.+?)\.(?: |$)", text)  # one that depends on something is told in words
    if told:
        return told[1]
    default = one.default if one.default_factory is MISSING else one.default_factory()
    if default is None or default is MISSING:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return " ".join(map(str, default)) if isinstance(default, list) else str(default)

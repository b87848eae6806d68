"""How answers are decoded: the one list of its options, from which arguments, manifests and model cards take theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from blip2vqa.config.fields import Option, option

MAX_COUNT = 1 << 20
"""Most beams, and most tokens: beyond any model's memory, and a guard against adapters made to exhaust it."""


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; kept in an adapter's manifest."""

    num_beams: int = option(
        1, "Beams; 1 is greedy decoding.", group="Answers and scores", at_least=1, at_most=MAX_COUNT
    )
    max_new_tokens: int = option(
        10, "Longest answer in tokens, with its end token. Default: 10, captions 50.", at_least=1, at_most=MAX_COUNT
    )
    min_new_tokens: int = option(0, "Shortest answer in tokens.", at_least=0, at_most=MAX_COUNT)
    do_sample: bool = option(False, "Draw the words at random instead of taking the likeliest.")
    temperature: float = option(1.0, "With --do_sample: below 1 keeps to likely words.", above=0)
    top_p: float = option(1.0, "With --do_sample: share of probability to draw among.", above=0, at_most=1)
    sampling_seed: int = option(
        0,
        "With --do_sample: the same seed and batches give the same words.",
        at_least=-(1 << 63),  # to (1 << 64) - 1 is what torch.manual_seed takes
        at_most=(1 << 64) - 1,
    )

    def describe(self) -> str:
        """Describe it in a few words, for the block printed at the start of a run."""
        how = f"{self.num_beams} beams" if self.num_beams > 1 else "greedy"
        if self.do_sample:
            how = f"sampled (temperature {self.temperature:g}, top p {self.top_p:g}, seed {self.sampling_seed})"
        least = f"{self.min_new_tokens} to " if self.min_new_tokens else "up to "
        return f"{how}, {least}{self.max_new_tokens} tokens"


DECODING: dict[str, Option] = {setting.name: setting for setting in fields(Decoding)}
"""Its fields, by name."""


def find_out_of_range(options: Mapping) -> list[tuple[str, object, str]]:
    """Find (name, value, what it must be) of each option that is out of range, or does not go with another.

    `options` holds some of the settings, each of its type or None for a default; others may stand there.
    """
    given = {name: options[name] for name in DECODING if options.get(name) is not None}
    ranges = {name: DECODING[name].range for name in given}
    found = [(name, given[name], str(limits)) for name, limits in ranges.items() if given[name] not in limits]
    least, most = given.get("min_new_tokens", 0), given.get("max_new_tokens", MAX_COUNT)
    if not found and least > most:
        found.append(("min_new_tokens", least, f"at most max_new_tokens, {most}"))
    if given.get("do_sample") and given.get("num_beams", 1) > 1:
        found.append(("num_beams", given["num_beams"], "1, since do_sample draws one text at a time"))
    return found


def check_decoding(options: Mapping) -> list[str]:
    """Name what is out of range among the options of decoding, one line each; see `find_out_of_range`."""
    found = find_out_of_range(options)
    return [f"--{name}: {value!r} is out of range; it must be {must}" for name, value, must in found]

"""How answers are decoded: the one list of its options, from which arguments, manifests and model cards take theirs.

Each field's metadata holds its line of help (`help`), its name in a model card (`card`, where the card shows it) and its
range (`at_least`, `above`, `at_most`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

MAX_COUNT = 1 << 20
"""Most beams, and most tokens: beyond any model's memory, and a guard against adapters made to exhaust it."""


def _setting(default, help: str, **metadata):
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded; kept in an adapter's manifest."""

    num_beams: int = _setting(1, "Beams; 1 is greedy decoding.", card="beams", at_least=1, at_most=MAX_COUNT)
    max_new_tokens: int = _setting(
        10,
        "Longest answer, in tokens, its end token included; default: 10, for captions 50.",
        card="longest answer (tokens)",
        at_least=1,
        at_most=MAX_COUNT,
    )
    min_new_tokens: int = _setting(0, "Shortest answer, in tokens.", at_least=0, at_most=MAX_COUNT)
    do_sample: bool = _setting(False, "Draw the words at random instead of taking the likeliest.")
    temperature: float = _setting(1.0, "Of --do_sample: below 1 keeps to likely words, above 1 strays.", above=0)
    top_p: float = _setting(
        1.0,
        "Of --do_sample: among the likeliest words that make up this probability, above 0 to 1.",
        above=0,
        at_most=1,
    )
    sampling_seed: int = _setting(
        0,
        "Of --do_sample: the same seed and the same batches give the same words.",
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


DECODING = {setting.name: setting for setting in fields(Decoding)}
"""Its fields, by name."""


def find_out_of_range(options: Mapping) -> list[tuple[str, object, str]]:
    """Find (name, value, what it must be) of each option that is out of range, or does not go with another.

    `options` holds some of the settings, each of its type or None for a default.
    """
    given = {name: options[name] for name in DECODING if options.get(name) is not None}
    found = []
    for name, value in given.items():
        limits = DECODING[name].metadata
        low, high = limits.get("at_least", limits.get("above", value)), limits.get("at_most", value)
        if not low <= value <= high or value == limits.get("above"):
            found.append((name, value, describe_range(limits)))
    least, most = given.get("min_new_tokens", 0), given.get("max_new_tokens", MAX_COUNT)
    if not found and least > most:
        found.append(("min_new_tokens", least, f"at most max_new_tokens, {most}"))
    if given.get("do_sample") and given.get("num_beams", 1) > 1:
        found.append(("num_beams", given["num_beams"], "1, since do_sample draws one text at a time"))
    return found


def describe_range(limits: Mapping) -> str:
    """Describe the range in a field's metadata: "at least 1", "from 0 to 5", "above 0, at most 1"."""
    if "at_least" in limits and "at_most" in limits:
        return f"from {limits['at_least']:,} to {limits['at_most']:,}"
    words = {"at_least": "at least", "above": "above", "at_most": "at most"}
    return ", ".join(f"{word} {limits[key]:,}" for key, word in words.items() if key in limits)

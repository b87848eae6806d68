"""Which adapter answers a row of a batch: the model as it was loaded, its base alone, or an adapter by name."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class AdapterRef:
    """One adapter of a loaded base, or none: `CURRENT`, `BASE`, or `AdapterRef.named(name)`.

    References can be sorted, so that the rows of one adapter can be put side by side.
    """

    kind: str
    name: str = ""
    """As the user named it; empty for `BASE` and `CURRENT`."""

    @classmethod
    def named(cls, name: str) -> "AdapterRef":
        """Refer to an adapter by the name that the user gave it."""
        return cls("named", name)


BASE = AdapterRef("base")
"""The base alone, whatever adapters are beside it."""
CURRENT = AdapterRef("current")
"""The model as it was loaded: under the adapter that was given without a name, or that trains; without one, the base."""

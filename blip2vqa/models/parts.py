"""Models that hold some of their parts alone."""

from collections.abc import Iterable

from torch import nn


def keep_parts(model: nn.Module, parts: Iterable[str] | None) -> None:
    """Leave out (in place) what belongs to none of `parts`, names of `model.PARTS`; None keeps all.

    Towers run once for each image, without the language model in memory, and training runs without them. Of a whole checkpoint
    only what stays is read.
    """
    absent = [] if parts is None else [part for part in model.PARTS if part not in parts]
    names = [name for part in absent for name in model.PARTS[part]]
    for name in names:
        setattr(model, name, None)
    if "language_model" in absent:
        model.all_tied_weights_keys = {}
    model._keys_to_ignore_on_load_unexpected = {rf"^{name}(\.|$)" for name in names}

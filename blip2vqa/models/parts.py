"""Models that hold some of their parts alone."""

from collections.abc import Iterable

from torch import nn


class PartialModel:
    """A model of transformers, mixed in before its class, that may be built without some of its parts.

    Towers run once for each image, without the language model in memory, and training runs without them. Of a whole checkpoint
    only what stays is read.
    """

    def __init__(self, config, absent: Iterable[str] = ()):
        super().__init__(config)
        leave_out(self, absent)


def leave_out(model: nn.Module, absent: Iterable[str]) -> None:
    """Replace these attributes of a model by None, in place; `Family.absent` names them."""
    for name in absent:
        setattr(model, name, None)
    tied = model.all_tied_weights_keys.items()
    model.all_tied_weights_keys = {one: other for one, other in tied if one.partition(".")[0] not in absent}
    model._keys_to_ignore_on_load_unexpected = {rf"^{name}(\.|$)" for name in absent}

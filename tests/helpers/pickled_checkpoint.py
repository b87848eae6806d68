"""Checkpoints as older versions of transformers saved them."""

import json

import torch


def save_pickled(state: dict, folder, parts: int = 1) -> None:
    """As older versions of transformers saved."""
    keys = list(state)
    shares = [keys[part::parts] for part in range(parts)]
    names = ["pytorch_model.bin" if parts == 1 else f"pytorch_model-{p + 1:05}-of-{parts:05}.bin" for p in range(parts)]
    for name, share in zip(names, shares, strict=True):
        torch.save({key: state[key] for key in share}, folder / name)
    if parts > 1:
        weight_map = {key: name for name, share in zip(names, shares, strict=True) for key in share}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

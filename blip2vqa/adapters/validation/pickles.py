"""Find weights that are a pickle, which can run code when it is read, and convert them without running any."""

import zipfile
from pathlib import Path

from blip2vqa.adapters.validation.safe_weights import MAX_WEIGHTS
from blip2vqa.utils.errors import InputError

_NAMES = tuple(f"adapter_model{end}" for end in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"))


def pickled_weights(folder: Path) -> Path | None:
    """Return the file in a folder that holds its weights as a pickle; None where there is none."""
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def convert(pickle: Path, weights: Path, name: str) -> None:
    """Write the tensors in `pickle` to `weights` as safetensors. Raises `InputError` where it holds anything else.

    `name`: what the user calls the adapter.
    """
    import torch
    from safetensors.torch import save_file

    refused = f"adapter {name}: {pickle.name} is not converted"
    try:
        with zipfile.ZipFile(pickle) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        size = pickle.stat().st_size  # of torch's older, unzipped format
    if size > MAX_WEIGHTS:
        raise InputError(f"{refused}: it has {size:,} bytes; at most {MAX_WEIGHTS:,} are read")
    try:
        tensors = torch.load(pickle, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file makes it raise anything
        raise InputError(f"{refused}: it holds something other than tensors, or is damaged") from error
    plain = isinstance(tensors, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for key, value in tensors.items()
    )
    # A tensor of a few bytes may claim, by strides of 0, to be as large as it likes.
    if not plain or sum(value.nbytes for value in tensors.values()) > MAX_WEIGHTS:
        raise InputError(f"{refused}: it has to hold names and plain tensors, of at most {MAX_WEIGHTS:,} bytes")
    try:
        copies = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
        save_file(copies, weights, {"format": "pt"})
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{refused}: safetensors cannot hold what is in it") from error

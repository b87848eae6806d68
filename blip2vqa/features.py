"""Outputs of the frozen stage, ViT and Q-Former: computed once for each distinct image of a run.

The language model alone is adapted, so what it sees of an image never changes during a run: training, evaluation and
the swapped-image check all read the same `query_output` instead of running the towers again for every question.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm.auto import tqdm

from blip2vqa.data.images import ImageSource, open_image
from blip2vqa.loading import LoadedModel


class ImageFeatures:
    """`query_output` of distinct images, by the digest of the image file: [images, num_query_tokens, hidden]."""

    def __init__(self, digests: Sequence[str], values: torch.Tensor):
        self.rows = {digest: row for row, digest in enumerate(digests)}
        self.values = values

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, digests: Iterable[str]) -> torch.Tensor:
        """Features of these images, in this order: [n, num_query_tokens, hidden]. Raises `KeyError` for unknown ones."""
        return self.values[[self.rows[digest] for digest in digests]]


def encode_images(
    loaded: LoadedModel,
    images: dict[str, ImageSource],
    *,
    batch_size: int = 16,
    file: Path | None = None,
    part: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> ImageFeatures:
    """Run the frozen stage over distinct images, `{digest: source}`.

    `file` backs the features by a memory-mapped file instead of memory; several processes may then share one, each
    encoding `part = (its number, how many)` of the images; the caller waits for all of them.
    """
    model, config = loaded.base, loaded.base.config
    digests = sorted(images)  # every process numbers the images alike, whatever the order of its table
    shape = (len(digests), config.num_query_tokens, config.qformer_config.hidden_size)
    if file is None:
        values = torch.empty(shape, dtype=loaded.dtype)
    else:
        size = shape[0] * shape[1] * shape[2]
        values = torch.from_file(str(file), shared=True, size=size, dtype=loaded.dtype).view(shape)
    mine = range(part[0], len(digests), part[1])
    with (
        tqdm(total=len(mine), desc="encoding images", unit="image", disable=not progress or part[0] > 0) as bar,
        ThreadPoolExecutor(4) as pool,
        torch.inference_mode(),
    ):
        pending = None
        for rows in _batches(mine, batch_size):
            # Images of the next batch are decoded while this one runs through the towers.
            decoded = pool.map(open_image, [images[digests[row]] for row in rows])
            if pending:
                _encode(loaded, model, *pending, values)
                bar.update(len(pending[0]))
            pending = rows, decoded
        if pending:
            _encode(loaded, model, *pending, values)
            bar.update(len(pending[0]))
    return ImageFeatures(digests, values)


def _batches(rows: range, size: int) -> Iterable[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def _encode(loaded: LoadedModel, model, rows: list[int], decoded: Iterable, values: torch.Tensor) -> None:
    pixels = loaded.processor.image_processor(list(decoded), return_tensors="pt")["pixel_values"]
    values[rows] = model.encode(pixels.to(loaded.device, loaded.dtype)).to("cpu", loaded.dtype)

"""Divide a batch into parts that are computed one after the other; their gradients add up to those of the batch."""

import torch

from blip2vqa.models.text import IGNORE

# Tensors of a batch with one column for each token of the prompt; of a causal model, of the answer, too.
TOKENS = ("input_ids", "attention_mask", "position_ids")
ANSWERS = ("labels", "keep", "decoder_input_ids")


def split_by_tokens(batch: dict[str, torch.Tensor], tokens: int) -> list[dict[str, torch.Tensor]]:
    """Divide a batch of `TrainingCollator` into parts of at most `tokens` tokens, padding included, but of one row at least.

    Rows of similar length come into one part, and lose the padding that longer rows gave them. A decoder's tokens are not
    counted, since answers are short.
    """
    seq2seq = "decoder_input_ids" in batch
    supervised = (batch["labels"] != IGNORE).long()
    columns = torch.arange(1, supervised.shape[1] + 1, device=supervised.device)
    ends = (supervised * columns).amax(1)  # a row of a causal model ends in a supervised token
    lengths = batch["attention_mask"].sum(1) if seq2seq else ends
    # Sorted on the device, and read off it once: parts are then slices, which copy nothing to it.
    order = lengths.argsort(descending=True, stable=True)
    batch = {name: tensor[order] for name, tensor in batch.items()}
    lengths, ends = torch.stack([lengths, ends])[:, order].tolist()
    parts, start = [], 0
    for stop in range(1, len(lengths) + 1):
        # The first row of a part is its longest.
        if stop == len(lengths) or (stop + 1 - start) * lengths[start] > tokens:
            parts.append(_rows(batch, start, stop, lengths[start], max(ends[start:stop]) if seq2seq else None))
            start = stop
    return parts


def _rows(
    batch: dict[str, torch.Tensor], start: int, stop: int, longest: int, decoded: int | None
) -> dict[str, torch.Tensor]:
    """Take some rows of a batch, cut to the longest of them; `decoded`: the longest answer's length, of a seq2seq model."""
    widths = dict.fromkeys(TOKENS, longest) | dict.fromkeys(ANSWERS, longest if decoded is None else decoded)
    part = {name: tensor[start:stop] for name, tensor in batch.items()}
    part |= {name: part[name][..., : widths[name]] for name in part.keys() & widths.keys()}
    if part["attention_mask"].ndim == 4:  # of rows that several questions share, by the tokens that see and are seen
        part["attention_mask"] = part["attention_mask"][:, :, :longest]
    return part

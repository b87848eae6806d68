"""Keep `generate` to lists of answers, by tensors: no step waits for the device, as a function called for each beam would."""

from itertools import accumulate, zip_longest

import torch
from transformers import LogitsProcessor

from blip2vqa.models.answer_lists import TOKEN_BITS, AnswerTree, AnswerTrees


class AllowedTokens(LogitsProcessor):
    """Forbids all tokens but those that go on with an answer of the row's list; after a whole answer, all but its end token.

    Does what upstream's `PrefixConstrainedLogitsProcessor` does with a function that looks them up, to the bit.
    """

    def __init__(self, tree: AnswerTree | AnswerTrees, beams: int, prompt: int, end_token_id: int):
        """`beams`: sequences of each question, side by side; `prompt`: columns in front of the answer."""
        self.tree, self.beams, self.prompt, self.end_token_id = tree, beams, prompt, end_token_id
        self.roots = None

    def _build(self, rows: int, device: torch.device) -> None:
        """Put the lists of `rows` questions together, and bring them to the device in one copy."""
        trees = [self.tree.of(row) for row in range(rows)]
        distinct = {id(tree): tree.edges for tree in trees}
        sizes = [edges.nodes for edges in distinct.values()]
        offsets = dict(zip(distinct, accumulate(sizes[:-1], initial=0), strict=True))  # of the lists' own nodes
        # Node 0 is a whole answer, or what begins none: the end token may follow. The last key lies behind all others.
        keys, following = [torch.tensor([self.end_token_id])], [torch.tensor([0])]
        for tree, edges in distinct.items():
            keys.append(edges.keys + (offsets[tree] << TOKEN_BITS))
            following.append(torch.where(edges.following > 0, edges.following + offsets[tree], 0))
        keys.append(torch.tensor([torch.iinfo(torch.int64).max]))
        roots = torch.tensor([1 + offsets[id(tree)] for tree in trees]).repeat_interleave(self.beams)
        parts = torch.cat(keys), torch.cat([*following, torch.tensor([0])]), roots
        self.keys, self.following, self.roots = torch.cat(parts).to(device).split([len(part) for part in parts])
        widths = zip_longest(*(edges.widths for edges in distinct.values()), fillvalue=1)
        self.widths = [max(width) for width in widths]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` [rows, vocabulary], minus infinity where a token may not follow `input_ids` [rows, length]."""
        if self.roots is None:
            self._build(len(scores) // self.beams, scores.device)
        said, node = input_ids[:, self.prompt :], self.roots
        for token in said.unbind(1):
            key = (node << TOKEN_BITS) + token
            place = torch.searchsorted(self.keys, key)
            node = torch.where(self.keys[place] == key, self.following[place], 0)
        depth = said.shape[1]
        width = self.widths[depth] if depth < len(self.widths) else 1
        # A node's edges stand side by side. Where it has fewer than others its first one stands in for what is missing.
        first = torch.searchsorted(self.keys, node << TOKEN_BITS)[:, None]
        place = (first + torch.arange(width, device=scores.device)).clamp(max=len(self.keys) - 1)
        place = torch.where(self.keys[place] >> TOKEN_BITS == node[:, None], place, first)
        tokens = self.keys[place] & ((1 << TOKEN_BITS) - 1)  # [rows, width]
        kept = scores.gather(1, tokens)
        # As upstream: where every beam of a question has lost all that it may say, it says it nevertheless.
        lost = kept.amax(1).isneginf().view(-1, self.beams).all(1).repeat_interleave(self.beams)
        kept = kept.masked_fill(lost[:, None], 0.0)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, kept)

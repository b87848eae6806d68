"""Answers from a list and no others: where the list comes from, and a prefix tree that generation may not leave."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.files import read_limited

MAX_BYTES = 64 << 20
RANKED = 5
"""How many of the list are named for a question, the likeliest first."""
CHOICES = "choices"
"""The value of `--answers` that stands for the answers in each row's own column choices."""
TOKEN_BITS = 32


def read_answers(path: str) -> list[str]:
    """Read a list of answers, one a line, without blank lines and repetitions. Raises `InputError`."""
    try:
        lines = read_limited(path, MAX_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"--answers {path}: cannot be read as text: {error}") from error
    answers = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not answers:
        raise InputError(f"--answers {path}: holds no answer; write one a line")
    return answers


@dataclass(frozen=True)
class AnswerList:
    """The answers of a table, the most frequent first, each in its most common spelling."""

    answers: tuple[str, ...]
    rare: int = 0
    """Answers of the training table left out."""

    @classmethod
    def of(cls, examples: Sequence[Example], min_count: int) -> "AnswerList":
        """Collect the answers that at least `min_count` annotators gave (one a row, if the table has one answer a row).

        Raises `InputError` where there is none.
        """
        spellings: dict[str, Counter] = defaultdict(Counter)
        for example in examples:
            for answer in example.answers:
                if normalize_answer(answer):
                    spellings[normalize_answer(answer)][answer.strip()] += 1
        counts = {name: spelt.total() for name, spelt in spellings.items()}
        kept = sorted((name for name in counts if counts[name] >= min_count), key=lambda name: -counts[name])
        if not kept:
            most = max(counts.values(), default=0)
            raise InputError(
                f"--min_answer_count {min_count}: no answer is that frequent; the most frequent counts {most}"
            )
        return cls(tuple(spellings[name].most_common(1)[0][0] for name in kept), len(counts) - len(kept))


@dataclass(frozen=True)
class Edges:
    """A prefix tree in tensors: its nodes, from 1 on, are the beginnings of answers, 1 the empty one."""

    keys: torch.Tensor
    """int64 [edges], rising: the node that an edge leads from, then in the lower `TOKEN_BITS` bits the token that it says."""
    following: torch.Tensor
    """int64 [edges]: the node that it leads to; 0 behind a whole answer."""
    nodes: int
    widths: list[int]
    """By depth, the most edges that lead from one node."""


@dataclass(frozen=True)
class AnswerTree:
    """A list of answers as a prefix tree of one base's tokens."""

    answers: tuple[str, ...]
    text: Any
    """The base's `TextEncoder`."""

    @cached_property
    def by_tokens(self) -> dict[tuple[int, ...], str]:
        """Map the tokens of each answer, end token included, to the answer."""
        return dict(zip(map(tuple, self.text.answer_ids(self.answers)), self.answers, strict=True))

    @cached_property
    def edges(self) -> Edges:
        """Lay the tree out in tensors."""
        nodes: dict[tuple[int, ...], int] = {(): 1}
        edges: dict[tuple[int, int], int] = {}
        widths = [Counter() for _ in range(self.longest)]
        for tokens in self.by_tokens:
            for place, token in enumerate(tokens):
                edge, last = (nodes[tokens[:place]], token), place + 1 == len(tokens)
                widths[place][edge[0]] += edge not in edges
                edges[edge] = 0 if last else nodes.setdefault(tokens[: place + 1], len(nodes) + 1)
        ordered = sorted(edges)
        keys = torch.tensor([(node << TOKEN_BITS) + token for node, token in ordered])
        following = torch.tensor([edges[edge] for edge in ordered])
        return Edges(keys, following, len(nodes), [max(width.values()) for width in widths])

    @property
    def longest(self) -> int:
        """Count the tokens of the longest answer, end token included."""
        return max(map(len, self.by_tokens))

    @property
    def beams(self) -> int:
        """Choose the number of beams; answers of one token each are ranked exactly, and so is a list no longer than this.

        Two at least: with one, `generate` does not search, and returns scores in other units.
        """
        return max(2, min(RANKED, len(self.by_tokens)))

    def of(self, row: int) -> "AnswerTree":
        """Return the tree of a row of a batch: all have this one."""
        return self

    def check(self) -> None:
        """Raise `InputError` for answers that this base cannot tell apart, or cannot end."""
        seen: dict[tuple[int, ...], str] = {}
        problems = []
        for answer, tokens in zip(self.answers, map(tuple, self.text.answer_ids(self.answers)), strict=True):
            if seen.setdefault(tokens, answer) != answer:
                problems.append(f"--answers: {answer!r} and {seen[tokens]!r} are the same to this base; keep one")
            if self.text.end_token_id in tokens[:-1]:
                problems.append(f"--answers: {answer!r} contains the sign that ends an answer; leave it out")
        raise_all(problems[:10])

    def answer(self, generated: list[int]) -> str | None:
        """Return the answer that these tokens spell, ignoring padding after its end; None for a beginning only."""
        end = self.text.end_token_id
        return self.by_tokens.get(tuple(generated[: generated.index(end) + 1])) if end in generated else None


@dataclass(frozen=True)
class AnswerTrees:
    """The lists of answers of a batch's rows, each with its own."""

    trees: Sequence[Any]

    def of(self, row: int) -> Any:
        """Return the list of a row."""
        return self.trees[row]

    @property
    def longest(self) -> int:
        """Count the tokens of the longest answer of all."""
        return max(tree.longest for tree in self.trees)

    @property
    def beams(self) -> int:
        """Choose the number of beams, enough for each row."""
        return max(tree.beams for tree in self.trees)

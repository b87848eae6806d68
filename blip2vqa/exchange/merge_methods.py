"""Compute weighted sums of ΔW: exact ones in factors, and those on the entries of ΔW, one dense module at a time."""

from collections.abc import Iterator, Mapping

import torch

from blip2vqa.adapters.algebra import Deltas, Factors, add, decompose, distance, norm, numerical_rank, truncate
from blip2vqa.utils.threads import one_thread

Parts = Mapping[str, list[tuple[Factors, float]]]
"""Module → (what it adds, its weight) for each adapter that has the module."""

# Of the randomized SVD; arXiv 0909.4061, section 4.5: for spectra that fall slowly, as those of thinned-out matrices do.
_ITERATIONS, _OVERSAMPLING = 8, 16


Errors = dict[str, tuple[float, float]]
"""Module → (‖ΔW' − ΔW‖, ‖ΔW‖) of the approximation ΔW'."""


@one_thread()
def concatenate(parts: Parts) -> tuple[Deltas, Errors]:
    """Compute the exact sums, factors side by side."""
    made = {module: add(pairs) for module, pairs in parts.items()}
    return made, {module: (0.0, norm(factors)) for module, factors in made.items()}


@one_thread()
def reduce_rank(deltas: Deltas, rank: int | None, energy: float | None) -> tuple[Deltas, Errors]:
    """Compute the best approximations of one rank for all modules; a module of a smaller rank keeps its own.

    `rank`, else the smallest that keeps `energy` of Σσ² over all modules; with neither, or 1.0, the largest rank of any.
    """
    split = {module: decompose(factors) for module, factors in deltas.items()}
    if rank is None and energy in (None, 1.0):
        rank = max(numerical_rank(values) for _, values in split.values())
    elif rank is None:
        squares = torch.zeros(max(len(values) for _, values in split.values()), dtype=torch.float64)
        for _, values in split.values():
            squares[: len(values)] += values.square()
        kept = squares.cumsum(0)
        rank = min(1 + int((kept < energy * kept[-1]).sum()), len(kept))
    made, errors = {}, {}
    for module, factors in deltas.items():
        made[module] = truncate(split.pop(module)[0], rank)
        errors[module] = distance(made[module], factors), norm(factors)
    return made, errors


def ties(parts: Parts, density: float) -> Iterator[torch.Tensor]:
    """Merge by TIES (arXiv 2306.01708, algorithm 1); yield one dense matrix [out, in] for each module.

    Of each ΔW the `density` largest entries by magnitude stay. Their weighted sum decides on a sign for each entry; the result
    is the weighted mean of the entries that have this sign. Only the ratio of the weights matters, therefore.
    """
    for pairs in parts.values():
        weighted = []
        for factors, weight in pairs:
            entries = factors.dense()
            dropped = entries.numel() - max(1, round(density * entries.numel()))
            if dropped:
                sizes = entries.abs().flatten().numpy()
                sizes.partition(dropped - 1)  # four times as fast as torch's kthvalue
                entries.masked_fill_(entries.abs() <= float(sizes[dropped - 1]), 0)
                del sizes
            weighted.append((entries.mul_(weight), abs(weight)))
        sign = sum(entries for entries, _ in weighted).sign_()
        total, count = torch.zeros_like(sign), torch.zeros_like(sign)
        while weighted:
            entries, weight = weighted.pop()
            agree = (entries * sign) > 0
            total += entries.mul_(agree)
            count += agree.mul(weight)
        yield total.div_(count.masked_fill_(count == 0, 1))


def dare(parts: Parts, drop: float, seed: int) -> Iterator[torch.Tensor]:
    """Merge by DARE (arXiv 2311.03099, equation 1); yield one dense matrix [out, in] for each module.

    Of each ΔW entries are dropped with probability `drop`, and the others divided by 1 - `drop`; then they are summed up with
    their weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for pairs in parts.values():
        total = torch.zeros(pairs[0][0].shape)
        for factors, weight in pairs:
            kept = torch.rand(factors.shape, generator=generator) >= drop
            total += factors.dense().mul_(kept).mul_(weight / (1 - drop))
        yield total


def approximate(dense: Iterator[torch.Tensor], parts: Parts, rank: int | None, seed: int) -> tuple[Deltas, Errors]:
    """Compute low-rank approximations of dense matrices, which come in the order of the modules in `parts`.

    `rank`: by default the sum of the adapters' ranks, since a matrix with entries dropped may have any rank.
    """
    made, errors = {}, {}
    for module, entries in zip(parts, dense, strict=True):
        wanted = min(rank or sum(factors.rank for factors, _ in parts[module]), *entries.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            u, values, v = torch.svd_lowrank(entries, min(wanted + _OVERSAMPLING, *entries.shape), niter=_ITERATIONS)
        roots = values[:wanted].sqrt()
        made[module] = Factors((v[:, :wanted] * roots).T.contiguous(), u[:, :wanted] * roots)
        total = entries.norm(dtype=torch.float64).item()
        lost = entries.addmm_(made[module].b, made[module].a, alpha=-1).norm(dtype=torch.float64).item()
        errors[module] = lost, total
    return made, errors

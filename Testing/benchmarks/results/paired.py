"""Paired comparison of two methods on the same pairs. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def wilcoxon(differences: Sequence[float]) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test (1945); 1 where all differences are zero.

    Zeros are left out, ties get their mean rank, and every assignment of signs counts as equally likely: the number of
    assignments for each sum of positive ranks is added up rank by rank, in doubled ranks, so that halves stay whole.
    """
    # Rounding joins differences that are equal but for the last bits.
    values = np.round(np.asarray(differences, dtype=float), 9)
    values = values[values != 0]
    if not len(values):
        return 1.0
    _, place, count = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    doubled = (2 * count.cumsum() - count + 1)[place]
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    ways /= ways.sum()
    positive = int(doubled[values > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail))


def interval(differences: Sequence[float] | np.ndarray, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean by percentiles of a bootstrap over the pairs; the mean itself twice for one pair."""
    values = np.asarray(differences, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)

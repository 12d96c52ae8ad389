"""Dice of label maps that a field brings together."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def mean_dice(labels: Tensor, target: Tensor, pull: Callable[[Tensor], Tensor]) -> float:
    """Mean over the labels that both maps have; 0 where they have none in common.

    Args:
        labels, target: int64 (1, 1, D, H, W) of the moving and the fixed image.
        pull: brings a float map of the moving image to the fixed one's voxels.
    """
    overlaps = []
    for value in sorted(set(target.unique().tolist()) & set(labels.unique().tolist()) - {0}):
        found, truth = pull((labels == value).float()) > 0.5, target == value
        overlaps.append(2 * float((found & truth).sum()) / max(1.0, float(found.sum() + truth.sum())))
    return sum(overlaps) / max(1, len(overlaps))

"""Means over images that each saw a part of the template: brightness, spread, coverage, labels, displacement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.linear import polar
from ..space.transforms import AffineTransform


@dataclass(frozen=True)
class Mean:
    """Images averaged voxel by voxel over those that saw it; arrays (D, H, W).

    Attributes:
        mean, deviation: float32; ``background`` and 0 where fewer than ``least`` saw a voxel.
        coverage: uint16, how many saw it.
        sharpness: mean gradient magnitude of every image (N,) on the template's grid where it was seen, per mm.
    """

    mean: np.ndarray
    deviation: np.ndarray
    coverage: np.ndarray
    sharpness: np.ndarray


def averaged(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], grid: Grid, least: int, background: float, where: np.ndarray | None
) -> Mean:
    """Average images one at a time.

    Args:
        pairs: (values, seen) of every image, (D, H, W).
        least: so many images must have seen a voxel.
        where: bool (D, H, W), where the sharpness is measured; None for everywhere.
    """
    total, square, count = np.zeros(grid.shape), np.zeros(grid.shape), np.zeros(grid.shape, np.uint16)
    sharpness = []
    for values, seen in pairs:
        known = seen > 0
        kept = np.where(known, values, 0.0).astype(np.float64)
        total += kept
        square += kept**2
        count += known
        sharpness.append(gradient_magnitude(values, grid, known if where is None else known & where))
    often = count >= max(least, 1)
    divisor = np.maximum(count, 1)
    mean = total / divisor
    deviation = np.sqrt(np.maximum(square / divisor - mean**2, 0.0))
    return Mean(
        np.where(often, mean, background).astype(np.float32),
        np.where(often, deviation, 0.0).astype(np.float32),
        count,
        np.asarray(sharpness),
    )


def gradient_magnitude(values: np.ndarray, grid: Grid, where: np.ndarray) -> float:
    """Mean magnitude of the gradient of (D, H, W) ``values`` over the voxels ``where``, per mm."""
    if not where.any():
        return 0.0
    slopes = np.gradient(values.astype(np.float32), *reversed(grid.spacing))
    return float(np.sqrt(sum(slope**2 for slope in slopes))[where].mean())


def mean_displacement(files: Sequence[Path], affines: Sequence[AffineTransform], grid: Grid) -> DisplacementField:
    """m(p) = mean of A_i(p + u_i(p)) - p, where the linear maps A_i average to the identity.

    Args:
        files: of the fields u_i, (1, 3, D, H, W) float32 on ``grid``.
    """
    total = torch.zeros(1, 3, *grid.shape, dtype=torch.float64)
    for file, affine in zip(files, affines, strict=True):
        field = torch.from_numpy(np.load(file)).double()
        total += torch.einsum("ab,nbdhw->nadhw", torch.from_numpy(affine.matrix), field)
    return DisplacementField((total / len(files)).float(), grid)


def centered(affines: Sequence[AffineTransform]) -> list[AffineTransform]:
    """The same maps from a frame in which their mean is the identity (Guimond, Meunier and Thirion, 2000)."""
    mean = AffineTransform(
        np.mean([affine.matrix for affine in affines], 0), np.mean([affine.translation for affine in affines], 0)
    )
    back = mean.inverse()
    return [affine.after(back) for affine in affines]


def shrinkage_percent(affines: Sequence[AffineTransform]) -> float:
    """How much smaller the mean is than the images because they lie turned against each other, in length."""
    turns = np.mean([polar(affine.matrix)[0] for affine in affines], 0)
    return float(100 * (1 - np.cbrt(np.linalg.det(turns))))


def majority(labels: Sequence[np.ndarray], seen: Sequence[np.ndarray], least: int) -> np.ndarray:
    """(D, H, W) the label, 0 among them, that most of those give who saw a voxel; the smallest where several do."""
    result = np.zeros(labels[0].shape, labels[0].dtype)
    for z in range(len(result)):
        known = np.stack([part[z] > 0 for part in seen])
        given = np.stack([part[z] for part in labels])
        most = np.zeros(result[z].shape, np.int64)
        for label in np.unique(given):
            votes = ((given == label) & known).sum(0)
            result[z][votes > most] = label
            most = np.maximum(most, votes)
        result[z][known.sum(0) < max(least, 1)] = 0
    return result

"""Boxes around lesions, cut from images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk
import torch

from ..space.grid import Grid
from ..space.volume import Volume, resample
from .contour import on_neighborhood


def patch(volume: Volume, grid: Grid) -> Volume:
    """``volume`` on a small grid, float; air (the minimum) outside."""
    part = crop(volume, grid.center, float(grid.extent.max()) / 2 + 2 * max(volume.grid.spacing))
    if part is None:
        return Volume(torch.full((1, 1, *grid.shape), volume.background), grid)
    return resample(part.with_tensor(part.as_float()), grid, fill=volume.background)


def crop(volume: Volume, center: np.ndarray, half_mm: float) -> Volume | None:
    """The part of ``volume`` that covers a cube around ``center``, voxels shared; None where they do not meet."""
    offsets = np.array([[(-1, 1)[c >> a & 1] for a in range(3)] for c in range(8)]) * half_mm
    voxels = volume.grid.points_to_voxels(center + offsets)
    lower = np.maximum(np.floor(voxels.min(0)), 0).astype(int)
    upper = np.minimum(np.ceil(voxels.max(0)) + 1, volume.grid.size).astype(int)
    if (upper - lower < 2).any():
        return None
    part = volume.tensor[:, :, lower[2] : upper[2], lower[1] : upper[1], lower[0] : upper[0]]
    return replace(volume, tensor=part, grid=volume.grid.cropped(lower.tolist(), (upper - lower).tolist()), source=None)


def output_grid(follow_up: Grid, grid: Grid) -> Grid:
    """The follow-up's grid cropped to ``grid``, each voxel subdivided where it is coarser than about 1.5 mm."""
    voxels = follow_up.points_to_voxels(grid.corners())
    lower = np.maximum(np.floor(voxels.min(0)), 0).astype(int)
    upper = np.minimum(np.ceil(voxels.max(0)) + 1, follow_up.size).astype(int)
    cropped = follow_up.cropped(lower.tolist(), np.maximum(upper - lower, 1).tolist())
    parts = int(np.clip(np.ceil(max(follow_up.spacing) / 1.5 - 0.01), 1, 4))
    return cropped.subdivided(parts) if parts > 1 else cropped


def as_labels(contour: Volume, grid: Grid) -> Volume:
    """A contour as a uint8 label volume on ``grid``."""
    inside = on_neighborhood(contour, grid, 0.0).tensor > 0.5
    return Volume(inside.to(torch.uint8), grid, sitk.sitkUInt8)

"""Rotations, ramps and smooth fields: inputs of known geometry."""

from __future__ import annotations

import numpy as np
import torch
from samconvex.space.field import DisplacementField
from samconvex.space.filters import smooth
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume


def rotation(x: float, y: float, z: float) -> np.ndarray:
    cx, cy, cz, sx, sy, sz = *np.cos(np.radians([x, y, z])), *np.sin(np.radians([x, y, z]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def ramp(grid: Grid, axis: int) -> Volume:
    """A volume whose value is the physical coordinate: interpolation must return positions."""
    points = grid.voxel_centers(reference=grid.center)[..., axis] + float(grid.center[axis])
    return Volume(points[None, None].contiguous(), grid)


def smooth_field(grid: Grid, size_mm: float = 6.0, seed: int = 0) -> DisplacementField:
    torch.manual_seed(seed)
    tensor = smooth(torch.randn(1, 3, *grid.shape), 8)
    return DisplacementField(tensor * (size_mm / tensor.norm(dim=1).max()), grid)

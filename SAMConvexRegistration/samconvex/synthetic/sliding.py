"""Organs that slide along the wall of the chest: a known map that is torn at a surface, as a breath is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from ..space.grid import Grid
from ..space.sampling import sample, slabs
from ..space.volume import Volume

# Steepest stretch along z; below one, columns stay in order.
_STEEPEST = 0.8


@dataclass(frozen=True)
class SlidingMap:
    """T(p) = p + (0, 0, d(z)) inside an upright elliptic cylinder and T(p) = p outside; exact everywhere.

    d(z) = peak * exp(-((z - level) / length)^2 / 2). Every column of the cylinder moves along itself, so the map is
    one-to-one although it jumps at the cylinder's wall.

    Attributes:
        center: x and y of the cylinder's axis, LPS mm.
        radii: of the ellipse along x and y, mm.
        level, length: where along z the motion is largest, LPS mm, and the standard deviation of its fading, mm.
        peak: largest displacement along z, mm; negative towards the feet.
    """

    center: tuple[float, float]
    radii: tuple[float, float]
    level: float
    length: float
    peak: float

    def __post_init__(self) -> None:
        if abs(self.peak) / self.length * np.exp(-0.5) > _STEEPEST:
            raise InputError("This sliding map would fold; lower its peak or lengthen it.")

    def wall_distance(self, points: np.ndarray) -> np.ndarray:
        """(N,) about how far (N, 3) LPS points lie from the surface that is torn, mm."""
        offset = (np.asarray(points, dtype=float)[:, :2] - self.center) / self.radii
        length = np.linalg.norm(offset, axis=1)
        steepness = np.linalg.norm(offset / self.radii, axis=1)
        # First order: level set over its gradient.
        return np.abs(length * (length - 1)) / np.maximum(steepness, 1e-9)

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 3) LPS mm, float64."""
        points = np.array(points, dtype=float).reshape(-1, 3)
        points[:, 2] += self._inside(points) * self._along(points[:, 2])
        return points

    def unmap_points(self, points: np.ndarray) -> np.ndarray:
        """The inverse map of (N, 3) LPS mm, float64, to 1e-9 mm."""
        points = np.array(points, dtype=float).reshape(-1, 3)
        inside = self._inside(points)
        z = points[:, 2].copy()
        for _ in range(400):
            update = points[:, 2] - inside * self._along(z)
            change = float(np.abs(update - z).max(initial=0.0))
            z = update
            if change < 1e-10:
                break
        points[:, 2] = z
        return points

    def warp(self, volume: Volume, like: Grid | None = None, *, mode: str = "linear") -> Volume:
        """The moving image M with M(T(p)) = volume(p), as :meth:`samconvex.synthetic.warps.SmoothWarp.warp`."""
        grid = like or volume.grid
        fill = 0.0 if mode == "nearest" else volume.background
        values = volume.tensor if mode == "nearest" else volume.tensor.float()
        output = torch.empty(1, 1, *grid.shape, dtype=volume.tensor.dtype)
        for z0, z1 in slabs(grid):
            centers = grid.voxel_centers(z0, z1, dtype=torch.float64)
            source = torch.from_numpy(self.unmap_points(centers.numpy()).reshape(centers.shape) - grid.center).float()
            block = sample(values, volume.grid, source, reference=grid.center, mode=mode, fill=fill)
            output[:, :, z0:z1] = block if output.is_floating_point() else block.round_()
        return volume.with_tensor(output, grid)

    def _inside(self, points: np.ndarray) -> np.ndarray:
        return (((points[:, :2] - self.center) / self.radii) ** 2).sum(1) < 1.0

    def _along(self, z: np.ndarray) -> np.ndarray:
        return self.peak * np.exp(-0.5 * ((z - self.level) / self.length) ** 2)

"""Digitally reconstructed radiographs: X-ray images computed from a CT, in which the place of every point is known.

A pixel is the integral of attenuation along its ray. Rays leave a source at a finite distance (a cone) or are parallel;
the image lies in the plane through the isocenter, so that lengths there are true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..space.grid import Grid
from ..space.sampling import sample
from ..space.volume import Volume

WATER_PER_MM = 0.02
BONE_HU = 150.0
_RAYS_PER_SLAB = 1_500_000


@dataclass(frozen=True)
class Projection:
    """How a body is looked at. Frame of the image: mm in its plane, x to the right, y down, 0 at the isocenter.

    Attributes:
        isocenter: (3,) LPS mm.
        axes: (3, 3) rows are the LPS directions of the image's right, its down, and the rays.
        source_mm: from the source to the isocenter; infinite for parallel rays.
    """

    isocenter: np.ndarray
    axes: np.ndarray
    source_mm: float = math.inf

    @classmethod
    def at_angles(
        cls, isocenter: np.ndarray, turn: float, tilt: float = 0.0, roll: float = 0.0, source_mm: float = math.inf
    ) -> Projection:
        """A view by angles in degrees.

        Args:
            turn: about the body's axis; 0 shows the patient from the front (left on the image's right), 90 from the
                side with the front to the image's left.
            tilt: of the rays towards the head. roll: of the image in its plane.
        """
        t, p, r = np.radians([turn, tilt, roll])
        right = np.array([np.cos(t), np.sin(t), 0.0])
        level = np.array([-np.sin(t), np.cos(t), 0.0])
        up = np.array([0.0, 0.0, 1.0])
        along = np.cos(p) * level + np.sin(p) * up
        down = -np.cos(p) * up + np.sin(p) * level
        turned = np.cos(r) * right + np.sin(r) * down, np.cos(r) * down - np.sin(r) * right
        return cls(np.asarray(isocenter, dtype=float), np.stack([*turned, along]), source_mm)

    def project(self, points: np.ndarray) -> np.ndarray:
        """LPS mm (N, 3) -> mm of the image's frame (N, 3), the last always 0."""
        relative = (np.asarray(points, dtype=float) - self.isocenter) @ self.axes.T
        magnification = 1 / (1 + relative[:, 2:] / self.source_mm)
        return np.concatenate([relative[:, :2] * magnification, np.zeros((len(relative), 1))], 1)

    def grid(self, points: np.ndarray, spacing: float, margin_mm: float = 0.0) -> Grid:
        """Pixels that cover the image of LPS ``points`` (N, 3)."""
        return Grid.covering(self.project(points), spacing, margin_mm=margin_mm)


def attenuation(volume: Volume, bone: float = 1.0) -> torch.Tensor:
    """(1, 1, D, H, W) attenuation per mm of a CT; what exceeds :data:`BONE_HU` counts ``bone`` times (soft rays)."""
    hounsfield = volume.tensor.float()
    value = (hounsfield + 1000.0).clamp(min=0) + (bone - 1.0) * (hounsfield - BONE_HU).clamp(min=0)
    return value * (WATER_PER_MM / 1000.0)


def radiograph(
    volume: Volume, projection: Projection, grid: Grid, *, step_mm: float = 2.0, bone: float = 1.0
) -> Volume:
    """Attenuation of a CT along the rays of every pixel, without unit; 0 where a ray meets nothing.

    Args:
        volume: CT in Hounsfield units, any geometry.
        grid: of the image, one slice, in the projection's frame.
        step_mm: between samples along a ray, measured at the middle of the image.
    """
    values = attenuation(volume, bone)
    depth = (volume.grid.corners() - projection.isocenter) @ projection.axes[2]
    steps = np.arange(depth.min() + step_mm / 2, depth.max(), step_mm)
    pixels = grid.voxel_centers()[0]
    axes = torch.as_tensor(projection.axes, dtype=torch.float32)
    in_plane = pixels[..., :1] * axes[0] + pixels[..., 1:2] * axes[1]
    total = torch.zeros(grid.shape[1:])
    for part in torch.as_tensor(steps, dtype=torch.float32).split(max(1, _RAYS_PER_SLAB // total.numel())):
        spread = 1 + part.view(-1, 1, 1, 1) / projection.source_mm
        points = in_plane[None] * spread + part.view(-1, 1, 1, 1) * axes[2]
        found = sample(values, volume.grid, points, reference=projection.isocenter, fill=0.0)
        total += found[0, 0].sum(0)
    # Oblique rays travel further between two planes.
    slant = (1 + pixels[..., :2].square().sum(-1) / projection.source_mm**2).sqrt()
    return Volume((total * slant * step_mm)[None, None, None], grid, source=f"{volume.name}, projected")

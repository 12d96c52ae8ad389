"""Where voxels lie in the patient: the only place that converts voxels, LPS millimeters and normalized coordinates.

Frame: LPS millimeters (ITK). Points are ``(N, 3)`` arrays in x, y, z order; tensors are ``(1, C, D, H, W)``, z, y, x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
import torch

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxels in physical space; the direction may be oblique or have a negative determinant.

    Attributes:
        size: voxels along x, y, z.
        spacing: millimeters along x, y, z.
        origin: LPS millimeters of the center of voxel (0, 0, 0).
        direction: row-major 3x3 matrix whose columns are the axes' unit vectors.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Grid:
        """Grid of a 3D SimpleITK image."""
        return cls(
            tuple(int(s) for s in image.GetSize()),  # type: ignore[arg-type]
            tuple(float(s) for s in image.GetSpacing()),  # type: ignore[arg-type]
            tuple(float(s) for s in image.GetOrigin()),  # type: ignore[arg-type]
            tuple(float(s) for s in image.GetDirection()),
        )

    def apply_to_sitk(self, image: sitk.Image) -> sitk.Image:
        """Write this geometry into ``image`` (same size) and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    @classmethod
    def covering(cls, points: np.ndarray, spacing: float | Sequence[float], margin_mm: float = 0.0) -> Grid:
        """Identity-direction grid whose voxels cover the bounding box of LPS ``points`` (N, 3) plus a margin."""
        step = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
        lower, upper = points.min(0) - margin_mm, points.max(0) + margin_mm
        size = np.maximum(np.ceil((upper - lower) / step - 1e-6), 1).astype(int)
        origin = (lower + upper) / 2 - (size - 1) / 2 * step
        return cls(_triple(size, int), _triple(step), _triple(origin))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tensor shape (D, H, W)."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxel_count(self) -> int:
        return self.size[0] * self.size[1] * self.size[2]

    @cached_property
    def voxel_to_lps(self) -> np.ndarray:
        """4x4 matrix from voxel index (i, j, k) to LPS millimeters."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @cached_property
    def lps_to_voxel(self) -> np.ndarray:
        """4x4 matrix from LPS millimeters to (fractional) voxel index."""
        return np.linalg.inv(self.voxel_to_lps)

    @property
    def is_axis_aligned(self) -> bool:
        """True where voxel axes are +x, +y, +z of the patient (identity direction)."""
        return bool(np.allclose(self.direction, IDENTITY, atol=1e-6))

    @property
    def extent(self) -> np.ndarray:
        """Edge lengths (3,) in mm along the voxel axes, voxel edges included."""
        return np.asarray(self.size) * np.asarray(self.spacing)

    @property
    def center(self) -> np.ndarray:
        """LPS mm of the middle of the grid."""
        return self.voxels_to_points((np.asarray(self.size, dtype=float) - 1)[None] / 2)[0]

    def voxels_to_points(self, voxels: np.ndarray) -> np.ndarray:
        """(N, 3) voxel indices to (N, 3) LPS millimeters."""
        return np.asarray(voxels, dtype=float) @ self.voxel_to_lps[:3, :3].T + self.voxel_to_lps[:3, 3]

    def points_to_voxels(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) LPS millimeters to (N, 3) fractional voxel indices."""
        return np.asarray(points, dtype=float) @ self.lps_to_voxel[:3, :3].T + self.lps_to_voxel[:3, 3]

    def corners(self) -> np.ndarray:
        """(8, 3) LPS mm of the outer voxel edges' corners."""
        low, high = np.full(3, -0.5), np.asarray(self.size) - 0.5
        index = np.array([[(low, high)[(c >> a) & 1][a] for a in range(3)] for c in range(8)])
        return self.voxels_to_points(index)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: inside the image buffer by ITK's rule, index in [-0.5, size - 0.5]."""
        voxels = self.points_to_voxels(points)
        return np.all((voxels >= -0.5 - 1e-9) & (voxels <= np.asarray(self.size) - 0.5 + 1e-9), axis=1)

    def with_spacing(self, spacing: float | Sequence[float]) -> Grid:
        """Grid over the same extent and axes whose spacing is at or just below ``spacing`` mm."""
        step = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
        size = np.maximum(np.ceil(self.extent / step - 1e-6), 1).astype(int)
        new_step = self.extent / size
        corner = self.voxels_to_points(np.full((1, 3), -0.5))[0]
        axes = np.reshape(self.direction, (3, 3))
        return Grid(_triple(size, int), _triple(new_step), _triple(corner + axes @ (new_step / 2)), self.direction)

    def canonical(self, spacing: float | Sequence[float]) -> Grid:
        """Identity-direction grid at ``spacing`` mm that covers this grid's extent."""
        return Grid.covering(self.corners(), spacing)

    def cropped(self, lower: Sequence[int], size: Sequence[int]) -> Grid:
        """Grid of ``size`` voxels (x, y, z) that starts at voxel ``lower``; both may reach outside (padding)."""
        origin = self.voxels_to_points(np.asarray(lower, dtype=float)[None])[0]
        return Grid(_triple(size, int), self.spacing, _triple(origin), self.direction)

    def strided(self, stride: int | Sequence[int]) -> Grid:
        """Grid of means over blocks of ``stride`` voxels (the last, partial block keeps its full-block center)."""
        step = np.broadcast_to(np.asarray(stride), (3,))
        size = -(-np.asarray(self.size) // step)
        first = self.voxels_to_points((step[None] - 1) / 2)[0]
        return Grid(_triple(size, int), _triple(np.asarray(self.spacing) * step), _triple(first), self.direction)

    def subdivided(self, parts: int) -> Grid:
        """Grid of ``parts`` voxels along each axis in place of every voxel; ``strided(parts)`` undoes it."""
        first = self.voxels_to_points(np.full((1, 3), (1 / parts - 1) / 2))[0]
        spacing = np.asarray(self.spacing) / parts
        return Grid(_triple(np.asarray(self.size) * parts, int), _triple(spacing), _triple(first), self.direction)

    def turned(self, matrix: np.ndarray, center: np.ndarray) -> Grid:
        """The grid carried along by a rotation (3, 3) about ``center``, LPS mm."""
        origin = center + matrix @ (np.asarray(self.origin) - center)
        direction = matrix @ np.reshape(self.direction, (3, 3))
        return Grid(self.size, self.spacing, _triple(origin), _triple(direction.ravel()))

    def padded(self, voxels: int) -> Grid:
        """Grid with ``voxels`` more on every side."""
        return self.cropped([-voxels] * 3, [s + 2 * voxels for s in self.size])

    def voxel_centers(
        self,
        z0: int = 0,
        z1: int | None = None,
        *,
        reference: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """(d, H, W, 3) LPS mm, relative to ``reference``, of the voxel centers of slices z0 to z1.

        A ``reference`` near the data keeps float32 exact when scanner coordinates are large.
        """
        z1 = self.size[2] if z1 is None else z1
        matrix = torch.as_tensor(self.voxel_to_lps[:3, :3], dtype=dtype, device=device)
        origin = torch.as_tensor(np.asarray(self.origin) - np.asarray(reference), dtype=dtype, device=device)
        ranges = ((0, self.size[0]), (0, self.size[1]), (z0, z1))
        x, y, z = (
            torch.arange(first, last, dtype=dtype, device=device)[:, None] * matrix[:, axis]
            for axis, (first, last) in enumerate(ranges)
        )
        return (z + origin)[:, None, None] + y[None, :, None] + x[None, None]

    def normalized(
        self, points: torch.Tensor, reference: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)
    ) -> torch.Tensor:
        """LPS mm (..., 3), relative to ``reference``, to ``grid_sample(align_corners=True)`` coordinates.

        Voxel centers span [-1, 1]; the center of a single-voxel axis is 0.
        """
        size = np.asarray(self.size)
        scale = 2.0 / np.maximum(size - 1, 1)
        first = self.points_to_voxels(np.asarray(reference, dtype=float)[None])[0] * scale - (size > 1)
        linear = self.lps_to_voxel[:3, :3] * scale[:, None]
        return points @ torch.as_tensor(linear.T.copy()).to(points) + torch.as_tensor(first).to(points)

    def describe(self) -> dict:
        """Plain numbers for reports."""
        return {"size": list(self.size), "spacing": [round(s, 6) for s in self.spacing]}


def _triple(values, kind: type = float) -> tuple:
    return tuple(kind(v) for v in values)


def plain_grid(grid: Grid) -> dict[str, list]:
    """A grid as plain lists, for files."""
    return {name: list(getattr(grid, name)) for name in ("size", "spacing", "origin", "direction")}


def grid_of(values: dict[str, list]) -> Grid:
    """The grid that :func:`plain_grid` wrote."""
    return Grid(*(tuple(values[name]) for name in ("size", "spacing", "origin", "direction")))  # type: ignore[arg-type]

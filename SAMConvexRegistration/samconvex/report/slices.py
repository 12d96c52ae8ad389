"""The slices that the report's picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..errors import InputError
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.sampling import sample
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume

COLUMN, GUTTER, MARGIN = 262, 10, 28
# (plane, voxel axes across and down in LPS, letters at left, right, top, bottom); heads are up, the patient's right
# is at the left of the page, as radiologists read.
PLANES = (
    ("Axial", (0, 1), (1, 1), "RLAP"),
    ("Coronal", (0, 2), (1, -1), "RLSI"),
    ("Sagittal", (1, 2), (1, -1), "APSI"),
)


# --- slices ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Plane:
    name: str
    letters: str
    across: int
    down: int
    signs: tuple[int, int]
    low: np.ndarray
    high: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Slice:
    """Pixels of one plane: LPS positions relative to ``reference``, shape (1, rows, columns, 3)."""

    plane: _Plane
    points: torch.Tensor
    reference: np.ndarray
    mm_per_pixel: float


def outlined_body(volume: Volume) -> Volume | None:
    """The body, coarsely; None where nothing looks like one."""
    try:
        return body_mask(volume, max(4.0, float(volume.grid.extent.max()) / 128))
    except InputError:
        return None


def _points(mask: Volume) -> np.ndarray:
    """(N, 3) LPS mm of a mask's voxels."""
    return mask.points()


def planes(fixed: Volume, body: Volume | None) -> list[_Plane]:
    """The three planes through the body's center, cropped to the body (to the image, where none is found)."""
    if body is not None:
        points = _points(body)
        low, high, position = points.min(0) - 8, points.max(0) + 8, np.median(points, axis=0)
    else:
        corners = fixed.grid.corners()
        low, high = corners.min(0), corners.max(0)
        position = (low + high) / 2
    return [
        _Plane(name, letters, axes[0], axes[1], signs, low, high, position)  # type: ignore[arg-type]
        for name, axes, signs, letters in PLANES
    ]


def slice_of(plane: _Plane) -> Slice:
    """Square pixels: a plane fills the column's width unless it would be more than 1.6 times as tall."""
    extent = plane.high - plane.low
    step = max(extent[plane.across] / COLUMN, extent[plane.down] / (1.6 * COLUMN))
    columns, rows = (max(8, round(extent[axis] / step)) for axis in (plane.across, plane.down))
    points = torch.zeros(1, rows, columns, 3)
    middle = (plane.low + plane.high) / 2
    for axis, sign, count, shape in (
        (plane.across, plane.signs[0], columns, (1, 1, columns)),
        (plane.down, plane.signs[1], rows, (1, rows, 1)),
    ):
        points[..., axis] = (sign * step * (torch.arange(count) - (count - 1) / 2)).view(shape)
    reference = middle.copy()
    through = 3 - plane.across - plane.down
    reference[through] = plane.position[through]
    return Slice(plane, points, reference, float(step))


def sampled(volume: Volume, cut: Slice, transform: Transform | None = None, mode: str = "linear") -> torch.Tensor:
    """(rows, columns) values of a volume at a slice's points, or where the transform carries them."""
    points, reference = cut.points, cut.reference
    if transform is not None:
        points, reference = transform.map_relative(points, reference)
    fill = 0.0 if mode == "nearest" else volume.background
    grid, tensor = _around(volume, points, reference)
    values = tensor if mode == "nearest" else tensor.float()
    return sample(values, grid, points, reference=reference, mode=mode, fill=fill)[0, 0, 0]


def _around(volume: Volume, points: torch.Tensor, reference: np.ndarray) -> tuple[Grid, torch.Tensor]:
    """The part of a volume that holds the points: a large image need not become floating point as a whole."""
    voxels = volume.grid.points_to_voxels(points.reshape(-1, 3).double().numpy() + reference)
    size = np.asarray(volume.grid.size)
    first = np.clip(np.floor(voxels.min(0)).astype(int) - 2, 0, size - 1)
    last = np.clip(np.ceil(voxels.max(0)).astype(int) + 3, first + 1, size)
    (x0, y0, z0), (x1, y1, z1) = first, last
    # Its border is the image's border wherever points lie beyond it, so the outside stays outside.
    return volume.grid.cropped(first, last - first), volume.tensor[:, :, z0:z1, y0:y1, x0:x1]


def starting_position(moving: Volume, body: Volume | None, slices: Sequence[Slice]) -> tuple[Transform, str]:
    """Where the moving image is shown before registration: as scanned, or centered where little of it would be seen."""
    moving_body = outlined_body(moving)
    if body is None or moving_body is None:
        seen = float(np.mean([moving.grid.contains(_flat(cut)).mean() for cut in slices]))
        center = moving.grid.center
    else:
        points = _points(body)
        index = np.round(moving_body.grid.points_to_voxels(points)).astype(int)
        inside = ((index >= 0) & (index < moving_body.grid.size)).all(1)
        x, y, z = index[inside].T
        seen = float(moving_body.tensor[0, 0].numpy()[z, y, x].sum()) / len(points)
        center = np.median(_points(moving_body), axis=0)
    if seen >= 0.4:
        return Transform(()), "as scanned"
    centered = AffineTransform(np.eye(3), center - slices[0].plane.position)
    return Transform((centered,)), "scanned elsewhere; centered here"


def _flat(cut: Slice) -> np.ndarray:
    return cut.points.reshape(-1, 3).double().numpy() + cut.reference


def deformation(fixed: Volume, transform: Transform) -> DisplacementField:
    """The transform without its linear parts, on a lattice of a few millimeters over the fixed image."""
    parts = tuple(part for part in transform.parts if not isinstance(part, AffineTransform))
    spacing = max(4.0, float(fixed.grid.extent.max()) / 160)
    return Transform(parts).displacement_field(fixed.grid.canonical(spacing))

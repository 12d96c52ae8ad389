"""What the commands read besides images: grids, and notes on inputs that do not quite fit together."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..space.grid import Grid
from ..space.volume import Volume
from .points import PointSet

# More values than label maps of whole bodies have, fewer than any scan.
MOST_LABELS = 120


def same_grid(first: Grid, second: Grid, tolerance_voxels: float = 0.01) -> bool:
    """True where both have the same size and every corner agrees to a hundredth of a voxel."""
    if first.size != second.size:
        return False
    shift = np.abs(second.points_to_voxels(first.corners()) - second.points_to_voxels(second.corners()))
    return bool(shift.max() <= tolerance_voxels)


def grid_note(labels: Volume, image: Volume) -> str | None:
    """A sentence where ``labels`` lie on another grid than their ``image``; None on the same grid.

    Raises:
        InputError: no labeled voxel lies in the image.
    """
    note = other_grid_note(labels.grid, labels.name, image)
    if note is not None and not _any_inside(labels, image.grid):
        raise InputError(f"{labels.name} does not overlap {image.name}; check that they belong together.")
    return note


def other_grid_note(grid: Grid, name: str, image: Volume) -> str | None:
    """A sentence where the labels called ``name`` lie on another grid than their ``image``."""
    if same_grid(grid, image.grid):
        return None
    return f"{name} is on another grid than {image.name}; it was resampled by position."


def labels_note(volume: Volume, way_out: str) -> str | None:
    """A sentence where an image of whole numbers looks like a label map; ``way_out`` ends it."""
    values = volume.tensor.flatten()
    if values.is_floating_point():
        return None
    # A sample tells images with many values apart at once.
    if (
        len(values[:: max(1, len(values) // 100_000)].unique()) > MOST_LABELS
        or len(found := values.unique()) > MOST_LABELS
    ):
        return None
    return f"{volume.name} holds only {len(found)} different values, as a label map does: {way_out}."


def _any_inside(labels: Volume, grid: Grid) -> bool:
    """True where a labeled voxel's center lies in ``grid``; usually one of the first slices decides."""
    for z, plane in enumerate(labels.tensor[0, 0]):
        rows = plane.nonzero().numpy()
        voxels = np.column_stack([rows[:, 1], rows[:, 0], np.full(len(rows), z)])
        if len(rows) and grid.contains(labels.grid.voxels_to_points(voxels)).any():
            return True
    return False


def check_inside(points: PointSet, grid: Grid, image: str) -> None:
    """Raise InputError, before any work, for a point that lies outside the image that it belongs to."""
    outside = np.flatnonzero(points.defined)[~grid.contains(points.positions[points.defined])]
    if len(outside):
        row = int(outside[0])
        label = f" ({points.labels[row]})" if points.labels[row] else ""
        raise InputError(
            f"{points.name}: point {row + 1}{label} lies outside {image}; correct or remove it, or give the image that "
            "it belongs to."
        )


def outside_note(points: np.ndarray, grid: Grid, image: str | None) -> str | None:
    """A sentence on (N, 3) points that lie outside an image; None where all lie inside."""
    outside = int((~grid.contains(points)).sum()) if len(points) else 0
    return f"{outside} of {len(points)} points lie outside {image or 'the image'}." if outside else None


def paired(fixed: PointSet, moving: PointSet) -> tuple[np.ndarray, np.ndarray]:
    """Corresponding positions (N, 3), (N, 3) of two point lists: by label where all are named, else in order.

    Points undefined in either list are left out.

    Raises:
        InputError: unnamed lists of different length, or no common point.
    """
    names = [list(points.labels) for points in (fixed, moving)]
    if all(all(labels) and len(set(labels)) == len(labels) for labels in names) and set(names[0]) & set(names[1]):
        common = [label for label in names[0] if label in set(names[1])]
        first = fixed.positions[[names[0].index(label) for label in common]]
        second = moving.positions[[names[1].index(label) for label in common]]
    elif len(fixed) == len(moving):
        first, second = fixed.positions, moving.positions
    else:
        raise InputError(
            f"{fixed.name} has {len(fixed)} points and {moving.name} has {len(moving)}; "
            "give corresponding points in the same order or with the same labels."
        )
    known = np.isfinite(first).all(1) & np.isfinite(second).all(1)
    if not known.any():
        raise InputError(f"{fixed.name} and {moving.name} share no point with a position; correct one of them.")
    return first[known], second[known]

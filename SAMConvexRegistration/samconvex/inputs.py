"""What the commands read besides images: grids, and notes on inputs that do not quite fit together."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .points import PointSet
from .space.grid import Grid
from .space.volume import Volume, read_volume


def read_grid(path: str | os.PathLike) -> Grid:
    """Grid of an image; of a file only the header is read.

    Raises:
        InputError: missing, not an image, or not 3D.
    """
    location = Path(path)
    if not location.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if location.is_dir():
        return read_volume(path).grid
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            f"{path} could not be read as an image; give a NIfTI, NRRD, MetaImage file or a DICOM series folder."
        ) from error
    size = reader.GetSize()
    if reader.GetDimension() == 4 and size[3] == 1:
        return read_volume(path).grid
    if reader.GetDimension() != 3:
        raise InputError(f"{path} is {reader.GetDimension()}D; give one 3D volume.")
    # An image of one voxel with the file's geometry carries it through the one conversion there is.
    image = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    image.SetSpacing(reader.GetSpacing())
    image.SetOrigin(reader.GetOrigin())
    image.SetDirection(reader.GetDirection())
    single = Grid.from_sitk(image)
    return Grid((int(size[0]), int(size[1]), int(size[2])), single.spacing, single.origin, single.direction)


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
    if same_grid(labels.grid, image.grid):
        return None
    if not _any_inside(labels, image.grid):
        raise InputError(f"{labels.name} does not overlap {image.name}; check that they belong together.")
    return f"{labels.name} is on another grid than {image.name}; it was resampled by position."


def _any_inside(labels: Volume, grid: Grid) -> bool:
    """True where a labeled voxel's center lies in ``grid``; usually one of the first slices decides."""
    for z, plane in enumerate(labels.tensor[0, 0]):
        rows = plane.nonzero().numpy()
        voxels = np.column_stack([rows[:, 1], rows[:, 0], np.full(len(rows), z)])
        if len(rows) and grid.contains(labels.grid.voxels_to_points(voxels)).any():
            return True
    return False


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

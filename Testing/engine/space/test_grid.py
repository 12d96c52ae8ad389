"""Voxels, millimeters and normalized coordinates agree on every grid, however it lies in the scanner."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.geometry_fixtures import rotation
from samconvex.space.grid import Grid

GRIDS = {
    "plain": Grid((12, 10, 9), (2.0, 2.0, 2.0)),
    "oblique": Grid((12, 10, 9), (0.7, 1.3, 5.0), (-120.0, 40.0, 900.0), tuple(rotation(20, -10, 35).ravel())),
    "flipped": Grid((12, 10, 9), (1.0, 1.5, 2.0), (3.0, 4.0, 5.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1)),
    "far away": Grid((12, 10, 9), (1.0, 1.0, 2.5), (9000.0, -8000.0, 12000.0)),
}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


@every_grid
def test_voxels_and_points_agree_with_itk_and_return(grid: Grid) -> None:
    image = grid.apply_to_sitk(sitk.Image(grid.size, sitk.sitkUInt8))
    voxels = np.random.default_rng(0).uniform(-2, 12, (20, 3))
    points = grid.voxels_to_points(voxels)
    expected = [image.TransformContinuousIndexToPhysicalPoint(tuple(v)) for v in voxels]
    np.testing.assert_allclose(points, expected, atol=1e-9)
    np.testing.assert_allclose(grid.points_to_voxels(points), voxels, atol=1e-9)
    assert Grid.from_sitk(image) == grid


@every_grid
def test_voxel_centers_are_the_points_of_all_voxels(grid: Grid) -> None:
    centers = grid.voxel_centers(2, 5, reference=grid.center).numpy()
    assert centers.shape == (3, grid.size[1], grid.size[0], 3)
    expected = grid.voxels_to_points(np.array([[7, 4, 3]]))[0]
    np.testing.assert_allclose(centers[1, 4, 7] + grid.center, expected, atol=1e-4)


@every_grid
def test_normalized_coordinates_span_voxel_centers(grid: Grid) -> None:
    ends = grid.voxels_to_points(np.array([[0, 0, 0], np.asarray(grid.size) - 1]))
    relative = torch.as_tensor(ends - grid.center, dtype=torch.float32)
    np.testing.assert_allclose(grid.normalized(relative, grid.center).numpy(), [[-1] * 3, [1] * 3], atol=1e-5)


@every_grid
def test_a_grid_contains_its_voxels_edges_and_no_more(grid: Grid) -> None:
    inside = grid.voxels_to_points(np.array([[-0.49] * 3, np.asarray(grid.size) - 0.51]))
    outside = grid.voxels_to_points(np.array([[-0.51, 0, 0], [0, 0, grid.size[2] - 0.49]]))
    assert grid.contains(inside).all()
    assert not grid.contains(outside).any()


@every_grid
def test_other_spacing_keeps_the_extent(grid: Grid) -> None:
    other = grid.with_spacing(1.1)
    np.testing.assert_allclose(other.corners(), grid.corners(), atol=1e-6)
    assert max(other.spacing) <= 1.1 + 1e-9


@every_grid
def test_a_canonical_grid_covers_everything(grid: Grid) -> None:
    canonical = grid.canonical(3.0)
    assert canonical.is_axis_aligned
    assert canonical.contains(grid.corners() * (1 - 1e-9) + canonical.center * 1e-9).all()


@every_grid
def test_subdividing_and_striding_undo_each_other(grid: Grid) -> None:
    back = grid.subdivided(3).strided(3)
    assert back.size == grid.size
    np.testing.assert_allclose(back.voxel_to_lps, grid.voxel_to_lps, atol=1e-9)


def test_a_stride_puts_a_voxel_in_the_middle_of_its_block() -> None:
    grid = Grid((10, 10, 10), (1.0, 2.0, 3.0))
    np.testing.assert_allclose(grid.strided((2, 3, 1)).voxels_to_points(np.zeros((1, 3)))[0], [0.5, 2.0, 0.0])


def test_a_single_slice_normalizes_to_zero() -> None:
    grid = Grid((5, 5, 1), (1.0, 1.0, 4.0), (0.0, 0.0, 7.0))
    point = torch.tensor([[2.0, 2.0, 7.0]])
    assert grid.normalized(point).tolist() == [[0.0, 0.0, 0.0]]

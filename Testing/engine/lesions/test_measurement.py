"""Lesion sizes: physical, whatever the grid; the longest diameter in an axial slice, the short axis across it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.lesions.measurement import centroid, measure_lesion, trimmed
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume


def ellipsoid(grid: Grid, radii: tuple[float, float, float], turn_degrees: float = 0.0) -> Volume:
    """Mask of an ellipsoid at the grid's center, turned about the patient's z axis."""
    angle = np.radians(turn_degrees)
    axes = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    points = grid.voxel_centers(reference=grid.center).double().numpy() @ axes
    inside = ((points / np.asarray(radii)) ** 2).sum(-1) <= 1
    return Volume(torch.from_numpy(inside.astype(np.uint8))[None, None], grid, sitk.sitkUInt8)


def turned_grid(degrees: float, spacing: tuple[float, float, float], size: tuple[int, int, int] = (60, 60, 60)) -> Grid:
    angle = np.radians(degrees)
    axes = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    return Grid(size, spacing, (31.0, -80.0, 12.5), tuple(axes.ravel()))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.25), (2.0, 2.0, 5.0), (1.5, 0.8, 3.0)])
@pytest.mark.parametrize("turn", [0.0, 35.0])
def test_an_ellipsoid_measures_what_it_is_on_any_spacing(spacing, turn):
    mask = ellipsoid(Grid((60, 70, 40), spacing), (14.0, 9.0, 20.0), turn)
    found = measure_lesion(mask)
    assert found.longest_mm == pytest.approx(28.0, abs=0.9 * max(spacing[:2]))
    assert found.short_axis_mm == pytest.approx(18.0, abs=0.9 * max(spacing[:2]))
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * 14 * 9 * 20 / 1000, rel=0.08)


@pytest.mark.parametrize("degrees", [0, 20, 45, 160])
def test_oblique_grids_measure_the_same_in_their_own_slices(degrees):
    found = measure_lesion(ellipsoid(turned_grid(degrees, (0.8, 0.8, 1.5)), (14.0, 9.0, 11.0)))
    assert found.longest_mm == pytest.approx(28.0, abs=0.8)
    assert found.short_axis_mm == pytest.approx(18.0, abs=0.9)


def test_diameters_lie_in_one_axial_slice_and_are_perpendicular():
    mask = ellipsoid(turned_grid(30, (0.8, 0.9, 2.0)), (15.0, 7.0, 12.0), 50)
    found = measure_lesion(mask)
    lines = [found.longest_points, found.short_axis_points]
    for line, length in zip(lines, (found.longest_mm, found.short_axis_mm), strict=True):
        assert np.linalg.norm(line[1] - line[0]) == pytest.approx(length)
    assert np.ptp(np.concatenate(lines)[:, 2]) < 1e-6
    assert abs((lines[0][1] - lines[0][0]) @ (lines[1][1] - lines[1][0])) < 1e-6


def test_a_lesion_longer_along_the_body_is_measured_across_it():
    found = measure_lesion(ellipsoid(Grid((40, 40, 80), (1.0, 1.0, 1.0)), (8.0, 5.0, 30.0)))
    assert found.longest_mm == pytest.approx(16.0, abs=0.8)


def test_the_slices_are_those_of_the_image_where_the_mask_was_drawn_on_other_axes():
    coronal = Grid((50, 50, 50), (1.0, 1.0, 1.0), (0, 0, 0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0))
    mask = ellipsoid(coronal, (8.0, 5.0, 18.0))
    image = turned_grid(0, (1.0, 1.0, 1.0))
    assert measure_lesion(mask, image).longest_mm == pytest.approx(16.0, abs=0.8)
    assert measure_lesion(mask).longest_mm == pytest.approx(16.0, abs=0.8)
    assert measure_lesion(mask, image).volume_ml == pytest.approx(measure_lesion(mask).volume_ml, rel=0.1)


def test_a_fractional_mask_places_the_border_between_voxels():
    grid = Grid((24, 24, 12), (2.0, 2.0, 2.0))
    radius = grid.voxel_centers(reference=grid.center).norm(dim=-1)
    exact = Volume((0.5 - (radius - 9.3) / 4).clamp(0, 1)[None, None], grid)
    whole = exact.with_tensor((exact.tensor > 0.5).float())
    errors = [abs(measure_lesion(mask).longest_mm - 18.6) for mask in (exact, whole)]
    assert errors[0] < 0.35 and errors[0] < errors[1]


def test_parts_of_a_slice_are_not_bridged():
    grid = Grid((60, 20, 5), (1.0, 1.0, 1.0))
    tensor = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    tensor[:, :, 2, 5:10, 5:10] = 1
    tensor[:, :, 2, 5:10, 45:55] = 1
    found = measure_lesion(Volume(tensor, grid))
    assert found.longest_mm < 13
    assert found.volume_ml == pytest.approx(0.075)


def test_one_voxel_and_nothing_at_all():
    grid = Grid((9, 9, 9), (2.0, 2.0, 2.0))
    tensor = torch.zeros(1, 1, *grid.shape)
    assert measure_lesion(Volume(tensor, grid)) is None and trimmed(Volume(tensor, grid)) is None
    tensor[0, 0, 0, 8, 4] = 1
    found = measure_lesion(Volume(tensor, grid))
    assert found.longest_mm == pytest.approx(2.0) and found.short_axis_mm == pytest.approx(2.0)
    np.testing.assert_allclose(centroid(Volume(tensor, grid)), [8.0, 16.0, 0.0])


def test_trimming_keeps_every_voxel_where_it_was():
    mask = ellipsoid(turned_grid(25, (1.0, 1.2, 2.0)), (9.0, 6.0, 9.0))
    cut = trimmed(mask)
    assert cut.grid.voxel_count < mask.grid.voxel_count / 10
    assert int(cut.tensor.sum()) == int(mask.tensor.sum())
    np.testing.assert_allclose(centroid(cut), centroid(mask), atol=1e-9)

"""An affine map from organs: found where they overlap, left alone where they say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from samconvex.align import by_organs
from samconvex.align.by_organs import OrganOverlap, organ_affine
from samconvex.errors import Cancelled
from samconvex.registration.options import Options, networks_used
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform
from samconvex.space.volume import FeatureMap, Volume

GRID = Grid((44, 40, 36), (3.0, 3.0, 3.0), (-60.0, 20.0, 500.0))
CENTERS = np.array([[-25.0, 5, -10], [20, -15, 15], [5, 18, 20], [-8, -20, -22]])
RADII = (14.0, 18.0, 12.0, 15.0)


def organs(truth: AffineTransform | None = None, count: int = 4, grid: Grid = GRID) -> FeatureMap:
    """Balls, seen through ``truth``: where a point of the fixed image goes."""
    points = grid.voxel_centers(reference=(0.0, 0.0, 0.0)).double().numpy().reshape(-1, 3)
    points = points if truth is None else truth.inverse().map_points(points)
    maps = []
    for center, radius in zip(CENTERS[:count] + GRID.center, RADII, strict=False):
        distance = np.linalg.norm(points - center, axis=1)
        maps.append(torch.as_tensor(1 / (1 + np.exp((distance - radius) / 1.5))).reshape(grid.shape))
    return FeatureMap(torch.stack(maps)[None].half(), grid)


def moved() -> AffineTransform:
    matrix = np.array([[1.1, 0.08, 0], [-0.05, 0.95, 0.06], [0, 0, 1.06]])
    return AffineTransform(matrix, GRID.center + (9.0, -7.0, 11.0) - matrix @ GRID.center)


def apart(first: AffineTransform, second: AffineTransform) -> float:
    points = CENTERS + GRID.center
    return float(np.linalg.norm(first.map_points(points) - second.map_points(points), axis=1).mean())


def test_organs_find_the_map_that_brings_them_together():
    wide = Grid((56, 52, 50), (3.0, 3.0, 3.0), (-80.0, 0.0, 480.0))
    truth = moved()
    start = AffineTransform(np.eye(3), np.array([-8.0, 4, 0]))
    found, details = organ_affine(organs(), organs(truth, grid=wide), start)
    assert apart(truth, start) > 15 and apart(truth, found) < 1.5
    assert details["organs"] == 4
    before, after = details["organ_overlap"]
    assert before < 0.4 and after > 0.9


def test_what_the_moving_image_does_not_show_pulls_at_nothing():
    # The moving image ends in the middle of the upper organs.
    cut = GRID.cropped((0, 0, 0), (44, 40, 22))
    start = AffineTransform(np.eye(3), np.array([14.0, -12, 0]))
    found, _ = organ_affine(organs(), organs(grid=cut), start)
    assert apart(found, AffineTransform.identity()) < 2.0


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_organs_leave_the_start_alone(count):
    start = moved()
    nothing = FeatureMap(torch.zeros(1, 4, *GRID.shape), GRID)
    found, details = organ_affine(
        organs(count=count) if count else nothing, organs(count=count) if count else nothing, start
    )
    assert found is start and details == {"organs": count}


def test_a_start_that_overlaps_as_well_stays():
    start = AffineTransform(np.eye(3), np.array([0.5, 0, 0]))
    found, details = organ_affine(organs(), organs(), start)
    before, after = details["organ_overlap"]
    assert found is start and 0.9 < before < after < before + by_organs.LEAST_GAIN


def chest(shift_mm: float = 0.0, lungs: bool = True) -> Volume:
    """A trunk of 600 mm with two lungs, moved along z."""
    grid = Grid((60, 44, 100), (6.0, 6.0, 6.0), (-177.0, -109.0, 200.0))
    x, y, z = grid.voxel_centers(reference=(0.0, 0.0, 0.0)).unbind(-1)
    values = torch.full(grid.shape, -1000.0)
    values[(x / 150) ** 2 + ((y - 20) / 100) ** 2 < 1] = 40.0
    if lungs:
        for side in (-75.0, 75.0):
            ball = ((x - side) / 55) ** 2 + ((y - 20) / 70) ** 2 + ((z - 600 - shift_mm) / 90) ** 2
            values[ball < 1] = -850.0
    return Volume(values[None, None], grid)


@pytest.mark.parametrize(("shown", "stays"), [(True, True), (False, False)])
def test_organs_do_not_pull_apart_lungs_that_lie_well(shown, stays):
    # The organs lie 30 mm higher in the moving image, the lungs where they were.
    there = AffineTransform(np.eye(3), np.array([0.0, 0, 30]))
    start = AffineTransform.identity()
    images = (chest(), chest(lungs=shown))
    found, details = organ_affine(organs(), organs(there), start, images=images)
    assert (found is start) == stays and details["organ_overlap"][1] > details["organ_overlap"][0] + 0.3
    assert ("lung_overlap" in details) == shown
    if shown:
        kept, changed = details["lung_overlap"]
        assert kept > 0.95 and changed < 0.9


def test_lungs_that_lie_apart_are_no_witness_and_those_that_come_along_no_objection():
    wide = Grid((44, 40, 60), (3.0, 3.0, 3.0), (-60.0, 20.0, 500.0))
    there = AffineTransform(np.eye(3), np.array([0.0, 0, 30]))
    for shift in (30.0, -100.0):
        found, details = organ_affine(
            organs(), organs(there, grid=wide), AffineTransform.identity(), images=(chest(), chest(shift))
        )
        kept, changed = details["lung_overlap"]
        assert apart(found, there) < 2.0
        assert kept < changed if shift > 0 else changed < kept - 0.02 and kept < 0.6


def test_the_overlap_is_that_of_the_organs():
    problem = OrganOverlap(organs(), organs())
    aside = AffineTransform(np.eye(3), np.array([200.0, 0, 0]))
    assert problem.of(AffineTransform.identity()) > 0.95 and problem.of(aside) < 0.01  # nothing to be seen there
    near = AffineTransform(np.eye(3), np.array([20.0, 0, 0]))
    assert problem.of(near) < 0.6


def test_a_flat_image_is_no_fault():
    flat = Grid((44, 40, 1), (3.0, 3.0, 3.0), (-60.0, 20.0, 542.0))
    found, _ = organ_affine(organs(grid=flat), organs(grid=flat), AffineTransform.identity())
    assert np.isfinite(found.matrix).all()


def test_the_organ_network_is_named_where_it_has_a_part_and_has_none_where_it_was_left_out():
    preset = Options(preset="ct-inter-patient").settings()
    assert networks_used(preset.linear_part) == {"sam", "semantic"}
    left_out = Options(preset="ct-inter-patient", features="mind").settings()
    assert left_out.polish_affine == "" and networks_used(left_out) == {"sam"}
    kept = Options(preset="ct-inter-patient", features="mind+semantic").settings()
    assert kept.polish_affine == "organs" and networks_used(kept) == {"sam", "semantic"}
    assert networks_used(replace(preset.linear_part, affine="moments")) == set()


def test_it_can_be_cancelled():
    def stop(_share: float) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        by_organs.organ_affine(organs(), organs(moved()), AffineTransform(np.eye(3), np.array([-8.0, 4, 0])), stop)

"""A symmetric registration has no preferred direction, and its inverse on disk is exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import samconvex as sc
from engine.geometry_fixtures import rotation, smooth_field
from engine.phantom_fixtures import QUICK, error
from samconvex.deform.consistency import inverse_consistent
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.linear import disagreement_mm, mean_affine
from samconvex.space.transforms import AffineTransform, Transform

GRID = Grid((30, 30, 30), (4.0, 4.0, 4.0), (-60.0, -60.0, -60.0))


def test_the_mean_of_two_affines_is_inverted_by_exchanging_them() -> None:
    there = AffineTransform.about(GRID.center, rotation(8, -3, 12) * 1.1, np.array([10.0, 200.0, -5.0]))
    back = AffineTransform.about(GRID.center, rotation(-6, 4, -10) / 1.05, np.array([-12.0, -190.0, 3.0]))
    assert 5.0 < disagreement_mm(there, back, GRID.corners()) < 60.0
    mean, exchanged = mean_affine(there, back), mean_affine(back, there)
    assert disagreement_mm(mean, exchanged, GRID.corners()) < 1e-6
    # Halfway: as far from one as from the inverse of the other.
    first, second = (
        np.linalg.norm(mean.map_points(GRID.corners()) - other.map_points(GRID.corners()), axis=1).mean()
        for other in (there, back.inverse())
    )
    assert first == pytest.approx(second, rel=0.1) and first > 1.0
    rigid = mean_affine(replace(there, matrix=rotation(8, -3, 12)), replace(back, matrix=rotation(-6, 4, -10)))
    np.testing.assert_allclose(rigid.matrix @ rigid.matrix.T, np.eye(3), atol=1e-9)


def test_two_fields_meet_where_each_inverts_the_other() -> None:
    initial = Transform((AffineTransform.about(GRID.center, rotation(5, 2, -9) * 1.05, np.array([30.0, -20.0, 9.0])),))
    moved = Grid.covering(initial.map_points(GRID.corners()), 4.0, margin_mm=8.0)
    forward = smooth_field(GRID, 8.0, seed=1).embedded(GRID.padded(10), 40.0)
    backward = smooth_field(moved, 8.0, seed=2).embedded(moved.padded(10), 40.0)
    one = Transform((inverse_consistent(forward, backward, initial), *initial.parts))
    other = Transform((inverse_consistent(backward, forward, initial.inverse()), *initial.inverse().parts))
    points = GRID.voxels_to_points(np.random.default_rng(0).uniform(4, 25, (300, 3)))
    apart = np.linalg.norm(other.map_points(one.map_points(points)) - points, axis=1)
    before = Transform((forward, *initial.parts)), Transform((backward, *initial.inverse().parts))
    apart_before = np.linalg.norm(before[1].map_points(before[0].map_points(points)) - points, axis=1)
    assert apart_before.mean() > 2.0
    assert apart.mean() < 0.1 and apart.max() < 0.5


def test_exchanging_the_images_gives_the_inverse(phantom, breath, inside: np.ndarray) -> None:
    moving, truth = breath
    settings = replace(QUICK, symmetric=True)
    there = sc.register(phantom.ct, moving, preset=settings)
    back = sc.register(moving, phantom.ct, preset=QUICK, symmetric=True)
    plain = [sc.register(a, b, preset=QUICK).fixed_to_moving for a, b in ((phantom.ct, moving), (moving, phantom.ct))]

    def round_trip(first: Transform, second: Transform) -> float:
        return float(np.linalg.norm(second.map_points(first.map_points(inside)) - inside, axis=1).mean())

    assert round_trip(there.fixed_to_moving, back.fixed_to_moving) < 0.3
    assert round_trip(there.fixed_to_moving, back.fixed_to_moving) < 0.3 * round_trip(*plain)
    assert error(there.fixed_to_moving, truth, inside) < 1.1 * error(plain[0], truth, inside)


def test_the_inverse_of_a_symmetric_registration_is_exact_on_disk(
    phantom, breath, inside: np.ndarray, tmp_path: Path
) -> None:
    result = sc.register(phantom.ct, breath[0], preset=replace(QUICK, symmetric=True))
    result.fixed_to_moving.save(tmp_path / "transform.h5")
    result.moving_to_fixed.save(tmp_path / "inverse.h5")
    there, back = (Transform.load(tmp_path / name) for name in ("transform.h5", "inverse.h5"))
    assert isinstance(there.parts[0], DisplacementField)
    apart = np.linalg.norm(back.map_points(there.map_points(inside)) - inside, axis=1)
    assert apart.mean() < 0.05

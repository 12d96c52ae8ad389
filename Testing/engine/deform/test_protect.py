"""A protected body keeps its shape or its volume inside a deformation that stays continuous and free of folds."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.geometry_fixtures import rotation, smooth_field
from samconvex.deform.folding import cell_determinants, without_folds
from samconvex.deform.protect import determinants, protect
from samconvex.errors import InputError
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.linear import rigid_fit
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume

GRID = Grid((40, 40, 40), (4.0, 4.0, 4.0), (-80.0, -80.0, 500.0))
CENTER = GRID.center
# Between patients the linear part scales too; a protected body must not.
INITIAL = Transform((AffineTransform.about(CENTER, rotation(4, -3, 6) * 1.1, np.array([20.0, -300.0, 40.0])),))
MASK_GRID = Grid((70, 60, 50), (2.0, 2.2, 3.0), direction=tuple(rotation(12, -8, 20).ravel()))


def ellipsoid(grid: Grid, center: np.ndarray, radii: tuple[float, float, float]) -> torch.Tensor:
    offset = grid.voxel_centers(reference=center) / torch.tensor(radii)
    return (offset.square().sum(-1) < 1)[None, None]


@pytest.fixture(scope="module")
def field() -> DisplacementField:
    return without_folds(smooth_field(GRID, 14.0, seed=5))


@pytest.fixture(scope="module")
def mask() -> Volume:
    """Label 1: two separate bodies; label 2: a flat one of a single slice; on a grid of its own."""
    grid = Grid(MASK_GRID.size, MASK_GRID.spacing, tuple(CENTER - MASK_GRID.center), MASK_GRID.direction)
    tensor = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    tensor[ellipsoid(grid, CENTER + [-30, 10, -20], (14.0, 9.0, 20.0))] = 1
    tensor[ellipsoid(grid, CENTER + [25, -15, 20], (8.0, 8.0, 8.0))] = 1
    tensor[0, 0, 30, 40:50, 12:16] = 2
    tensor[0, 0, 5, 5, 5] = 1
    return Volume(tensor, grid, sitk.sitkUInt8, "bones")


def parts(mask: Volume) -> list[np.ndarray]:
    """Points of every body, LPS mm: all voxels' centers."""
    labels = mask.tensor[0, 0].numpy()
    found = []
    for label in (1, 2):
        numbered = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray((labels == label) * 1)))
        for number in range(1, numbered.max() + 1):
            voxels = np.argwhere(numbered == number)[:, ::-1]
            if len(voxels) > 1:
                found.append(mask.grid.voxels_to_points(voxels))
    return found


def test_the_fit_finds_a_rigid_motion_and_never_a_mirror() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)) * [30, 20, 10]
    truth = AffineTransform.about(points.mean(0), rotation(20, -40, 70), np.array([5.0, 6.0, -7.0]))
    np.testing.assert_allclose(rigid_fit(points, truth.map_points(points)).matrix, truth.matrix, atol=1e-9)
    assert np.linalg.det(rigid_fit(points, points * [1, 1, -1]).matrix) == pytest.approx(1.0)


def test_rigid_bodies_are_rigid_between_the_samples_too(field: DisplacementField, mask: Volume) -> None:
    before = Transform((field, *INITIAL.parts))
    found, bodies = protect(field, INITIAL, mask, "rigid")
    after = Transform((found, *INITIAL.parts))
    assert [body["label"] for body in bodies] == [1, 1, 2]
    for points, body in zip(parts(mask), bodies, strict=True):
        was, now = before.map_points(points), after.map_points(points)
        free, fit = rigid_fit(points, was), rigid_fit(points, now)
        assert np.linalg.norm(was - free.map_points(points), axis=1).max() > 0.3
        assert np.linalg.norm(now - fit.map_points(points), axis=1).max() < 0.01
        # The motion is the one the solve found, without the deformation.
        assert np.linalg.norm(now - free.map_points(points), axis=1).max() < 0.3
        assert body["residual_mm"] < 0.1 and body["deformation_removed_mm"] > 0.1
        assert body["volume_change_percent"] == pytest.approx(0.0, abs=0.1)
    assert bodies[0]["volume_ml"] == pytest.approx(4 / 3 * np.pi * 14 * 9 * 20 / 1000, rel=0.1)


def test_volume_mode_keeps_volume_but_not_shape(field: DisplacementField, mask: Volume) -> None:
    before = Transform((field, *INITIAL.parts))
    found, bodies = protect(field, INITIAL, mask, "volume")
    after = Transform((found, *INITIAL.parts))
    for points, body in zip(parts(mask), bodies, strict=True):
        assert abs(np.mean(determinants(before, points)) - 1) > 0.1
        assert np.mean(determinants(after, points)) == pytest.approx(1.0, abs=0.01)
        assert abs(body["volume_change_percent"]) < 0.1
        np.testing.assert_allclose(after.map_points(points).mean(0), before.map_points(points).mean(0), atol=0.1)
    now = after.map_points(parts(mask)[0])
    assert np.linalg.norm(now - rigid_fit(parts(mask)[0], now).map_points(parts(mask)[0]), axis=1).max() > 0.2


@pytest.mark.parametrize("mode", ["rigid", "volume"])
def test_the_field_around_stays_as_it_was_far_away_and_folds_nowhere(
    field: DisplacementField, mask: Volume, mode: str
) -> None:
    found, _bodies = protect(field, INITIAL, mask, mode)
    assert float(cell_determinants(found.tensor, GRID).min()) >= 0.05
    change = (found.tensor - field.tensor).norm(dim=1)[0].numpy()
    assert change.max() > 1.0
    places = GRID.voxel_centers(reference=np.zeros(3)).reshape(-1, 3).numpy()
    marked = np.concatenate(parts(mask))
    nearest = np.min([np.linalg.norm(places - point, axis=1) for point in marked[::60]], 0).reshape(change.shape)
    assert change[nearest > 40 + 24].max() == 0.0
    # Continuous: no step between neighbors that the field or the bodies' motions do not have themselves.
    steps = max(float(np.abs(np.diff(change, axis=axis)).max()) for axis in range(3))
    assert steps < 4.0


def test_bodies_that_touch_do_not_fold_and_say_what_they_lost() -> None:
    tensor = torch.zeros(1, 3, *GRID.shape)
    half = GRID.voxel_centers(reference=CENTER)[..., 0]
    # Two halves that are pressed together.
    tensor[0, 0] = -7.0 * torch.tanh(half / 12)
    field = without_folds(DisplacementField(tensor, GRID))
    labels = torch.zeros(1, 1, *GRID.shape, dtype=torch.uint8)
    labels[:, :, 14:26, 14:26, 14:20] = 1
    labels[:, :, 14:26, 14:26, 20:26] = 2
    found, bodies = protect(field, Transform(), Volume(labels, GRID, sitk.sitkUInt8), "rigid")
    assert float(cell_determinants(found.tensor, GRID).min()) >= 0.05
    assert max(body["residual_mm"] for body in bodies) > 0.1


def test_an_empty_or_distant_mask_and_an_unknown_mode_are_refused(field: DisplacementField, mask: Volume) -> None:
    with pytest.raises(InputError, match="bones marks nothing to protect"):
        protect(field, INITIAL, mask.with_tensor(mask.tensor * 0))
    away = Grid(mask.grid.size, mask.grid.spacing, (5000.0, 0.0, 0.0))
    with pytest.raises(InputError, match="bones marks nothing to protect"):
        protect(field, INITIAL, mask.with_tensor(mask.tensor, away))
    with pytest.raises(InputError, match="no protection 'soft'"):
        protect(field, INITIAL, mask, "soft")

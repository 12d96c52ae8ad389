"""Promises of the known warps: their truth is exact, they never fold, and the moving image follows them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.errors import InputError
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.warps import SmoothWarp, breathing_warp, random_warp


@pytest.fixture(scope="module")
def chest():
    return make_phantom(0, 5.0, couch=False, noise_hu=0.0)


@pytest.fixture(scope="module")
def breath(chest):
    return breathing_warp(chest.ct, 25.0, seed=1)


def test_moving_image_equals_fixed_image_at_the_true_place(chest):
    # Blurred, so that interpolating twice hardly matters.
    blurred = Volume.from_sitk(sitk.SmoothingRecursiveGaussian(chest.ct.to_sitk(), 10.0))
    moving, truth = breathing_warp(blurred, 25.0, seed=1)
    pulled = Transform((truth.displacement_field(blurred.grid),)).warp_volume(moving, blurred)
    body = chest.labels.tensor > 0
    body[:, :, :6] = False
    before = (moving.tensor - blurred.tensor).abs()[body].mean()
    assert (pulled.tensor - blurred.tensor).abs()[body].mean() < 0.15 * before


def test_direction_is_fixed_to_moving():
    # A bright ball in the fixed image; where the truth says it goes, the moving image is bright.
    grid = Grid((40, 40, 40), (4.0, 4.0, 4.0))
    center = np.array([80.0, 76.0, 84.0])
    distance = (grid.voxel_centers() - torch.as_tensor(center, dtype=torch.float32)).norm(dim=-1)
    ball = Volume((1000.0 * (distance < 14)).to(torch.int16)[None, None], grid, sitk.sitkInt16)
    truth = SmoothWarp(center[None], np.full((1, 3), 60.0), np.array([[0.0, 6.0, -22.0]]))
    moving = truth.warp(ball)
    values = moving.tensor[0, 0].double().numpy()
    z, y, x = np.indices(values.shape)
    found = grid.voxels_to_points(np.array([[(i * values).sum() / values.sum() for i in (x, y, z)]]))[0]
    np.testing.assert_allclose(truth.map_points(center[None])[0], center + [0, 6, -22], atol=1e-9)
    assert np.linalg.norm(found - truth.map_points(center[None])[0]) < 1.5


def test_peak_is_the_one_asked_for_and_points_to_the_feet(chest, breath):
    u = breath[1].displacement_field(chest.ct.grid).tensor[0]
    assert float(u[2].min()) == pytest.approx(-25.0, abs=0.5)
    assert float(u[2].max()) < 1.0
    assert 2.0 < float(u[1].abs().max()) < 8.0
    assert 1.0 < float(u[0].abs().max()) < 6.0


def test_diaphragm_moves_most(chest, breath):
    u = breath[1].displacement_field(chest.ct.grid).tensor[0, 2].numpy()
    z = chest.ct.grid.voxels_to_points(np.argwhere(u == u.min())[:1, ::-1])[0, 2]
    dome = chest.landmarks["right dome of diaphragm"][2]
    assert abs(z - dome) < 45.0


@pytest.mark.parametrize("seed", range(4))
def test_no_voxel_folds(chest, seed):
    for make in (breathing_warp, random_warp):
        determinant = make(chest.ct, 30.0, seed)[1].displacement_field(chest.ct.grid).jacobian_determinant()
        assert float(determinant.min()) > 0.1


def test_inverse_is_exact_to_a_micrometer(chest):
    truth = random_warp(chest.ct, 20.0, seed=3)[1]
    points = np.random.default_rng(0).uniform(-150, 150, (500, 3)) + chest.ct.grid.center
    assert np.abs(truth.unmap_points(truth.map_points(points)) - points).max() < 1e-3


def test_field_samples_are_exact_on_oblique_grids():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    grid = Grid((12, 11, 10), (5.0, 4.0, 6.0), (300.0, -200.0, 900.0), tuple(turn.ravel()))
    matrix = np.array([[1.02, 0.05, 0.0], [-0.05, 0.98, 0.01], [0.0, 0.0, 1.05]])
    truth = SmoothWarp(
        grid.center[None],
        np.full((1, 3), 55.0),
        np.array([[4.0, -6.0, 12.0]]),
        AffineTransform.about(grid.center, matrix, np.array([3.0, 2.0, -9.0])),
    )
    field = truth.displacement_field(grid).tensor[0].permute(1, 2, 3, 0).reshape(-1, 3).numpy()
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1).reshape(-1, 3)[:, ::-1]
    points = grid.voxels_to_points(voxels)
    np.testing.assert_allclose(points + field, truth.map_points(points), atol=1e-3)


def test_labels_keep_their_values(chest):
    moved = random_warp(chest.ct, 15.0, seed=5)[1].warp(chest.labels, mode="nearest")
    assert set(moved.tensor.unique().tolist()) <= set(chest.labels.tensor.unique().tolist())


def test_a_warp_that_could_fold_is_refused():
    with pytest.raises(InputError, match="fold"):
        SmoothWarp(np.zeros((1, 3)), np.full((1, 3), 10.0), np.array([[0.0, 0.0, 40.0]]))

"""Radiographs: every point of the body appears where its projection says, with the attenuation along its ray."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume
from samconvex.synthetic.radiograph import BONE_HU, WATER_PER_MM, Projection, attenuation, radiograph

CENTER = np.array([12.0, -30.0, 400.0])


def block(hounsfield: float = 0.0) -> Volume:
    """A box of 100 x 60 x 80 mm in air."""
    grid = Grid.covering(np.stack([CENTER - [70, 50, 60], CENTER + [70, 50, 60]]), 4.0)
    inside = (grid.voxel_centers(reference=CENTER).abs() < torch.tensor([50.0, 30.0, 40.0])).all(-1)
    return Volume(torch.where(inside, hounsfield, -1000.0)[None, None], grid)


def test_the_patients_left_is_on_the_right_from_the_front_and_the_front_on_the_left_from_the_side():
    left, front, up = CENTER + [10, 0, 0], CENTER - [0, 20, 0], CENTER + [0, 0, 30]
    points = np.stack([left, front, up])
    np.testing.assert_allclose(Projection.at_angles(CENTER, 0).project(points), [[10, 0, 0], [0, 0, 0], [0, -30, 0]])
    side = Projection.at_angles(CENTER, 90).project(points)
    np.testing.assert_allclose(side, [[0, 0, 0], [-20, 0, 0], [0, -30, 0]], atol=1e-9)


def test_a_near_source_magnifies_what_is_near_it():
    points = CENTER + np.array([[10.0, -100.0, 0.0], [10.0, 100.0, 0.0]])
    np.testing.assert_allclose(Projection.at_angles(CENTER, 0, source_mm=500.0).project(points)[:, 0], [12.5, 10 / 1.2])


@pytest.mark.parametrize("source", [math.inf, 600.0])
@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (75.0, 12.0, -8.0)])
def test_a_marker_appears_where_its_projection_lies(source, angles):
    volume = block()
    marker = CENTER + [20.0, -25.0, 15.0]
    projection = Projection.at_angles(CENTER + [3, 5, -4], *angles, source_mm=source)
    distance = volume.grid.voxel_centers(reference=marker).norm(dim=-1)
    marked = volume.with_tensor(torch.where(distance < 7, 3000.0, volume.tensor[0, 0])[None, None])
    # The marker itself may lie off a voxel center: the truth is where its voxels are.
    voxels = (distance < 7).nonzero().flip(1).numpy()
    truth = projection.project(volume.grid.voxels_to_points(voxels).mean(0)[None])[0]
    grid = projection.grid(volume.grid.corners(), 2.0)
    difference = radiograph(marked, projection, grid).tensor - radiograph(volume, projection, grid).tensor
    weight = difference[0, 0].double() / difference.double().sum()
    found = (grid.voxel_centers().double() * weight[..., None]).sum((0, 1, 2)).numpy()
    np.testing.assert_allclose(found, truth, atol=0.6)


def test_a_ray_adds_up_what_it_passes_through():
    volume = block()
    for turn, thickness in ((0.0, 60.0), (90.0, 100.0)):
        projection = Projection.at_angles(CENTER, turn)
        grid = projection.grid(CENTER[None], 2.0, margin_mm=1.0)
        assert float(radiograph(volume, projection, grid).tensor.mean()) == pytest.approx(
            WATER_PER_MM * thickness, rel=0.05
        )
    outside = Grid((1, 1, 1), (2.0, 2.0, 2.0), (60.0, 0.0, 0.0))
    assert float(radiograph(volume, Projection.at_angles(CENTER, 0), outside).tensor) == 0


def test_an_oblique_ray_passes_through_more():
    volume, projection = block(), Projection.at_angles(CENTER, 0, source_mm=100.0)
    middle, side = (
        radiograph(volume, projection, Grid((1, 1, 1), (2.0, 2.0, 2.0), (x, 0.0, 0.0)), step_mm=1.0).tensor.item()
        for x in (0.0, 35.0)
    )
    assert side / middle == pytest.approx(math.hypot(1, 0.35), abs=0.01)


def test_soft_rays_stop_at_bone():
    bone = block(BONE_HU + 500)
    assert float(attenuation(bone, 2.0).max()) == pytest.approx(WATER_PER_MM * (1.65 + 0.5))
    assert torch.equal(attenuation(block(), 2.0), attenuation(block()))

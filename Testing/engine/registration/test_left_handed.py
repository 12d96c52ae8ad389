"""An image whose axes are left-handed in its file is legal, and means the same as its right-handed twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import samconvex
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom


def _stored_backwards(volume: Volume, axis: int) -> Volume:
    """The same voxels at the same places, with one axis in the other order."""
    grid = volume.grid
    last = [grid.size[axis] - 1 if axis == other else 0 for other in range(3)]
    axes = np.reshape(grid.direction, (3, 3)).copy()
    axes[:, axis] *= -1
    origin = tuple(grid.voxels_to_points(np.array([last], float))[0].tolist())
    turned = Grid(grid.size, grid.spacing, origin, tuple(axes.ravel().tolist()))
    return replace(volume, tensor=volume.tensor.flip(4 - axis).contiguous(), grid=turned)


def test_a_left_handed_grid_means_the_same() -> None:
    fixed, moving = (make_phantom(seed, 8.0, (16, 14, 16)).ct for seed in (1, 2))
    turned = _stored_backwards(moving, 0)
    assert np.linalg.det(np.reshape(turned.grid.direction, (3, 3))) < 0
    points = fixed.grid.center + np.random.default_rng(0).uniform(-30, 30, (20, 3))
    first, second = (
        samconvex.register(fixed, image, preset="fast-preview", affine="moments", refine="none").fixed_to_moving
        for image in (moving, turned)
    )
    np.testing.assert_allclose(first.map_points(points), second.map_points(points), atol=1e-3)
    assert not first.mirrors and not second.mirrors

"""A phantom, its image after a known breath, and where the two are compared."""

from __future__ import annotations

import numpy as np
import pytest
from samconvex.anatomy.body import body_mask
from samconvex.synthetic.phantom import Phantom, make_phantom
from samconvex.synthetic.warps import breathing_warp


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=1, spacing=6.0)


@pytest.fixture(scope="module")
def breath(phantom: Phantom):
    return breathing_warp(phantom.ct, 20.0)


@pytest.fixture(scope="module")
def inside(phantom: Phantom) -> np.ndarray:
    """Points of the body that the breath does not push out of the image."""
    mask = body_mask(phantom.ct)
    points = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())[::97]
    low, high = phantom.ct.grid.corners().min(0) + 30, phantom.ct.grid.corners().max(0) - 30
    return points[((points > low) & (points < high)).all(1)]

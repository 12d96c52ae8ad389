"""The presets `rigid` and `affine` end with the linear map, on the finer grid, for images of any modality."""

from __future__ import annotations

import numpy as np
import pytest
import samconvex as sc
import torch
from engine.geometry_fixtures import rotation
from samconvex.align.by_images import moments_affine
from samconvex.errors import InputError
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import Phantom


@pytest.fixture(scope="module")
def turned(phantom: Phantom) -> tuple[Volume, Volume, AffineTransform]:
    """A phantom in grey values of no known unit, the same moved and noisy, and the map between them."""
    grey = phantom.ct.with_tensor(phantom.ct.tensor.clamp(-200, 300) * 3.7 + 900)
    truth = AffineTransform.about(grey.grid.center, rotation(4.0, -3.0, 7.0), np.array([9.0, -6.0, 8.0]))
    moving = Transform((truth.inverse(),)).warp_volume(grey, grey.grid)
    noise = torch.randn(moving.tensor.shape, generator=torch.Generator().manual_seed(3))
    return grey, moving.with_tensor(moving.tensor + 30 * noise), truth


@pytest.mark.parametrize("preset", ["rigid", "affine"])
def test_a_linear_preset_ends_with_one_linear_map(turned, inside: np.ndarray, preset: str) -> None:
    fixed, moving, truth = turned
    result = sc.register(fixed, moving, preset=preset)
    (part,) = result.fixed_to_moving.parts
    assert isinstance(part, AffineTransform)
    apart = np.linalg.norm(part.map_points(inside) - truth.map_points(inside), axis=1)
    assert apart.mean() < 0.5 * min(fixed.grid.spacing), apart.mean()
    assert result.report["warnings"] == []
    is_rigid = np.allclose(part.matrix.T @ part.matrix, np.eye(3), atol=1e-6)
    assert is_rigid == (preset == "rigid")


def test_the_last_steps_on_the_finer_grid_come_nearer(turned, inside: np.ndarray) -> None:
    fixed, moving, truth = turned
    apart = {}
    for exact in (False, True):
        found = moments_affine(fixed, moving, model="rigid", start=truth, exact=exact).transform
        apart[exact] = np.linalg.norm(found.map_points(inside) - truth.map_points(inside), axis=1).mean()
    assert apart[True] < 0.8 * apart[False], apart


@pytest.mark.parametrize("option", [{"refine": "adam"}, {"features": "mind"}])
def test_what_a_linear_preset_cannot_do_is_refused(turned, option: dict) -> None:
    with pytest.raises(InputError, match="rigid ends with the linear map"):
        sc.register(*turned[:2], preset="rigid", **option)

"""SAM-coarse: matched points pull a coarse field, smoothly."""

from __future__ import annotations

import numpy as np
import torch
from samconvex.align import coarse_field
from samconvex.align.coarse_field import fitted, sam_coarse
from samconvex.align.pairs import PointPairs
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform

GRID = Grid((5, 4, 6), (32.0, 32.0, 32.0), (-10.0, 5.0, 20.0))


def lattice() -> np.ndarray:
    low, high = GRID.corners().min(0) + 16, GRID.corners().max(0) - 16
    axes = [np.linspace(a, b, 5) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def test_points_are_met_and_a_wrong_one_is_smoothed():
    points = lattice()
    wanted = np.tile([6.0, -4.0, 3.0], (len(points), 1))
    field = fitted(points, wanted, GRID)
    np.testing.assert_allclose(field.mean((0, 2, 3, 4)), [6, -4, 3], atol=0.5)
    wanted[60] += 40.0
    wrong = fitted(points, wanted, GRID)
    assert 0.5 < float((wrong - field).abs().max()) < 30


def test_the_field_acts_before_the_affine(monkeypatch):
    points = lattice()
    affine = AffineTransform(np.diag([1.1, 1.0, 0.9]), np.array([5.0, 0.0, -3.0]))
    moved = affine.map_points(points + [4.0, 2.0, -6.0])
    pairs = PointPairs(points, moved, np.ones(len(points)))
    asked = {}

    def matched(*_args, near=None, **_options):
        asked["near"] = near
        return pairs, len(pairs)

    class Embedding:
        device = torch.device("cpu")

    monkeypatch.setattr(coarse_field, "matched_pairs", matched)
    corners = GRID.corners()
    box = np.stack([corners.min(0), corners.max(0)])
    field = sam_coarse(Embedding(), Embedding(), Transform((affine,)), box)
    assert asked["near"] is affine
    found = Transform((field, affine)).map_points(points[30:60])
    assert np.abs(found - moved[30:60]).max() < 1.5
    # Of the preset's own accord it is used only where enough of the points that were tried agree.
    tried = 4 * len(points)
    monkeypatch.setattr(coarse_field, "matched_pairs", lambda *_args, **_options: (pairs, tried))
    shares = [sam_coarse(Embedding(), Embedding(), Transform((affine,)), box, least_share=s) for s in (0.2, 0.3)]
    assert shares[0] is not None and shares[1] is None
    few = pairs.where(np.arange(len(points)) < 5)
    monkeypatch.setattr(coarse_field, "matched_pairs", lambda *_args, **_options: (few, len(few)))
    assert sam_coarse(Embedding(), Embedding(), Transform((affine,)), box) is None

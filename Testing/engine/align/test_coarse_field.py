"""SAM-coarse: matched points pull a coarse field, smoothly."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from samconvex.align import coarse_field
from samconvex.align.coarse_field import fitted, sam_coarse
from samconvex.align.pairs import PointPairs
from samconvex.errors import InputError
from samconvex.progress import null_progress
from samconvex.registration import solve
from samconvex.registration.options import Options
from samconvex.settings.registration import Settings
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
    field, share = sam_coarse(Embedding(), Embedding(), Transform((affine,)), box)
    np.testing.assert_allclose(asked["near"].map_points(points), affine.map_points(points))
    assert field is not None and share == 1.0
    found = Transform((field, affine)).map_points(points[30:60])
    assert np.abs(found - moved[30:60]).max() < 1.5
    # Several linear parts are one, no part at all is none, and a field has no single map to search near.
    sam_coarse(Embedding(), Embedding(), Transform((affine, affine)), box)
    np.testing.assert_allclose(asked["near"].map_points(points), affine.map_points(affine.map_points(points)))
    sam_coarse(Embedding(), Embedding(), Transform(), box)
    np.testing.assert_allclose(asked["near"].map_points(points), points)
    sam_coarse(Embedding(), Embedding(), Transform((field, affine)), box)
    assert asked["near"] is None
    # Of the preset's own accord it is used only where enough of the points that were tried agree.
    tried = 4 * len(points)
    monkeypatch.setattr(coarse_field, "matched_pairs", lambda *_args, **_options: (pairs, tried))
    shares = [sam_coarse(Embedding(), Embedding(), Transform((affine,)), box, least_share=s) for s in (0.2, 0.3)]
    assert shares[0][0] is not None and shares[1] == (None, 0.25)
    few = pairs.where(np.arange(len(points)) < 5)
    monkeypatch.setattr(coarse_field, "matched_pairs", lambda *_args, **_options: (few, len(few)))
    assert sam_coarse(Embedding(), Embedding(), Transform((affine,)), box) == (None, 1.0)


def test_a_preset_takes_it_where_sure_and_says_nothing_else(monkeypatch):
    asked_for, given, turned = [], [], []

    def coarse(*_args, least_share, **_options):
        asked_for.append(least_share)
        return (given[0] if given else None), 0.1

    def embedded(volume, *_args, **_options):
        if volume == "no body":
            raise InputError("there is no body.")

    monkeypatch.setattr(solve, "load_sam", lambda _name: None)
    monkeypatch.setattr(solve, "not_for", lambda *_args: None)
    monkeypatch.setattr(solve, "turn_of", lambda *_args: SimpleNamespace(is_none=not turned))
    monkeypatch.setattr(solve, "embed_cached", embedded)
    monkeypatch.setattr(solve, "sam_coarse", coarse)
    scene = SimpleNamespace(initial=None, box=None, fixed=None)
    default = Options(preset="ct-inter-patient").settings()

    def found(asked: str | None = None, settings: Settings = default, moving: str = "body"):
        pair = SimpleNamespace(fixed="body", moving=moving, fixed_mask=None, moving_mask=None)
        options = SimpleNamespace(coarse=asked, weights=None)
        run = SimpleNamespace(options=options, settings=settings, warnings=[], clock=lambda _name: nullcontext())
        field = solve._coarse(scene, pair, run, torch.device("cpu"), null_progress)
        assert run.coarse["taken"] is (field is not None)
        return field, " ".join(run.warnings)

    assert found() == (None, "")
    assert "too few points match" in found("sam")[1]
    # Settings of somebody's own ask for it as well.
    assert "too few points match" in found(settings=replace(default, name="my own"))[1]
    assert asked_for == [solve.SURE, 0.0, 0.0]
    assert found(moving="no body") == (None, "") and "there is no body" in found("sam", moving="no body")[1]
    given.append("field")
    assert found() == ("field", "")
    turned.append(True)
    assert found() == (None, "") and "lies turned" in found("sam")[1]


def test_no_start_by_embeddings_means_no_first_step_by_them_unless_asked_for():
    default = Options(preset="ct-inter-patient").settings()
    assert default.coarse == "sam" and default.linear_part.coarse == "none" and not default.linear_part.deforms
    assert Options(preset="ct-inter-patient", affine="moments").settings().coarse == "none"
    assert Options(preset="ct-inter-patient", affine="moments", coarse="sam").settings().coarse == "sam"
    lying = (
        Options(preset="ct-inter-patient", affine="none"),
        Options(preset="ct-inter-patient", initial_transform=Transform()),
    )
    assert [(o.settings().affine, o.settings().coarse) for o in lying] == [("none", "sam")] * 2

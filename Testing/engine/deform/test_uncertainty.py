"""What speaks for an error does so where the error is, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine.sam_fixtures import GRID, textured_body
from samconvex.deform.scene import Scene
from samconvex.deform.uncertainty import STRUCTURE, Evidence, evidence_of
from samconvex.features.mind import Mind
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.intensity import normalized_intensity
from samconvex.space.sampling import sample
from samconvex.space.transforms import AffineTransform, Transform

BODY = textured_body(0)
BOX = GRID.center + np.array([[-60.0, -50.0, -60.0], [60.0, 50.0, 60.0]])
WRONG = GRID.center + np.array([20.0, 0.0, 0.0])
RIGHT = GRID.center - np.array([30.0, 0.0, 10.0])
OFF = np.array([0.0, 9.0, 0.0])


def gathered(initial: Transform, deformation: DisplacementField | None = None, moving=BODY) -> Evidence:
    images = (volume.with_tensor(normalized_intensity(volume)) for volume in (BODY, moving))
    scene = Scene(*images, initial, BOX)
    return evidence_of(scene, lambda name: Mind(), deformation, (STRUCTURE,), lambda fraction: None)


def at(evidence: Evidence, name: str, place: np.ndarray) -> float:
    points = torch.as_tensor(place - evidence.grid.center, dtype=torch.float32).view(1, 1, 1, 3)
    return float(sample(evidence.maps[name], evidence.grid, points, reference=evidence.grid.center))


@pytest.fixture(scope="module")
def partly_wrong() -> Evidence:
    """An image against itself, 9 mm off around one place."""
    grid = Grid.covering(BOX, 4.0, margin_mm=8.0)
    points = grid.voxel_centers(reference=WRONG)
    bump = torch.exp(-points.square().sum(-1) / (2 * 16.0**2))
    tensor = (bump[..., None] * torch.as_tensor(OFF, dtype=torch.float32)).permute(3, 0, 1, 2)[None]
    return gathered(Transform(), DisplacementField(tensor.contiguous(), grid))


@pytest.mark.parametrize(
    "name", ["mind_cost", "mind_rank", "mind_shift_mm", "mind_bluntness", "displacement_mm", "gradient"]
)
def test_evidence_is_where_the_error_is(partly_wrong: Evidence, name: str) -> None:
    beside = WRONG + np.array([12.0, 0.0, 0.0]) if name == "gradient" else WRONG
    assert at(partly_wrong, name, beside) > 1.25 * at(partly_wrong, name, RIGHT)


def test_the_shift_grows_with_the_error_but_not_beyond_it(partly_wrong: Evidence) -> None:
    # The error falls off around its place, and the softmin pulls towards no shift.
    assert 3.5 < at(partly_wrong, "mind_shift_mm", WRONG) < np.linalg.norm(OFF)
    assert at(partly_wrong, "mind_shift_mm", RIGHT) < 2.0


def test_what_the_moving_image_does_not_show_is_told_by_its_distance() -> None:
    half = Grid((GRID.size[0], GRID.size[1], GRID.size[2] // 2), GRID.spacing, GRID.origin, GRID.direction)
    cut = replace(BODY, tensor=BODY.tensor[:, :, : half.size[2]], grid=half)
    evidence = gathered(Transform(), moving=cut)
    edge = half.corners()[:, 2].max()
    place = GRID.center.copy()
    for beyond in (18.0, 42.0):
        place[2] = edge + beyond
        assert at(evidence, "unseen_mm", place) == pytest.approx(beyond, abs=7.0)
    place[2] = edge - 20.0
    assert at(evidence, "unseen_mm", place) == 0.0


def test_where_nothing_is_seen_costs_are_flat_and_edges_far() -> None:
    smooth = BODY.tensor.clone()
    z, y, x = (int(v) for v in np.round(GRID.points_to_voxels(WRONG[None])[0])[::-1])
    smooth[:, :, z - 7 : z + 8, y - 7 : y + 8, x - 7 : x + 8] = 40
    same = replace(BODY, tensor=smooth)
    images = (same.with_tensor(normalized_intensity(same)) for _ in range(2))
    evidence = evidence_of(
        Scene(*images, Transform(), BOX), lambda name: Mind(), None, (STRUCTURE,), lambda fraction: None
    )
    for name in ("mind_flatness", "featureless_mm"):
        assert at(evidence, name, WRONG) > at(evidence, name, RIGHT)


def test_a_failure_everywhere_is_told_everywhere() -> None:
    good = gathered(Transform())
    shift = AffineTransform(np.eye(3), np.array([0.0, 9.0, 0.0]))
    bad = gathered(Transform((shift,)))
    for name in ("mind_rank_whole",):
        assert bad.maps[name].min() > good.maps[name].max()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in bad.maps.values())

"""Candidates of new lesions: what only the follow-up shows is proposed, what both show or only the baseline is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from samconvex.errors import InputError
from samconvex.lesions.candidates import LUNG, SOFT_TISSUE, new_lesion_candidates
from samconvex.lesions.novelty import novelty
from samconvex.registration.register import RegistrationResult
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume

GRID = Grid((72, 56, 40), (3.0, 3.0, 3.0), (-106.5, -82.5, -58.5))
IN_LUNG, IN_TISSUE, OTHER = np.array([-44.0, 0.0, 0.0]), np.array([50.0, -8.0, 6.0]), np.array([54.0, 24.0, -20.0])
SHIFT = np.array([9.0, -6.0, 12.0])


def _patient(lesions: dict[str, np.ndarray], radius: float = 7.0) -> Volume:
    """A trunk of fine texture with one lung; lesions of +100 HU, in the lung of soft tissue."""
    random = torch.Generator().manual_seed(5)
    points = GRID.voxel_centers()
    body = (points / torch.tensor([95.0, 72.0, 500.0])).norm(dim=-1) < 1
    lung = ((points - torch.as_tensor(IN_LUNG).float()) / torch.tensor([27.0, 34.0, 500.0])).norm(dim=-1) < 1
    noise = torch.randn(GRID.shape, generator=random)
    values = torch.where(body, torch.where(lung, -850 + 15 * noise, 40 + 6 * noise), torch.tensor(-1000.0))
    for place in lesions.values():
        share = torch.sigmoid(radius - GRID.voxel_centers(reference=place).norm(dim=-1))
        level = torch.where(lung, torch.tensor(40.0), torch.tensor(140.0))
        values = values * (1 - share) + level * share
    return Volume(values.round()[None, None], GRID, source="patient")


def _moved(volume: Volume) -> Volume:
    grid = volume.grid
    origin = tuple((np.asarray(grid.origin) + SHIFT).tolist())
    return volume.with_tensor(volume.tensor, Grid(grid.size, grid.spacing, origin, grid.direction))


def _registration(error_mm: float = 2.0, bend_mm: float = 0.0) -> RegistrationResult:
    """The known shift, up to a smooth error of ``bend_mm``."""
    back = Transform((AffineTransform(np.eye(3), -SHIFT),))
    coarse = GRID.canonical(24.0)
    if bend_mm:
        points = coarse.voxel_centers()
        bend = torch.zeros(1, 3, *coarse.shape)
        bend[0, 0] = bend_mm * torch.sin(points[..., 2] / 20)
        back = Transform((DisplacementField(bend, coarse), *back.parts))
    moved = Grid(coarse.size, coarse.spacing, tuple((np.asarray(coarse.origin) + SHIFT).tolist()))
    bound = Volume(torch.full((1, 1, *coarse.shape), error_mm), moved)
    return RegistrationResult(back, back.inverse(), {}, None, bound)


@pytest.fixture(scope="module")
def before() -> Volume:
    return _patient({"known": OTHER})


@pytest.fixture(scope="module")
def after() -> Volume:
    return _moved(_patient({"known": OTHER, "lung": IN_LUNG, "tissue": IN_TISSUE}))


@pytest.mark.parametrize("bend_mm", [0.0, 2.0])
def test_what_only_the_follow_up_shows_is_proposed(before: Volume, after: Volume, bend_mm: float) -> None:
    found = new_lesion_candidates(before, after, registration=_registration(bend_mm=bend_mm))
    assert len(found) == 2 and found[0].score >= found[1].score
    for place, region, contrast in ((IN_LUNG, LUNG, 890), (IN_TISSUE, SOFT_TISSUE, 100)):
        nearest = min(found, key=lambda one: float(np.linalg.norm(one.position - place - SHIFT)))
        assert np.linalg.norm(nearest.position - place - SHIFT) < 2.0
        assert nearest.region == region and nearest.contrast_hu == pytest.approx(contrast, rel=0.25)
        assert nearest.diameter_mm == pytest.approx(14.0, abs=2.5)
        assert nearest.score > 0.5 and f"in {region}" in nearest.reason and "brighter" in nearest.reason
        record = nearest.to_dict()
        assert record["diameter_mm"] == pytest.approx(nearest.diameter_mm, abs=0.01) and len(record["position"]) == 3
        assert int((nearest.contour.tensor > 0).sum()) > 10


def test_what_both_show_and_what_has_vanished_is_not_proposed(before: Volume, after: Volume) -> None:
    assert new_lesion_candidates(before, _moved(before), registration=_registration()) == []
    everything = _patient({"known": OTHER, "lung": IN_LUNG, "tissue": IN_TISSUE})
    assert new_lesion_candidates(everything, _moved(before), registration=_registration()) == []


def test_known_lesions_and_the_score_narrow_the_list(before: Volume, after: Volume) -> None:
    known = [(IN_LUNG + SHIFT, 7.0)]
    found = new_lesion_candidates(before, after, registration=_registration(), known=known)
    assert [one.region for one in found] == [SOFT_TISSUE]
    surest = found[0].score
    assert new_lesion_candidates(before, after, registration=_registration(), known=known, minimum_score=1.0) == []
    assert surest < 1.0


def test_where_a_registration_is_not_trusted_nothing_is_proposed(before: Volume, after: Volume) -> None:
    assert new_lesion_candidates(before, after, registration=_registration(error_mm=20.0)) == []


def test_only_what_both_images_show_is_compared(before: Volume, after: Volume) -> None:
    """The baseline's upper half alone: below it nothing is known, so nothing is new."""
    half = before.with_tensor(before.tensor[:, :, 22:].contiguous(), GRID.cropped((0, 0, 22), (72, 56, 18)))
    places = novelty(after, half, _registration().fixed_to_moving)
    heights = places.grid.voxels_to_points(places.compared[0, 0].nonzero().flip(1).numpy())[:, 2]
    assert heights.min() > GRID.voxels_to_points(np.array([[0, 0, 22]]))[0, 2] + SHIFT[2]
    assert bool(places.lung.any()) and not bool((places.lung & ~places.compared & (places.residual != 0)).any())


def test_unusable_images_are_refused(before: Volume, after: Volume) -> None:
    other = before.with_tensor((before.tensor + 1000) * 0.3)
    with pytest.raises(InputError, match="CT"):
        new_lesion_candidates(other, after, registration=_registration())
    with pytest.raises(InputError, match="is no score"):
        new_lesion_candidates(before, after, registration=_registration(), minimum_score=1.5)

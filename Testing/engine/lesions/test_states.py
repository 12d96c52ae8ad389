"""States proposed by the engine: beyond the expected error, apart or gone, and only where the place is sure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.lesions import loops
from samconvex.lesions.baseline import describe
from samconvex.lesions.course import GONE, GROWN, NOT_FOUND, OUTSIDE, SHRUNK, SPLIT, UNCHANGED
from samconvex.lesions.judging import LOOP_MM, error90, judge
from samconvex.lesions.lesion import Lesion
from samconvex.lesions.locating import Place
from samconvex.lesions.measurement import Measurement, measure_lesion
from samconvex.lesions.precision import CONTOUR_MM, expected_error
from samconvex.lesions.states import size_change, size_state
from samconvex.space.grid import Grid
from samconvex.space.transforms import Transform
from samconvex.space.volume import Volume

GRID = Grid((64, 64, 64), (1.0, 1.0, 1.0), (-31.5, -31.5, -31.5))
HERE = Place(np.zeros(3), Transform(()), Transform(()), True, 0.95, 1.0, 1.0)


def balls(*places: tuple[float, float, float, float]) -> torch.Tensor:
    """(D, H, W) bool: balls of x, y, z and radius."""
    points = GRID.voxel_centers(reference=(0.0, 0.0, 0.0))
    inside = torch.zeros(GRID.shape, dtype=torch.bool)
    for x, y, z, radius in places:
        inside |= (points - torch.tensor([x, y, z])).norm(dim=-1) <= radius
    return inside


def image(*places: tuple[float, float, float, float]) -> Volume:
    noise = torch.as_tensor(np.random.default_rng(3).normal(scale=6.0, size=GRID.shape), dtype=torch.float32)
    return Volume((40.0 + 80.0 * balls(*places) + noise)[None, None], GRID, source="ct")


@pytest.fixture(scope="module")
def entry():
    """A ball of 20 mm at the middle."""
    mask = Volume(balls((0, 0, 0, 10)).to(torch.uint8)[None, None], GRID, sitk.sitkUInt8)
    return describe(image((0, 0, 0, 10)), Lesion.from_mask("a", mask))


def ball_of(diameter: float) -> Measurement:
    line = np.zeros((2, 3))
    return Measurement(diameter, diameter, np.pi * diameter**3 / 6000, line, line)


def test_the_expected_error_follows_from_voxels_slices_and_contour() -> None:
    fine = expected_error(ball_of(20.0), Grid((9, 9, 9), (0.8, 0.8, 1.0)))
    assert fine.longest_mm == pytest.approx(np.sqrt(0.64 / 6 + 2 * CONTOUR_MM**2 + (1 / 120) ** 2))
    thick = expected_error(ball_of(20.0), Grid((9, 9, 9), (0.8, 0.8, 10.0)))
    # The mean sagitta of a slice of 10 mm through a ball of 20 mm.
    assert thick.longest_mm**2 - fine.longest_mm**2 == pytest.approx((100 / 120) ** 2 - (1 / 120) ** 2)
    # A border that is wrong by a length everywhere: surface times that length.
    border = fine.volume_ml * 1000 / (np.pi * 400)
    assert border == pytest.approx(np.sqrt(CONTOUR_MM**2 + (2 * 0.64 + 1) / 36))
    assert fine.added([fine]).longest_mm == pytest.approx(np.sqrt(2) * fine.longest_mm)


def test_the_slice_misses_the_longest_diameter_by_the_mean_sagitta() -> None:
    """The formula against balls cut by slices of 6 mm at every offset."""
    lost = []
    for offset in np.linspace(-0.5, 0.5, 21):
        nearest = 6.0 * abs(offset)
        lost.append(20.0 - 2 * np.sqrt(100.0 - nearest**2))
    assert np.mean(lost) == pytest.approx(36 / (6 * 20.0), rel=0.15)


@pytest.mark.parametrize(
    ("before", "after", "spacing", "state"),
    [
        (20.0, 20.5, 1.0, UNCHANGED),
        (20.0, 24.0, 1.0, GROWN),
        (20.0, 16.0, 1.0, SHRUNK),
        (20.0, 21.5, 1.0, UNCHANGED),  # beyond the error, below the limit of 12 %
        (8.0, 10.0, 5.0, UNCHANGED),  # above the limit, within the error of voxels of 5 mm
        (8.0, 10.0, 0.5, GROWN),
    ],
)
def test_a_lesion_has_grown_beyond_the_error_and_the_limit(before, after, spacing, state) -> None:
    grid = Grid((9, 9, 9), (spacing,) * 3)
    sizes = [ball_of(before), ball_of(after)]
    errors = [expected_error(size, grid) for size in sizes]
    change, _ = size_change(sizes[0], errors[0], sizes[1], errors[1])
    assert change == pytest.approx(np.log(after / before))
    assert size_state(sizes[0], errors[0], sizes[1], errors[1]) == state


def test_what_is_there_is_told_by_its_size(entry) -> None:
    for radius, state in ((10, UNCHANGED), (13, GROWN), (7, SHRUNK)):
        finding = judge(entry, image((0, 0, 0, radius)), HERE, 0, 0.5).finding
        assert finding.state == state and finding.found and finding.reason == ""
        assert finding.measurement.longest_mm == pytest.approx(2 * radius, abs=2.0)
        assert finding.error.longest_mm > 0 and finding.error90_mm == error90(finding.score)


def test_fragments_are_a_split_and_their_diameters_are_added(entry) -> None:
    later = image((-5, 0, 0, 3.5), (5, 0, 0, 3.5))
    finding = judge(entry, later, HERE, 0, 0.5).finding
    assert finding.state == SPLIT and len(finding.fragments) == 2 and "2 parts" in finding.reason
    assert sorted(round(float(place[0])) for _, place in finding.fragments) == [-5, 5]
    assert finding.measurement.longest_mm == pytest.approx(sum(size.longest_mm for size, _ in finding.fragments))
    assert finding.measurement.longest_mm == pytest.approx(14, abs=3.0)
    assert len(finding.to_dict()["fragments"]) == 2
    # A lesion that reaches beyond its old place has grown, whatever is beside it.
    assert judge(entry, image((0, 0, 0, 14)), HERE, 0, 0.5).finding.state == GROWN


def test_the_bound_shrinks_with_the_score_and_is_wider_for_a_contour_that_was_found(entry) -> None:
    bounds = [error90(score) for score in np.linspace(0, 1, 21)]
    assert all(a >= b > 0 for a, b in zip(bounds, bounds[1:], strict=False)) and bounds[0] > bounds[-1]
    assert error90(0.9, outlined=False) > error90(0.9)
    boxed = describe(image((0, 0, 0, 10)), Lesion.from_box("b", np.array([[-11.0] * 3, [11.0] * 3])))
    finding = judge(boxed, image((0, 0, 0, 10)), HERE, 0, 0.5).finding
    assert finding.error90_mm == error90(finding.score, outlined=False)


def slab(values: Volume, below: float, level: float) -> Volume:
    """``values`` with a band of muscle at the back, from ``below`` mm on."""
    points = GRID.voxel_centers(reference=(0.0, 0.0, 0.0))
    return values.with_tensor(torch.where(points[..., 1] > below, level, values.tensor[0, 0])[None, None])


def test_fragments_beside_what_the_lesion_had_covered_are_a_split() -> None:
    """Muscle as bright as the lesion reached into it at the baseline and shows again when it falls apart."""
    mask = Volume(balls((0, 0, 0, 10)).to(torch.uint8)[None, None], GRID, sitk.sitkUInt8)
    known = describe(slab(image((0, 0, 0, 10)), 5.0, 120.0), Lesion.from_mask("a", mask))
    later = slab(image((-5, -3, 0, 3.5), (5, -3, 0, 3.5)), 5.0, 120.0)
    finding = judge(known, later, HERE, 0, 0.5).finding
    assert finding.state == SPLIT and len(finding.fragments) == 2
    assert sorted(round(float(place[0])) for _, place in finding.fragments) == [-5, 5]
    # A band through the place and a single part are none, nor are parts without a gap between them.
    empty = judge(known, slab(image(), 5.0, 120.0), HERE, 0, 0.5).finding
    single = judge(known, slab(image((0, -3, 0, 5)), 5.0, 120.0), HERE, 0, 0.5).finding
    joint = judge(known, slab(image((-3, -2, 0, 4), (3, -2, 0, 4)), 5.0, 120.0), HERE, 0, 0.5).finding
    assert SPLIT not in {empty.state, single.state, joint.state} and not empty.found and single.found


def test_faint_fragments_are_a_split_too(entry) -> None:
    """Another contrast phase: a quarter of the contrast is left."""
    faint = image()
    faint = faint.with_tensor(faint.tensor + 21.0 * balls((-5, 0, 0, 3.5), (5, 0, 0, 3.5)))
    finding = judge(entry, faint, HERE, 0, 0.5).finding
    assert finding.state == SPLIT and len(finding.fragments) == 2 and finding.score >= 0.5
    assert not judge(entry, faint, HERE, 0, 1.01).finding.found, "the least score is asked of parts as well"


def test_a_match_that_does_not_lead_back_contradicts_no_place(entry) -> None:
    """What has vanished matches anything: only a match that returns to the lesion says that it is elsewhere."""
    astray = judge(entry, image(), replace(HERE, apart_mm=40.0, cycle_mm=39.0), 0, 0.5).finding
    assert astray.state == GONE


def test_nothing_there_is_gone_only_where_the_place_is_sure(entry) -> None:
    empty = image()
    finding = judge(entry, empty, HERE, 0, 0.5).finding
    assert finding.state == GONE and "stands out" in finding.reason and np.isfinite(finding.error90_mm)
    apart = judge(entry, empty, replace(HERE, apart_mm=40.0), 0, 0.5).finding
    assert apart.state == NOT_FOUND and "40 mm apart" in apart.reason
    unsure = judge(entry, empty, replace(HERE, sure=False), 0, 0.5).finding
    assert unsure.state == NOT_FOUND and "could not be aligned" in unsure.reason and np.isnan(unsure.error90_mm)
    unseen = judge(entry, empty, replace(HERE, forward=None), 0, 0.5).finding
    assert unseen.state == OUTSIDE and np.isnan(unseen.position).all()
    doubtful = judge(entry, image((0, 0, 0, 10)), HERE, 0, 1.01).finding
    assert doubtful.state == NOT_FOUND and "not surely" in doubtful.reason


def test_two_ways_that_disagree_take_the_trust(entry) -> None:
    later = image((0, 0, 0, 10))
    plain, close, far = (judge(entry, later, HERE, 1, 0.5, loop).finding for loop in (np.nan, LOOP_MM, 4 * LOOP_MM))
    assert plain.score == close.score > 0.9 and close.found and close.to_dict()["loop_mm"] == LOOP_MM
    assert far.state == NOT_FOUND and far.score < 0.1 and "32 mm away" in far.reason


def test_the_loop_is_the_distance_of_both_ways(entry, monkeypatch) -> None:
    away = np.array([0.0, 3.0, 4.0])
    monkeypatch.setattr(loops, "locate", lambda *words: [replace(HERE, point=HERE.point + away)] * len(words[2]))
    visit = (image(), None, [HERE, HERE, replace(HERE, forward=None)])
    distances = loops.loop_distances([entry] * 3, visit, (image(), None, [HERE, replace(HERE, forward=None), HERE]))
    np.testing.assert_allclose(distances, [5.0, np.nan, np.nan])


def test_what_was_alike_beside_the_lesion_before_is_not_its_growth() -> None:
    beside = (22, 0, 0, 8)
    mask = Volume(balls((0, 0, 0, 10)).to(torch.uint8)[None, None], GRID, sitk.sitkUInt8)
    known = describe(image((0, 0, 0, 10), beside), Lesion.from_mask("a", mask))
    finding = judge(known, image((0, 0, 0, 12.5), beside), HERE, 0, 0.5).finding
    truth = measure_lesion(Volume(balls((0, 0, 0, 12.5)).float()[None, None], GRID))
    assert finding.measurement.volume_ml == pytest.approx(truth.volume_ml, rel=0.2)
    gone = judge(known, image(beside), HERE, 0, 0.5).finding
    assert gone.state == GONE
    # A fragment that touches it is a part of the lesion all the same.
    touching = judge(known, image((-5, 0, 0, 3.5), (8, 0, 0, 5), beside), HERE, 0, 0.5).finding
    assert touching.state == SPLIT and len(touching.fragments) == 2

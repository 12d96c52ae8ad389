"""Every printed figure of quality against a value worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from samconvex.report import metrics
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume

GRID = Grid((20, 20, 20), (1.0, 2.0, 3.0))


def cube(low: int, high: int, label: int = 1) -> Volume:
    tensor = torch.zeros(1, 1, 20, 20, 20, dtype=torch.uint8)
    tensor[..., 5:15, 5:15, low:high] = label
    return Volume(tensor, GRID)


def test_dice_of_shifted_cubes() -> None:
    assert metrics.dice(cube(4, 14), cube(6, 16)) == pytest.approx({1: 0.8})


def test_a_label_lost_by_warping_scores_zero() -> None:
    assert metrics.dice(cube(4, 14, 2), cube(4, 14, 1)) == {1: 0.0, 2: 0.0}


def test_dice_needs_memory_for_the_labels_there_are_and_not_for_the_ids_below() -> None:
    first, second = cube(4, 14), cube(6, 16)
    # Counting by id would need 2^55 numbers.
    large = [volume.with_tensor(volume.tensor.long() * 2**55) for volume in (first, second)]
    assert metrics.dice(*large) == pytest.approx({2**55: 0.8})
    large[1].tensor[..., 0] = -1
    assert metrics.dice(*large) == pytest.approx({2**55: 0.8})


def test_common_labels_are_those_of_both_maps() -> None:
    assert metrics.common_labels(cube(4, 14, 2), cube(4, 14, 1)) == []
    assert metrics.common_labels(cube(4, 14, 3), cube(5, 9, 3)) == [3]


def test_hausdorff_distance_is_in_millimeters() -> None:
    assert metrics.hausdorff95(cube(4, 14), cube(4, 14), 1) == 0.0
    assert metrics.hausdorff95(cube(4, 14), cube(7, 17), 1) == pytest.approx(3.0)
    assert math.isinf(metrics.hausdorff95(cube(4, 14), cube(4, 14, 2), 1))


def test_surfaces_are_as_far_apart_as_the_boxes_were_moved() -> None:
    box = cube(4, 14)
    points, errors, labels = metrics.surface_errors(Transform(), box, box)
    assert (errors == 0).all() and (labels == 1).all() and len(points) == len(errors) > 100
    # 2 mm along x: the two faces across are 2 mm off, the others slide along themselves.
    shift = Transform((AffineTransform(np.eye(3), np.array([2.0, 0.0, 0.0])),))
    points, errors, _ = metrics.surface_errors(shift, box, box)
    x = GRID.points_to_voxels(points)[:, 0]
    # At an end in x, but not near the other faces, where the next surface may be another one.
    z, y = GRID.points_to_voxels(points)[:, 2], GRID.points_to_voxels(points)[:, 1]
    middle = (np.abs(y - 9.5) < 3) & (np.abs(z - 9.5) < 3)
    for end in (4, 13):
        assert errors[middle & (np.round(x) == end)] == pytest.approx(2.0)
    assert np.median(errors[(x > 7) & (x < 10)]) == 0.0


def test_surfaces_that_end_with_the_image_or_are_carried_out_of_it_tell_nothing() -> None:
    cut = cube(0, 10)
    points, _, _ = metrics.surface_errors(Transform(), cut, cut)
    assert GRID.points_to_voxels(points)[:, 0].min() > 1.5
    away = Transform((AffineTransform(np.eye(3), np.array([500.0, 0.0, 0.0])),))
    assert [len(part) for part in metrics.surface_errors(away, cut, cut)] == [0, 0, 0]
    assert len(metrics.surface_errors(Transform(), cut, cube(0, 10, 2))[1]) == 0


def test_coverage_counts_errors_that_reach_their_bound() -> None:
    assert metrics.coverage_percent(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.5, 0.0, 4.5])) == 50.0


def test_rank_correlation_is_spearmans() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.rank_correlation(values, np.exp(values)) == pytest.approx(1.0)
    assert metrics.rank_correlation(values, -values) == pytest.approx(-1.0)
    # Ties share their mean rank: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert metrics.rank_correlation(np.array([1.0, 2.0, 2.0, 9.0]), values) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(metrics.rank_correlation(values, np.ones(4)))


def test_landmark_error_carries_fixed_points_to_the_moving_image() -> None:
    shift = Transform((AffineTransform(np.eye(3), np.array([3.0, 0.0, 4.0])),))
    errors = metrics.target_registration_error(shift, np.zeros((2, 3)), np.array([[3.0, 0, 4], [0.0, 0, 0]]))
    np.testing.assert_allclose(errors, [0.0, 5.0])
    assert metrics.summary(errors) == pytest.approx({"mean": 2.5, "median": 2.5, "p95": 4.75, "max": 5.0})


def test_both_sdlogj_follow_their_definitions() -> None:
    determinant = torch.ones(1, 1, 8, 8, 8)
    determinant[..., :4] = math.e
    expected = torch.tensor([1.0] * 256 + [0.0] * 256).std().item()
    assert metrics.sdlogj(determinant) == pytest.approx(expected, rel=1e-4)
    inner = torch.tensor([math.log(math.e + 3)] * 32 + [math.log(4)] * 32).std().item()
    assert metrics.sdlogj_learn2reg(determinant) == pytest.approx(inner, rel=1e-4)


def test_a_fold_counts_twenty_point_seven_in_the_papers_sdlogj() -> None:
    determinant = torch.ones(1, 1, 1, 1, 2)
    determinant[..., 0] = -3.0
    assert metrics.sdlogj(determinant) == pytest.approx(-math.log(1e-9) / math.sqrt(2), rel=1e-4)
    assert metrics.folding_percent(determinant) == 50.0
    assert metrics.folding_percent(determinant, determinant > 0) == 0.0


def test_a_mirrored_field_folds_everywhere() -> None:
    points = GRID.voxel_centers()
    mirrored = points * torch.tensor([-2.0, 0.0, 0.0])
    field = DisplacementField(mirrored.permute(3, 0, 1, 2)[None].contiguous(), GRID)
    assert metrics.regularity(field)["folding_percent"] == 100.0


def test_inverse_consistency_of_a_wrong_inverse() -> None:
    forward = Transform((AffineTransform(np.eye(3), np.array([5.0, 0.0, 0.0])),))
    assert metrics.inverse_consistency(forward, forward.inverse(), np.zeros((4, 3)))["max"] == 0.0
    assert metrics.inverse_consistency(forward, forward, np.zeros((4, 3)))["mean"] == 10.0

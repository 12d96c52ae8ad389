"""Correspondences between patients from their labels."""

from __future__ import annotations

import numpy as np
import pytest
from samconvex.training.data.landmarks import alignment, correspondences, describe_label, level_map, transport_map

SCALE, SHIFT = np.array([1.3, 0.8, 1.1]), np.array([12.0, -5.0, 8.0])


def _ellipsoid(center, radii, rng, count=4000):
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.array(center) + direction * np.array(radii) * rng.uniform(0, 1, (count, 1)) ** (1 / 3)


def _patient(warp, *, cut=()):
    rng = np.random.default_rng(1)
    organs = {
        1: _ellipsoid((90, 40, 40), (8, 6, 6), rng),
        3: _ellipsoid((70, 40, 60), (9, 5, 4), rng),
        7: _ellipsoid((50, 25, 40), (6, 12, 10), rng),
    }
    shapes = {k: describe_label(warp(p), k not in cut, False, rng) for k, p in organs.items()}
    tube = np.stack([rng.uniform(5, 85, 3000), 45 + rng.normal(size=3000), 40 + rng.normal(size=3000)], 1)
    shapes[2] = describe_label(warp(tube), False, True, rng)
    return shapes


def _both(**changes):
    return _patient(lambda p: p), _patient(lambda p: p * SCALE + SHIFT, **changes)


def test_matches_follow_the_true_map():
    first, second = _both()
    found = correspondences(first, second, np.random.default_rng(0))
    assert len(found.first) > 80
    error = np.linalg.norm(found.first * SCALE + SHIFT - found.second, axis=1) * 2.0
    assert np.median(error) < 1.0
    assert (error < found.tolerance * 2.0).mean() > 0.95, "the tolerance covers what labels leave open"


def test_the_transport_map_turns_one_covariance_into_the_other():
    rng = np.random.default_rng(3)
    first, second = (np.cov(rng.normal(size=(3, 50)) * s) for s in (2.0, 5.0))
    matrix = transport_map(first, second)
    np.testing.assert_allclose(matrix @ first @ matrix.T, second, rtol=1e-6)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)


def test_a_label_that_the_scan_cuts_gives_no_match():
    first, second = _both(cut=(3,))
    found = correspondences(first, second, np.random.default_rng(0))
    distance = np.linalg.norm(found.first - first[3].centroid, axis=1)
    assert distance.min() > 8


def test_levels_need_two_common_organs():
    first, second = _both()
    assert level_map(first, second) is not None
    assert level_map({1: first[1], 2: first[2]}, second) is None


def test_alignment_is_rough_but_right():
    first, second = _both()
    scale, c1, c2 = alignment(first, second)
    carried = c2 + scale * (first[3].centroid - c1)
    assert np.linalg.norm(carried - second[3].centroid) * 2.0 < 40
    assert alignment({1: first[1]}, second) is None


def test_specks_are_no_landmarks():
    assert describe_label(np.random.default_rng(0).normal(size=(10, 3)), True, False, np.random.default_rng(0)) is None


def test_extremes_lie_where_their_direction_says():
    rng = np.random.default_rng(0)
    shape = describe_label(_ellipsoid((0, 0, 0), (20, 5, 5), rng), True, False, rng)
    assert shape.extremes[:, 0].max() == pytest.approx(18, abs=2)
    assert shape.extremes[:, 0].min() == pytest.approx(-18, abs=2)

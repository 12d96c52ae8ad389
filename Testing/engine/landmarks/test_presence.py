"""Absent or present: distances to what the query shows, the probability's direction, and the states that follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine.sam_fixtures import body_points, random_model, textured_body
from samconvex.anatomy.cache import embed_cached
from samconvex.anatomy.level import Anatomy
from samconvex.landmarks import presence
from samconvex.landmarks.matching import match_points
from samconvex.space.grid import Grid

SURE = [0.95, 1.0, -40.0, -40.0]
GONE = [0.78, 14.0, 30.0, 30.0]


def test_distances_to_the_border_are_negative_inside():
    grid = Grid((10, 10, 20), (2.0, 2.0, 3.0))
    inside, above, beside = presence.beyond_image(
        grid, np.array([[9.0, 9.0, 28.5], [9.0, 9.0, 68.5], [-31.0, 9.0, 9.0]])
    )
    assert inside == pytest.approx(-10.0) and above == pytest.approx(10.0) and beside == pytest.approx(30.0)


def test_levels_beyond_what_is_shown():
    heights = (-500.0, -300.0)
    shown = Anatomy(True, "", 1.0, "upright", (0.0, -1.0), heights, (500.0, 300.0), ("chest",))
    points = np.array([[0, 0, -400.0], [0, 0, -280.0], [0, 0, -530.0]])
    assert presence.beyond_levels(points, shown, shown) == pytest.approx([-100.0, 20.0, 30.0])
    assert presence.beyond_levels(points, shown, replace(shown, confidence=0.2)) is None


@pytest.mark.parametrize("column", range(len(presence.NAMES)))
def test_no_evidence_speaks_the_wrong_way(column):
    worse = np.array([SURE, SURE], float)
    worse[1, column] = GONE[column]
    better, less = presence.probability(worse)
    assert less <= better
    assert presence.probability(np.array([SURE]))[0] > 0.9 > 0.1 > presence.probability(np.array([GONE]))[0]


def test_what_is_improbable_is_not_found_and_outside_only_if_it_lies_beyond(monkeypatch):
    body = textured_body(0)
    embedding = embed_cached(body, random_model(), disk=False)
    points = body_points(body, 3)
    hidden = [0.5, 40.0, -5.0, -5.0]
    assert presence.probability(np.array([hidden]))[0] < presence.LEAST
    free = match_points(embedding, points, embedding, mode="fast", min_score=-1, max_cycle_mm=1e6)
    assert free.probability is None and free.found.all()
    monkeypatch.setattr(presence, "is_fitted_for", lambda embedding: True)
    monkeypatch.setattr(presence, "evidence", lambda *arguments: np.array([SURE, GONE, hidden]))
    told = match_points(embedding, points, embedding, mode="fast", min_score=-1, max_cycle_mm=1e6)
    assert told.state == ["found", "outside", "not found"]
    assert told.probability[0] > 0.9 and np.isnan(told.positions[1:]).all()

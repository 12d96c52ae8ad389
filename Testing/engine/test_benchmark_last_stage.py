"""The study of the last stage refines one pyramid anew for every candidate and compares like with like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samconvex as sc
from benchmarks.studies import last_stage
from engine.phantom_fixtures import QUICK
from samconvex.registration import solve
from samconvex.settings.registration import AdamSettings


def record(pair: str, candidate: str, dice: float, seconds: float = 0.0) -> dict:
    return {
        "pair": pair,
        "candidate": candidate,
        "dice": dice,
        "sdlogj": 0.5,
        "seconds": seconds,
        "without": 20.0,
    }


def test_only_pairs_that_every_candidate_has_are_averaged():
    records = [
        record("hn1-hn2", "none", 0.6),
        record("hn1-hn2", "weight 0.1", 0.7, 5.0),
        record("hn3-hn4", "none", 0.1),
        record("btcv1-btcv2", "none", 0.5),
        record("btcv1-btcv2", "weight 0.1", 0.4, 10.0),
    ]
    rows = {(row["group"], row["candidate"]): row for row in last_stage.table(records)}
    assert rows["hn", "none"]["n"] == 1 and rows["hn", "none"]["dice"] == pytest.approx(0.6)
    assert rows["hn", "weight 0.1"]["share"] == pytest.approx(0.2)
    assert rows["btcv", "weight 0.1"]["dice"] == pytest.approx(0.4)


def test_a_candidate_is_the_registration_with_its_settings(phantom, breath, inside: np.ndarray, monkeypatch) -> None:
    adam = AdamSettings(spacing=12.0, iterations=4, regularization=0.1)
    moving, _ = breath
    pyramids = []
    pyramid = solve.run_pyramid
    monkeypatch.setattr(solve, "run_pyramid", lambda *given, **named: pyramids.append(1) or pyramid(*given, **named))

    def points(**changes) -> np.ndarray:
        settings = replace(QUICK, refine="adam", **changes)
        return sc.register(phantom.ct, moving, preset=settings).fixed_to_moving.map_points(inside)

    expected = points(adam=adam)
    refiner = last_stage.Refiner()
    monkeypatch.setattr(solve, "_one_way", refiner.solved(solve._one_way))
    plain = points()
    refiner.adam = adam
    np.testing.assert_allclose(points(), expected, atol=1e-3)
    assert np.abs(plain - expected).max() > 0.05
    assert len(pyramids) == 2 and refiner.seconds > 0

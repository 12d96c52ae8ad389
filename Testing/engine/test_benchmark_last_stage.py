"""The study of the last stage refines one pyramid anew for every candidate and compares like with like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.data.pairs import WARPED_CASES, data_folder
from benchmarks.studies import last_stage
from engine.phantom_fixtures import QUICK
from samconvex.registration import solve
from samconvex.registration.register import find_map
from samconvex.settings.registration import AdamSettings


def record(pair: str, candidate: str, figure: float, seconds: float = 0.0, sign: int = 1) -> dict:
    return {
        "pair": pair,
        "group": pair[:2],
        "candidate": candidate,
        "figure": figure,
        "sign": sign,
        "sdlogj": 0.5,
        "seconds": seconds,
        "without": 20.0,
    }


def test_only_pairs_that_every_candidate_has_are_averaged():
    records = [
        record("hn1-hn2", "none", 0.6),
        record("hn1-hn2", "weight 0.1", 0.7, 5.0),
        record("hn3-hn4", "none", 0.1),
        record("ab1-ab2", "none", 0.5),
        record("ab1-ab2", "weight 0.1", 0.4, 10.0),
    ]
    rows = {(row["group"], row["candidate"]): row for row in last_stage.table(records)}
    assert rows["hn", "none"]["n"] == 1 and rows["hn", "none"]["figure"] == pytest.approx(0.6)
    assert rows["hn", "weight 0.1"]["share"] == pytest.approx(0.2)
    assert rows["ab", "weight 0.1"]["gained"] == pytest.approx(-0.1)
    assert rows["ab", "weight 0.1"]["interval"] == pytest.approx((-0.1, -0.1))


def test_the_worst_error_of_a_known_warp_is_the_largest():
    records = [record(f"ch{number}", "none", error, sign=-1) for number, error in enumerate((1.0, 3.0, 2.0))]
    assert last_stage.table(records)[0]["worst"] == 3.0


def test_no_pair_has_an_evaluation_patient_and_no_chest_of_the_benchmark():
    patients = {name for _, *names in last_stage.PATIENTS for name in names}
    assert not {f"btcv{number}" for number in range(14, 20)} & patients
    assert not set(WARPED_CASES) & set(last_stage.CHESTS)
    data = data_folder()
    if data is not None:
        assert not set((data / "headneck_pairs.csv").read_text().replace("\n", ",").split(",")) & patients


def test_a_candidate_is_the_registration_with_its_settings(phantom, breath, inside: np.ndarray, monkeypatch) -> None:
    adam = AdamSettings(spacing=12.0, iterations=4, regularization=0.1)
    moving, _ = breath
    pyramids = []
    pyramid = solve.run_pyramid
    monkeypatch.setattr(solve, "run_pyramid", lambda *given, **named: pyramids.append(1) or pyramid(*given, **named))

    def points(**changes) -> np.ndarray:
        settings = replace(QUICK, refine="adam", **changes)
        return find_map(phantom.ct, moving, preset=settings)[0].map_points(inside)

    expected = points(adam=adam)
    refiner = last_stage.Refiner()
    monkeypatch.setattr(solve, "_one_way", refiner.solved(solve._one_way))
    plain = points()
    refiner.adam = adam
    np.testing.assert_allclose(points(), expected, atol=1e-3)
    assert np.abs(plain - expected).max() > 0.05
    assert len(pyramids) == 2 and refiner.seconds > 0

"""The regression of absent and present landmarks: right signs, both outcomes alike, ambiguous points left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks.studies.presence import fitted, rows_of
from samconvex.landmarks.presence import NAMES, SIGNS, WEIGHTS


def test_what_would_speak_the_wrong_way_has_no_weight():
    random = np.random.default_rng(0)
    present = random.random(600) < 0.2
    evidence = random.normal(size=(600, len(NAMES)))
    evidence[:, 0] += 2.0 * present  # a better score: as it must be
    evidence[:, 1] += 1.5 * present  # a longer cycle for what is there: chance
    weights, intercept = fitted(evidence, present)
    assert weights[0] > 0.5 and weights[1] == 0 and (weights * SIGNS >= 0).all()
    called = evidence @ weights + intercept > 0
    assert called[present].mean() > 0.75 and (~called)[~present].mean() > 0.75
    assert (np.array(WEIGHTS) * SIGNS >= 0).all()


def test_points_near_the_cut_do_not_count(tmp_path):
    record = {
        "query": "a",
        "evidence": [[0.9, 1.0, -30.0, -30.0, 3.0]] * 4,
        "beyond_mm": [-10.0, -9.0, 15.0, 15.1],
        "state": ["found", "found", "found", "outside"],
    }
    (tmp_path / "cut.jsonl").write_text(json.dumps(record) + "\n")
    evidence, present, called, queries = rows_of(tmp_path / "cut.jsonl")
    assert present.tolist() == [True, False] and called.tolist() == [True, False] and queries == ["a", "a"]
    assert evidence[0] == pytest.approx([0.9, 1.0, -30.0, -30.0])

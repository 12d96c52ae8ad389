"""The study of new lesions counts hits and false candidates as it says, and judges a scan by the others' weights."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.studies.new_lesions import fitted, left_out, recall_at, table
from samconvex.lesions.candidates import MINIMUM_SCORE


def _pair(case: str, new: list[float | None], false: list[float]) -> dict:
    records = [{"label": True, "score": score, "features": [1.0, score]} for score in new if score is not None]
    records += [{"label": False, "score": score, "features": [1.0, score]} for score in false]
    return {
        "case": case,
        "condition": "plain",
        "new": [{"mm": 12.0, "score": score} for score in new],
        "candidates": records,
    }


def test_recall_is_counted_at_so_many_false_candidates_a_scan() -> None:
    pairs = [_pair("a", [0.9, 0.5, None], [0.8, 0.6]), _pair("b", [0.7, 0.55], [0.1])]
    # Two scans allow two: the third highest false score, 0.1, sets the limit.
    recall, false, limit = recall_at(pairs, 1.0)
    assert (recall, false) == (pytest.approx(4 / 5), 1.0) and 0.1 < limit < 0.11
    recall, false, limit = recall_at(pairs, 0.5)
    assert (recall, false) == (pytest.approx(2 / 5), 0.5) and 0.6 < limit < 0.61
    recall, false, limit = recall_at(pairs, None)
    assert (recall, false, limit) == (pytest.approx(4 / 5), 1.0, MINIMUM_SCORE)
    assert "| all | 2 | 5 | 80 (" in table(pairs)


def test_a_scan_is_judged_by_weights_of_the_others() -> None:
    pairs = [_pair(name, [0.9, 0.8, 0.7], [0.2, 0.1]) for name in "abc"]
    # In one scan all is the other way round: its own weights would find it, those of the others do not.
    pairs.append(_pair("odd", [0.1, 0.2], [0.9, 0.8]))
    assert fitted(pairs[:3])[1] > 0
    judged = left_out(pairs)[3]
    new = [one["score"] for one in judged["new"]]
    false = [one["score"] for one in judged["candidates"] if not one["label"]]
    assert max(new) < min(false) and np.isfinite(new).all()

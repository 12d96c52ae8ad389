"""The published cases of the verdict are judged as published, and as well as promised."""

from __future__ import annotations

import json

import pytest
from benchmarks.studies.verdict import PUBLISHED, judged, wilson


@pytest.fixture(scope="module")
def published() -> dict:
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def test_the_published_shares_are_those_of_the_published_cases(published) -> None:
    assert judged(published["cases"]) == published["figures"]


def test_patients_of_an_evaluation_took_no_part(published) -> None:
    names = {name for case in published["cases"] for name in case["name"].split("-")}
    assert not names & {f"btcv{number}" for number in range(14, 20)}
    groups: dict[str, set[str]] = {"fit": set(), "held out": set()}
    for case in published["cases"]:
        groups[case["group"]] |= set(case["name"].split("-"))
    assert groups["fit"] and groups["held out"] and not groups["fit"] & groups["held out"]


def test_wrong_results_are_flagged_and_right_ones_are_not(published) -> None:
    kinds = {case["kind"] for case in published["cases"] if case["truth"] == "wrong"}
    assert len(kinds) >= 10
    for group in ("fit", "held out"):
        figures = published["figures"][group]
        # Another patient seen in a mirror: in heads nothing tells, and chests agree as well as right abdomens do.
        blind = [name for name in figures if name.startswith("wrong: mirrored") and "same" not in name]
        missed = {name: row["good"] for name, row in figures.items() if name.startswith("wrong") and row["good"]}
        assert set(missed) <= set(blind), missed
        assert figures["all right"]["n"] - figures["all right"]["good"] <= 1


def test_intervals_are_those_of_wilson() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)

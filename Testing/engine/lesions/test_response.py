"""RECIST 1.1 from confirmed diameters: the sums, the limits of every category, and what cannot be judged."""

from __future__ import annotations

import math

import pytest
from samconvex.errors import InputError
from samconvex.lesions.response import assess_response


def categories(*totals: float) -> list[str]:
    return [entry.category for entry in assess_response([{"a": total} for total in totals])]


def test_partial_response_starts_at_thirty_percent_below_the_baseline():
    assert categories(100, 70)[1] == "PR"
    assert categories(100, 70.1)[1] == "SD"


def test_progress_needs_twenty_percent_and_five_millimeters_above_the_nadir():
    assert categories(100, 120)[1] == "PD"
    assert categories(100, 119.9)[1] == "SD"
    # 20 percent of a small sum are less than 5 mm.
    assert categories(20, 24.9)[1] == "SD"
    assert categories(20, 25)[1] == "PD"


def test_the_nadir_is_the_smallest_sum_so_far_and_not_the_baseline():
    found = assess_response([{"a": total} for total in (100, 50, 61, 55)])
    assert [entry.category for entry in found] == ["baseline", "PR", "PD", "PR"]
    assert found[2].nadir_mm == 50 and found[2].change_since_nadir_percent == pytest.approx(22.0)
    assert found[2].change_since_baseline_percent == pytest.approx(-39.0)
    assert found[3].nadir_mm == 50


def test_complete_response_needs_every_lesion_gone_and_nodes_below_ten_millimeters():
    rows = [{"liver": 30, "node": 18}, {"liver": 0, "node": 9.9}, {"liver": 0, "node": 10.0}]
    found = assess_response(rows, nodes={"node"})
    assert [entry.category for entry in found[:2]] == ["baseline", "CR"]
    # As an organ lesion the same 9.9 mm are no complete response.
    assert assess_response(rows[:2])[1].category == "PR"
    assert found[2].category != "CR"


def test_a_lesion_that_comes_back_after_complete_response_is_progress():
    assert categories(30, 0, 4)[1:] == ["CR", "PD"]
    assert assess_response([{"a": 30}, {"a": 0}, {"a": 4}])[2].change_since_nadir_percent == math.inf
    # A lymph node below 10 mm is normal and has not come back.
    rows = [{"liver": 30, "node": 18}, {"liver": 0, "node": 8}, {"liver": 0, "node": 9}]
    assert [entry.category for entry in assess_response(rows, nodes={"node"})[1:]] == ["CR", "CR"]


def test_a_new_lesion_is_progress_whatever_the_sums_say():
    found = assess_response([{"a": 30}, {"a": 10}], new_lesions=[False, True])
    assert found[1].category == "PD" and "new lesion" in found[1].reason


def test_a_missing_measurement_is_not_evaluable_unless_the_others_have_progressed():
    start = {"a": 30, "b": 20}
    for missing in ({"a": 10}, {"a": 10, "b": None}, {"a": 10, "b": math.nan}):
        found = assess_response([start, missing])[1]
        assert found.category == "NE" and found.sum_mm is None and "b" in found.reason
    assert assess_response([start, {"a": 61}])[1].category == "PD"


def test_an_incomplete_sum_is_no_nadir():
    found = assess_response([{"a": 30, "b": 20}, {"a": 5}, {"a": 30, "b": 22}])
    assert [entry.category for entry in found] == ["baseline", "NE", "SD"] and found[2].nadir_mm == 50


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no target lesion"),
        ([{}], "no target lesion"),
        ([{"a": None}], "no diameter at the baseline"),
        ([{"a": 0}], "no diameter at the baseline"),
        ([{"a": 10}, {"b": 5}], "b has no baseline diameter"),
        ([{"a": 10}, {"a": -1}], "0 or more"),
        ([{"a": 10}, {"a": math.inf}], "0 or more"),
    ],
)
def test_unusable_diameters_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        assess_response(rows)

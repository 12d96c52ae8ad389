"""Worked cases of our own: sums, non-target and new lesions against the category that the published rules give."""

from __future__ import annotations

import datetime
import itertools

import pytest
from samconvex.errors import InputError
from samconvex.lesions.irecist import NewLesions, assess_immune_response
from samconvex.lesions.response import NON_CR, assess_response, non_target_category, overall_response

CR, PR, SD, PD, NE = "CR", "PR", "SD", "PD", "NE"


def rows(*sums):
    """Time points of one target lesion; None was not measured."""
    return [{"a": value} for value in sums]


# name, diameters per time point, keywords, overall category of every follow-up, words of the last reason
RECIST = [
    ("gone", rows(40, 0), {}, [CR], "4.3.1"),
    ("exactly thirty percent less", rows(40, 28), {}, [PR], "30 %"),
    ("a little less than thirty percent", rows(40, 28.4), {}, [SD], "neither"),
    ("exactly twenty percent and over five millimeters more", rows(40, 48), {}, [PD], "8.0 mm"),
    ("over twenty percent, under five millimeters", rows(18, 22.9), {}, [SD], "neither"),
    ("over five millimeters, under twenty percent", rows(60, 71), {}, [SD], "neither"),
    ("exactly five millimeters and twenty percent", rows(25, 30), {}, [PD], "5.0 mm"),
    ("against the nadir, below the baseline", rows(100, 40, 48), {}, [PR, PD], "smallest"),
    ("nadir small: percent alone is not enough", rows(100, 12, 16), {}, [PR, PR], "shrank"),
    ("nadir of two visits ago", rows(50, 30, 34, 36), {}, [PR, PR, PD], "smallest"),
    ("grown slowly, each step below the limit", rows(50, 55, 59, 60), {}, [SD, SD, PD], "10.0 mm"),
    ("came back after complete response", rows(20, 0, 3), {}, [CR, PD], "came back"),
    ("too small to measure is no complete response", rows(20, 5), {}, [PR], "75 %"),
    ("too small to measure from twelve", rows(12, 5, 5), {}, [PR, PR], "58 %"),
    ("not measured", rows(20, None, 12), {}, [NE, PR], "shrank"),
    ("progress between is not undone in the nadir", rows(40, 52, 44), {}, [PD, SD], "neither"),
    ("two lesions, one missing", [{"a": 30, "b": 20}, {"a": 12}], {}, [NE], "Not measured: b"),
    # Section 4.4.2's own reasoning: what was measured alone exceeds the whole.
    ("two of three measured progress alone", [{"a": 20, "b": 15, "c": 15}, {"a": 45, "b": 35}], {}, [PD], "30.0 mm"),
    ("node normal, lesion gone", [{"a": 20, "n": 16}, {"a": 0, "n": 9}], {"nodes": {"n"}}, [CR], "10 mm"),
    ("node of ten millimeters is not normal", [{"a": 20, "n": 16}, {"a": 0, "n": 10}], {"nodes": {"n"}}, [PR], "72 %"),
    ("nodes alone, sum not zero", [{"m": 18, "n": 16}, {"m": 8, "n": 9}], {"nodes": {"m", "n"}}, [CR], "10 mm"),
    ("merged: the follower counts nothing", [{"a": 20, "b": 15}, {"a": 38, "b": 0}], {}, [SD], "neither"),
    ("merged and grown", [{"a": 20, "b": 15}, {"a": 43, "b": 0}], {}, [PD], "8.0 mm"),
    ("new lesion while shrinking", rows(40, 20), {"new_lesions": [False, True]}, [PD], "new lesion"),
    ("new lesion while not evaluable", rows(40, None), {"new_lesions": [False, True]}, [PD], "new lesion"),
    ("new lesion gone again", rows(40, 26, 26), {"new_lesions": [0, 1, 0]}, [PD, PR], "shrank"),
    ("targets gone, others stay", rows(20, 0), {"non_targets": [NON_CR, NON_CR]}, [PR], "persist"),
    ("targets gone, others not looked at", rows(20, 0), {"non_targets": [NON_CR, None]}, [PR], "not all evaluated"),
    ("everything gone", rows(20, 0), {"non_targets": [NON_CR, CR]}, [CR], "All lesions"),
    ("targets shrunk, others gone", rows(20, 10), {"non_targets": [NON_CR, CR]}, [PR], "shrank"),
    ("targets shrunk, others progress", rows(20, 10), {"non_targets": [NON_CR, PD]}, [PD], "unequivocally"),
    ("targets shrunk, others not looked at", rows(20, 10), {"non_targets": [NON_CR, NE]}, [PR], "shrank"),
    ("stable, others not looked at", rows(20, 21), {"non_targets": [NON_CR, NE]}, [SD], "neither"),
    ("targets not measured, others progress", rows(20, None), {"non_targets": [NON_CR, PD]}, [PD], "unequivocally"),
    ("targets not measured, others gone", rows(20, None), {"non_targets": [NON_CR, CR]}, [NE], "Not measured"),
    ("a non-target comes back", rows(20, 0, 0), {"non_targets": [NON_CR, CR, NON_CR]}, [CR, PD], "came back"),
    (
        "gone with others left is no complete response yet",
        rows(20, 0, 4),
        {"non_targets": [NON_CR] * 3},
        [PR, PR],
        "80",
    ),
    ("only non-targets, gone", [{}, {}], {"non_targets": [NON_CR, CR]}, [CR], "table 2"),
    ("only non-targets, left", [{}, {}], {"non_targets": [NON_CR, NON_CR]}, [NON_CR], "table 2"),
    ("only non-targets, not looked at", [{}, {}], {"non_targets": [NON_CR, None]}, [NE], "table 2"),
    ("only non-targets, progress", [{}, {}], {"non_targets": [NON_CR, PD]}, [PD], "unequivocally"),
    ("only non-targets, new one", [{}, {}], {"non_targets": [NON_CR, CR], "new_lesions": [0, 1]}, [PD], "new lesion"),
]


@pytest.mark.parametrize(("name", "diameters", "keywords", "expected", "said"), RECIST, ids=[c[0] for c in RECIST])
def test_recist(name, diameters, keywords, expected, said):
    found = assess_response(diameters, **keywords)
    assert [entry.category for entry in found[1:]] == expected
    assert said in found[-1].reason and found[-1].reason.endswith(".")


def test_tables_1_and_2_whole():
    """Every combination against the published tables, written as their rows and not as the program's branches."""
    for target, other, new in itertools.product([CR, PR, SD, PD, NE, ""], [CR, NON_CR, PD, NE, ""], [False, True]):
        if not target and not other:
            continue
        if new or PD in (target, other):
            expected = PD
        elif not target:
            expected = other
        else:
            expected = {CR: {CR: CR, "": CR}.get(other, PR)}.get(target, target)
        category, reason = overall_response(target, other, new)
        assert category == expected and reason.endswith(".")


def test_non_target_category():
    assert non_target_category({"a": "gone", "b": "gone"}) == CR
    assert non_target_category({"a": "gone", "n": "present"}, nodes_mm={"n": 9.9}) == CR
    assert non_target_category({"a": "gone", "n": "present"}, nodes_mm={"n": 10.0}) == NON_CR
    assert non_target_category({"a": "present", "b": "not evaluable"}) == NON_CR
    assert non_target_category({"a": "gone", "b": "not evaluable"}) == NE
    assert non_target_category({"a": "present"}, progress=True) == PD
    with pytest.raises(InputError, match=r"'progress' at time point|is 'grown'"):
        assess_response([{"a": 10}, {"a": 10}], non_targets=[NON_CR, "grown"])


def new(*present, grew=False, others_grew=False, **measured):
    return NewLesions(measured, frozenset(present), others_grew=others_grew, non_targets_grew=grew)


NO = NewLesions()
NL = new(x=10)
iCR, iPR, iSD, iUPD, iCPD = "iCR", "iPR", "iSD", "iUPD", "iCPD"
# name, sums, non-targets ([] none), new lesions and growth per time point, categories of the follow-ups, words of the
# last reason
IMMUNE = [
    ("as RECIST while nothing progresses", [60, 40, 0], [], [], [iPR, iCR], "All lesions"),
    ("stable", [60, 58], [], [], [iSD], "neither"),
    ("first progression", [60, 75], [], [], [iUPD], "First progression, by target lesions"),
    ("confirmed by five millimeters more", [60, 75, 80], [], [], [iUPD, iCPD], "5.0 mm"),
    ("four millimeters more do not confirm", [60, 75, 79], [], [], [iUPD, iUPD], "stays unconfirmed"),
    ("shrinks, but still above the nadir's limit", [60, 75, 73], [], [], [iUPD, iUPD], "stays unconfirmed"),
    ("pseudoprogression: stable after", [60, 75, 66], [], [], [iUPD, iSD], "reset"),
    ("pseudoprogression: partial response after", [60, 75, 40], [], [], [iUPD, iPR], "reset"),
    ("pseudoprogression: gone after", [60, 75, 0], [], [], [iUPD, iCR], "reset"),
    ("after the reset it begins anew", [60, 75, 40, 50], [], [], [iUPD, iPR, iUPD], "First progression"),
    ("after the reset it is confirmed anew", [60, 75, 40, 50, 56], [], [], [iUPD, iPR, iUPD, iCPD], "6.0 mm"),
    ("confirmed stays confirmed", [60, 75, 82, 30], [], [], [iUPD, iCPD, iCPD], "was confirmed"),
    ("not evaluable leaves it open", [60, 75, None, 81], [], [], [iUPD, NE, iCPD], "6.0 mm"),
    ("new lesion", [60, 58], [], [NO, NL], [iUPD], "new lesions"),
    ("new lesion, unchanged", [60, 58, 58], [], [NO, NL, NL], [iUPD, iUPD], "stays unconfirmed"),
    ("new lesion grows by five", [60, 58, 58], [], [NO, NL, new(x=15)], [iUPD, iCPD], "new lesions' sum"),
    ("new lesion grows by four", [60, 58, 58], [], [NO, NL, new(x=14)], [iUPD, iUPD], "stays unconfirmed"),
    ("a second new lesion", [60, 58, 58], [], [NO, NL, new("y", x=10)], [iUPD, iCPD], "More new lesions (y)"),
    (
        "unmeasured new lesion grows",
        [60, 58, 58],
        [],
        [NO, new("y"), new("y", others_grew=True)],
        [iUPD, iCPD],
        "grown",
    ),
    ("new lesion gone again", [60, 58, 58], [], [NO, NL, NO], [iUPD, iSD], "reset"),
    ("new lesion stays, targets respond", [60, 58, 30], [], [NO, NL, NL], [iUPD, iUPD], "stays unconfirmed"),
    (
        "the sum of the last complete visit counts",
        [60, 75, None, 80],
        [],
        [NO, NL, NL, NL],
        [iUPD, iUPD, iCPD],
        "5.0 mm",
    ),
    ("by targets, then a new lesion", [60, 75, 75], [], [NO, NO, NL], [iUPD, iCPD], "also by new lesions"),
    ("by a new lesion, then targets", [60, 60, 75], [], [NO, NL, NL], [iUPD, iCPD], "also by target lesions"),
    ("by non-targets", [60, 60], [NON_CR, PD], [], [iUPD], "by non-target lesions"),
    ("by non-targets, unchanged", [60, 60, 60], [NON_CR, PD, PD], [], [iUPD, iUPD], "stays unconfirmed"),
    (
        "by non-targets, further growth",
        [60, 60, 60],
        [NON_CR, PD, NON_CR],
        [NO, NO, new(grew=True)],
        [iUPD, iCPD],
        "further",
    ),
    ("by non-targets, less after", [60, 60, 60], [NON_CR, PD, NON_CR], [], [iUPD, iSD], "reset"),
    ("by targets, then non-targets", [60, 75, 75], [NON_CR, NON_CR, PD], [], [iUPD, iCPD], "also by non-target"),
    ("targets gone, others stay", [60, 0], [NON_CR, NON_CR], [], [iPR], "persist"),
    ("came back after complete response", [60, 0, 4], [], [], [iCR, iUPD], "First progression"),
]


@pytest.mark.parametrize(
    ("name", "sums", "others", "news", "expected", "said"), IMMUNE, ids=[case[0] for case in IMMUNE]
)
def test_irecist(name, sums, others, news, expected, said):
    start = datetime.date(2026, 1, 1)
    dates = [start + datetime.timedelta(weeks=6 * number) for number in range(len(sums))]
    flags = [bool(entry.present) for entry in news]
    responses = assess_response(rows(*sums), non_targets=others, new_lesions=flags)
    found = assess_immune_response(responses, news, dates)
    assert [entry.category for entry in found[1:]] == expected
    assert said in found[-1].reason


@pytest.mark.parametrize(
    ("days", "expected", "said"),
    [(27, iUPD, "27 days"), (28, iCPD, "confirmed."), (56, iCPD, "confirmed."), (57, iCPD, "later than the eight")],
)
def test_confirmation_is_asked_for_after_four_to_eight_weeks(days, expected, said):
    start = datetime.date(2026, 1, 1)
    found = assess_immune_response(
        assess_response(rows(60, 75, 85)), dates=[None, start, start + datetime.timedelta(days=days)]
    )
    assert found[2].category == expected and said in found[2].reason


def test_what_came_too_early_is_confirmed_by_the_next_visit():
    dates = [datetime.date(2026, 1, 1) + datetime.timedelta(days=days) for days in (0, 50, 60, 85)]
    found = assess_immune_response(assess_response(rows(60, 75, 81, 81)), dates=dates)
    assert [entry.category for entry in found[1:]] == [iUPD, iUPD, iCPD]


def test_without_dates_the_interval_is_said_to_be_unchecked():
    assert "not known" in assess_immune_response(assess_response(rows(60, 75, 85)))[2].reason


def test_new_lesions_are_summed_apart():
    responses = assess_response(rows(60, 58), new_lesions=[0, 1])
    found = assess_immune_response(responses, [NO, new(x=12, y=9)])
    assert responses[1].sum_mm == 58 and found[1].new_sum_mm == 21


def test_unusable_input_is_refused():
    responses = assess_response(rows(60, 58))
    with pytest.raises(InputError, match="x at time point 1"):
        assess_immune_response(responses, [NO, new(x=-1)])
    with pytest.raises(InputError, match="correct the dates"):
        assess_immune_response(responses, dates=[datetime.date(2026, 2, 1), datetime.date(2026, 1, 1)])

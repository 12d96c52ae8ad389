"""From a course to its categories: what was confirmed counts, once, and nothing is erased on the way."""

from __future__ import annotations

import json

import pytest
from samconvex.errors import InputError
from samconvex.lesions.assessment import assess_course, changes_of, shown_mm
from samconvex.lesions.confirmation import (
    add_new_lesion,
    apply_proposed_roles,
    confirm,
    set_judgement,
    set_node,
    set_organ,
    set_role,
    set_state,
    withdraw,
)
from samconvex.lesions.course import Course, CourseLesion, Reading, Visit
from samconvex.lesions.course_changes import new_course

DATES = ("2026-01-01", "2026-03-01", "2026-04-15")


def lesion(name: str, *sizes: tuple[float, float] | None, **fields) -> CourseLesion:
    """A lesion with (longest, short) suggested per visit."""
    readings = {
        f"v{number}": Reading("baseline" if number == 0 else "unchanged", longest_mm=size[0], short_axis_mm=size[1])
        for number, size in enumerate(sizes)
        if size is not None
    }
    return CourseLesion(name, readings=readings, **fields)


def course_of(*lesions: CourseLesion, visits: int = 3, **facts) -> Course:
    course = new_course("Doe", "1", Visit("v0", DATES[0], **facts))
    course.visits += [Visit(f"v{number}", DATES[number], **facts) for number in range(1, visits)]
    course.lesions += lesions
    return course


def confirm_all(course: Course) -> None:
    for entry in course.lesions:
        for visit in entry.readings:
            confirm(course, entry.name, visit)


def categories(course: Course) -> list[str]:
    return [entry.recist.category for entry in assess_course(course).visits[1:]]


@pytest.fixture
def course() -> Course:
    return course_of(
        lesion("liver", (40, 30), (26, 20), (34, 20), organ="liver"),
        lesion("node", (30, 20), (25, 14), (20, 9), node=True),
    )


def test_nothing_counts_before_it_is_confirmed(course):
    assert assess_course(course).visits == () and "neither target" in assess_course(course).notes[0]
    confirm(course, "liver", "v0")
    assert course.lesion("liver").role == "target" and course.lesion("node").role == "unclassified"
    found = assess_course(course)
    assert [entry.recist.category for entry in found.visits] == ["baseline", "NE", "NE"]
    confirm_all(course)
    assert [entry.recist.sum_mm for entry in assess_course(course).visits] == [60, 40, 43]
    assert categories(course) == ["PR", "SD"]
    withdraw(course, "node", "v2")
    assert categories(course) == ["PR", "NE"]


def test_ticking_lymph_node_erases_nothing(course):
    confirm_all(course)
    before = {visit: vars(reading.confirmed).copy() for visit, reading in course.lesion("node").readings.items()}
    set_node(course, "node", False)
    assert [entry.recist.sum_mm for entry in assess_course(course).visits] == [70, 51, 54]
    set_node(course, "node", True)
    assert [entry.recist.sum_mm for entry in assess_course(course).visits] == [60, 40, 43]
    assert {visit: vars(reading.confirmed) for visit, reading in course.lesion("node").readings.items()} == before


def test_one_click_kinds_count_as_the_rules_say(course):
    confirm_all(course)
    confirm(course, "liver", "v1", "disappeared")
    confirm(course, "liver", "v2", "too small")
    found = assess_course(course).visits
    assert [entry.counted_mm["liver"] for entry in found] == [40, 0, 5] and found[2].recist.sum_mm == 14
    confirm(course, "liver", "v2", "not evaluable")
    assert assess_course(course).visits[2].recist.category == "NE"
    confirm(course, "liver", "v2")
    assert assess_course(course).visits[2].counted_mm["liver"] == 34


def test_a_merged_mass_counts_once_and_fragments_add_up():
    course = course_of(
        lesion("a", (20, 15), (38, 20)), lesion("b", (15, 10), None), lesion("c", (30, 20), (22, 14)), visits=2
    )
    course.lesion("b").readings["v1"] = Reading("merged", merged_with=["a"])
    whole = course.lesion("a").readings["v1"]
    whole.state, whole.merged_with = "merged", ["b"]
    confirm_all_but = [("a", "v0"), ("b", "v0"), ("c", "v0"), ("a", "v1"), ("c", "v1")]
    for name, visit in confirm_all_but:
        confirm(course, name, visit)
    found = assess_course(course).visits[1]
    assert found.recist.sum_mm == 60 and found.counted_mm == {"a": 38, "b": 0, "c": 22}
    # A mass of nodes counts by its short axis, one with anything else by its longest diameter.
    set_node(course, "a", True)
    assert assess_course(course).visits[1].counted_mm["a"] == 38
    set_node(course, "b", True)
    set_role(course, "b", "target")
    confirm(course, "b", "v0", short_axis_mm=15.0)
    assert assess_course(course).visits[1].counted_mm["a"] == 20


def test_slices_decide_what_is_measurable():
    thick = course_of(lesion("a", (15, 10)), lesion("b", (17, 10)), visits=1, slice_thickness_mm=8.0)
    assert "twice the slice thickness" in apply_proposed_roles(thick)[0]
    assert [entry.role for entry in thick.lesions] == ["non-target", "target"]
    set_role(thick, "a", "target")
    confirm_all(thick)
    assert "a cannot be a target" in assess_course(thick).notes[0]


def test_non_targets_are_judged_by_people():
    course = course_of(lesion("t", (20, 10), (10, 6), (10, 6)), lesion("s", (6, 4), (5, 4), (9, 7)))
    confirm_all(course)
    assert course.lesion("s").role == "non-target" and categories(course) == ["PR", "PR"]
    set_judgement(course, "v2", "non_targets_progress", True)
    assert categories(course) == ["PR", "PD"]
    set_judgement(course, "v2", "non_targets_progress", False)
    assert course.visits[2].extra == {"response": {}} and categories(course) == ["PR", "PR"]
    for visit in ("v1", "v2"):
        confirm(course, "t", visit, "disappeared")
    confirm(course, "s", "v2", "disappeared")
    assert categories(course) == ["PR", "CR"]


def test_new_lesions_are_progression_and_measured_apart():
    course = course_of(lesion("t", (20, 10), (20, 10), (20, 10)), lesion("n", None, (12, 8), (18, 9), role="new"))
    for visit in ("v0", "v1", "v2"):
        confirm(course, "t", visit)
    assert categories(course) == ["SD", "SD"]
    confirm(course, "n", "v1")
    # Nobody looked at it in the third visit: it has not gone.
    assert categories(course) == ["PD", "PD"]
    confirm(course, "n", "v2")
    found = assess_course(course).visits
    assert [entry.immune.category for entry in found] == ["baseline", "iUPD", "iCPD"]
    assert [entry.immune.new_sum_mm for entry in found] == [None, 12, 18] and found[2].recist.sum_mm == 20
    confirm(course, "n", "v2", "disappeared")
    assert categories(course) == ["PD", "SD"] and assess_course(course).visits[2].immune.category == "iSD"
    set_judgement(course, "v2", "new_lesion", True)
    assert categories(course) == ["PD", "PD"]
    with pytest.raises(InputError, match="v0 is the baseline"):
        set_judgement(course, "v0", "new_lesion", True)
    with pytest.raises(InputError, match="t is there at the baseline"):
        set_role(course, "t", "new")


def test_a_person_says_what_a_lesion_is(course):
    confirm_all(course)
    with pytest.raises(InputError, match="does not merge alone"):
        set_state(course, ["liver"], "v1", "merged")
    set_state(course, ["liver", "node"], "v1", "merged")
    assert course.lesion("node").readings["v1"].merged_with == ["liver"]
    assert assess_course(course).visits[1].counted_mm == {"liver": 26, "node": 0}
    set_state(course, ["node"], "v1", "shrunk")
    assert course.lesion("liver").readings["v1"].merged_with == []
    assert assess_course(course).visits[1].counted_mm == {"liver": 26, "node": 14}
    set_state(course, ["liver"], "v1", "gone")
    assert assess_course(course).visits[1].counted_mm["liver"] == 0
    set_state(course, ["liver"], "v1", "outside")
    assert categories(course)[0] == "NE" and course.lesion("liver").readings["v1"].longest_mm == 26
    with pytest.raises(InputError, match="no state"):
        set_state(course, ["liver"], "v1", "healed")


def test_a_new_lesion_is_added_where_it_was_seen(course):
    confirm_all(course)
    added = add_new_lesion(course, "fresh", "v1", (1, 2, 3))
    assert added.readings["v1"].position == [1.0, 2.0, 3.0] and "v0" not in added.readings
    assert added.readings["v2"].state == "not found" and "mark it" in added.readings["v2"].reason
    assert categories(course) == ["PR", "SD"]
    confirm(course, "fresh", "v1", longest_mm=12.0)
    assert categories(course) == ["PD", "PD"]
    confirm(course, "fresh", "v2", "disappeared")
    assert categories(course) == ["PD", "SD"]
    for name, visit, said in (("fresh", "v2", "already has"), (" ", "v2", "no name"), ("x", "v0", "is the baseline")):
        with pytest.raises(InputError, match=said):
            add_new_lesion(course, name, visit, None)


def test_volumes_stand_beside():
    course = course_of(lesion("a", (20, 10), (10, 6)), visits=2)
    course.lesion("a").readings["v0"].volume_ml, course.lesion("a").readings["v1"].volume_ml = 4.0, 1.0
    confirm_all(course)
    found = assess_course(course).visits
    assert [(entry.volume_ml, entry.volume_change_percent) for entry in found] == [(4.0, 0.0), (1.0, -75.0)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"longest_mm": 1250.0}, "give 125 or 12.5 mm if that was meant"),
        ({"longest_mm": -1.0}, "0 or more"),
        ({"short_axis_mm": float("nan")}, "no length"),
        ({"longest_mm": 10.0, "short_axis_mm": 12.0}, "more than its longest diameter"),
    ],
)
def test_no_diameter_that_cannot_be(course, values, said):
    before = course.lesion("liver").readings["v1"].confirmed
    with pytest.raises(InputError, match=said):
        confirm(course, "liver", "v1", **values)
    assert course.lesion("liver").readings["v1"].confirmed is before


def test_a_surprising_diameter_is_kept_and_said(course):
    assert "125 mm was kept, but 26.0 mm was suggested" in confirm(course, "liver", "v1", longest_mm=125.0)[0]
    assert confirm(course, "liver", "v1", longest_mm=24.5) == []
    assert course.lesion("liver").readings["v1"].confirmed.short_axis_mm == 20
    # The suggested short axis cannot belong to a shorter diameter.
    confirm(course, "liver", "v1", longest_mm=15.0)
    assert course.lesion("liver").readings["v1"].confirmed.short_axis_mm is None


def test_what_is_missing_is_named(course):
    course.lesion("liver").readings["v1"] = Reading("not found")
    with pytest.raises(InputError, match="no longest diameter to confirm"):
        confirm(course, "liver", "v1")
    with pytest.raises(InputError, match="was not read at v2"):
        course.lesion("liver").readings.pop("v2")
        confirm(course, "liver", "v2")
    with pytest.raises(InputError, match="cannot be confirmed"):
        confirm(course, "liver", "v1", "vanished")


def test_changes_and_plain_values(course):
    confirm(course, "liver", "v1", "disappeared")
    changes = changes_of(course, course.lesion("liver"))
    assert changes[0] == (None, None) and changes[1] == (-100.0, -100.0) and changes[2] == (-15.0, None)
    assert shown_mm(course.lesion("node"), course.lesion("node").readings["v0"]) == 20
    confirm_all(course)
    set_organ(course, "liver", " liver ")
    assert course.lesion("liver").organ == "liver"
    for visit in ("v1", "v2"):
        confirm(course, "liver", visit, "disappeared")
        confirm(course, "node", visit, "disappeared")
    confirm(course, "liver", "v2", "too small")
    values = [entry.to_dict() for entry in assess_course(course).visits]
    assert values[2]["recist"]["category"] == "PD" and values[2]["recist"]["change_since_nadir_percent"] is None
    json.dumps(values, allow_nan=False)

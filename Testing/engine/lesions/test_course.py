"""A course lives for years: continued, put in order, read again and saved without losing what a person confirmed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from samconvex.errors import InputError
from samconvex.lesions import course as model
from samconvex.lesions.course import (
    Confirmation,
    Course,
    CourseLesion,
    Fragment,
    Reading,
    Visit,
    course_from_dict,
    course_to_dict,
    read_course,
    write_course,
)
from samconvex.lesions.course_changes import (
    add_lesion,
    add_visit,
    iso_date,
    move_visit,
    new_course,
    rename_visit,
    replace_visit,
    set_date,
)


def confirmed(mm: float) -> Confirmation:
    return Confirmation("measured", mm, mm / 2, "Dr. A", "2026-01-03T10:00:00")


@pytest.fixture
def course() -> Course:
    visits = [Visit(name, date, sha256=name) for name, date in (("v0", "2026-01-01"), ("v1", "2026-03-01"))]
    lesions = [
        CourseLesion(name, readings={"v0": Reading("baseline", longest_mm=20.0, confirmed=confirmed(21.0))})
        for name in ("a", "b")
    ]
    made = new_course("Doe", "123", visits[0], lesions)
    add_visit(
        made, visits[1], {"a": Reading("grown", "grown", confirmed=confirmed(30.0)), "b": Reading("gone", "gone")}
    )
    return made


def test_a_course_is_saved_whole_with_paths_that_travel(course, tmp_path) -> None:
    folder = tmp_path / "station"
    folder.mkdir()
    course.visits[0].image = str(folder / "ct" / "v0.nii.gz")
    reading = course.lesion("a").readings["v1"]
    reading.contour = str(folder / "contours.nii.gz")
    reading.split_into = [Fragment([1.0, 2.0, 3.0], 9.0, 5.0, 0.4, [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])]
    reading.extra["node"] = {"id": 7}
    write_course(course, folder / "course.json")
    assert read_course(folder / "course.json") == course
    folder.rename(tmp_path / "other")
    moved = read_course(tmp_path / "other" / "course.json")
    assert moved.visits[0].image == str(tmp_path / "other" / "ct" / "v0.nii.gz")
    assert moved.lesion("a").readings["v1"].contour == str(tmp_path / "other" / "contours.nii.gz")


def test_fields_of_other_programs_are_kept_and_absent_ones_have_their_default(course, tmp_path) -> None:
    values = course_to_dict(course)
    values["lesions"][0]["color"] = "red"
    del values["visits"][0]["notes"]
    (tmp_path / "c.json").write_text(json.dumps(values), encoding="utf-8")
    read = read_course(tmp_path / "c.json")
    assert read.lesions[0].extra == {"color": "red"} and read.visits[0].notes == []
    write_course(read, tmp_path / "c.json")
    assert read_course(tmp_path / "c.json") == read


def test_every_field_is_in_the_description_of_the_format(repository: Path) -> None:
    text = (repository / "docs" / "course-format.md").read_text(encoding="utf-8")
    for kind in (Course, Visit, CourseLesion, Reading, Fragment, Confirmation):
        missing = [entry.name for entry in dataclasses.fields(kind) if f"`{entry.name}`" not in text]
        assert missing == [], kind
    for word in (*model.STATES, *model.ROLES, *model.KINDS):
        assert f"`{word}`" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="other"), "is no course of lesions"),
        (lambda v: v.update(version=2), "has version 2 of the course format"),
        (lambda v: v["lesions"][0].update(role="main"), "the role of a is 'main'; use one of target"),
        (lambda v: v["lesions"][0].pop("name"), r"lesions\[0\] has no name"),
        (lambda v: v["lesions"][0]["readings"]["v0"].update(state="fine"), "the state of a at v0 is 'fine'"),
        (
            lambda v: v["lesions"][0]["readings"]["v0"].update(score="high"),
            r"readings\[v0\].score is \"high\", not a num",
        ),
        (lambda v: v["lesions"][0]["readings"]["v0"].update(position=[1, 2]), "position of a at v0 has not 3 numbers"),
        (lambda v: v["lesions"][0]["readings"]["v0"].update(longest_line=[[1, 2, 3]]), "longest_line .* 2 x 3"),
        (lambda v: v["lesions"][0]["readings"].update(v9={"state": "gone"}), "no such visit"),
        (lambda v: v["lesions"][0]["readings"]["v0"]["confirmed"].update(longest_mm=1250), "give 0 to 1000 mm"),
        (lambda v: v["lesions"][1].update(name="a"), "two lesions are called 'a'"),
        (lambda v: v["visits"].append("x"), r"visits\[2\] is no object"),
        (lambda v: v["visits"][1].update(date="1.3.2026"), "the date of v1 is '1.3.2026'; write it as 2026-11-27"),
        (lambda v: v["visits"][1].update(date="20260301"), "the date of v1 is '20260301'"),
        (lambda v: v.update(visits=3), "visits is 3, not a list"),
    ],
)
def test_a_file_that_is_no_course_is_refused_in_one_sentence(course, change, message) -> None:
    values = course_to_dict(course)
    change(values)
    with pytest.raises(InputError, match=message):
        course_from_dict(values, "c.json")


def test_what_cannot_be_saved_leaves_the_file_as_it_was(course, tmp_path) -> None:
    write_course(course, tmp_path / "c.json")
    before = (tmp_path / "c.json").read_bytes()
    course.lesion("a").readings["v0"].score = float("nan")
    with pytest.raises(InputError, match="JSON has not"):
        write_course(course, tmp_path / "c.json")
    course.lesion("a").readings["v0"].score = None
    course.lesions[1].name = "a"
    with pytest.raises(InputError, match="two lesions"):
        write_course(course, tmp_path / "c.json")
    assert (tmp_path / "c.json").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "half.json").write_bytes(before[:80])
    with pytest.raises(InputError, match="could not be read as JSON"):
        read_course(tmp_path / "half.json")


def test_a_follow_up_is_added_in_order_of_time_and_nothing_else_changes(course) -> None:
    before = course_to_dict(course)
    add_visit(course, Visit("between", "2026-02-01"), {"a": Reading("unchanged")}, patient_id="123")
    assert [visit.name for visit in course.visits] == ["v0", "between", "v1"]
    after = course_to_dict(course)
    assert after["lesions"][0]["readings"].pop("between")["state"] == "unchanged"
    assert after["lesions"] == before["lesions"]
    add_visit(course, Visit("undated"))
    assert course.visits[-1].name == "undated"


def test_what_a_course_cannot_take_is_refused_and_nothing_changes(course) -> None:
    before = course_to_dict(course)
    refusals = [
        ((Visit("x"), {}), {"patient_id": "999", "source": "x.nii"}, "x.nii belongs to patient 999, the course to 123"),
        ((Visit("v1"), {}), {}, "already has a visit called v1"),
        ((Visit("x", sha256="v1"), {}), {}, "is the image of the visit v1"),
        ((Visit("x", "2025-12-31"), {}), {}, "before the baseline v0"),
        ((Visit("x"), {"z": Reading("gone")}), {}, "no lesion called z"),
    ]
    for arguments, more, message in refusals:
        with pytest.raises(InputError, match=message):
            add_visit(course, *arguments, **more)
    with pytest.raises(InputError, match="already has a lesion called a"):
        add_lesion(course, CourseLesion("a"))
    with pytest.raises(InputError, match="no visit called v9"):
        add_lesion(course, CourseLesion("c", readings={"v9": Reading("new")}))
    assert course_to_dict(course) == before
    assert "check that it is of patient 123" in add_visit(course, Visit("x"))[0]


def test_a_visit_read_again_replaces_that_one_alone(course) -> None:
    baseline = course_to_dict(course)["lesions"][0]["readings"]["v0"]
    again = {"a": Reading("unchanged", "unchanged", longest_mm=22.0), "b": Reading("shrunk", "shrunk")}
    notes = replace_visit(course, "v1", Visit("v1", "2026-03-02", sha256="v1"), again, patient_id="123")
    a, b = (course.lesion(name).readings["v1"] for name in "ab")
    # The proposal is new, what was confirmed on the same image stands.
    assert (a.proposed_state, a.state, a.longest_mm, a.confirmed) == ("unchanged", "grown", 22.0, confirmed(30.0))
    assert b.state == "shrunk" and notes == [] and course.visits[1].date == "2026-03-02"
    assert course_to_dict(course)["lesions"][0]["readings"]["v0"] == baseline
    notes = replace_visit(course, "v1", Visit("v1", sha256="other"), again, patient_id="123")
    assert course.lesion("a").readings["v1"].confirmed is None and "confirmed of a is open" in notes[0]
    assert course_to_dict(course)["lesions"][0]["readings"]["v0"] == baseline
    before = course_to_dict(course)
    with pytest.raises(InputError, match="999"):
        replace_visit(course, "v1", Visit("v1"), again, patient_id="999")
    assert course_to_dict(course) == before


def test_dates_order_and_names_can_be_corrected(course) -> None:
    add_visit(course, Visit("v2", "2026-05-01"), {"a": Reading("shrunk")})
    set_date(course, "v2", "20260201")
    assert [visit.name for visit in course.visits] == ["v0", "v2", "v1"]
    with pytest.raises(InputError, match="v1 is dated 2026-03-01|v2 is dated 2026-02-01"):
        move_visit(course, "v2", 2)
    set_date(course, "v2", None)
    move_visit(course, "v2", 2)
    assert [visit.name for visit in course.visits] == ["v0", "v1", "v2"]
    with pytest.raises(InputError, match="the baseline stays first"):
        move_visit(course, "v0", 1)
    with pytest.raises(InputError, match="before the baseline"):
        set_date(course, "v1", "2025-01-01")
    with pytest.raises(InputError, match="The date of v1 is '2026-13-01', which is no day"):
        set_date(course, "v1", "2026-13-01")
    rename_visit(course, "v2", "after chemotherapy")
    assert course.lesion("a").readings["after chemotherapy"].state == "shrunk"
    with pytest.raises(InputError, match="name of another visit"):
        rename_visit(course, "v1", "v0")
    assert iso_date(" 20261127", "x") == "2026-11-27"

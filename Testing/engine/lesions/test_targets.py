"""Target lesions by RECIST 1.1: measurable or not, proposed and checked, and the diameter that counts."""

from __future__ import annotations

import pytest
from samconvex.lesions.targets import (
    Candidate,
    counted_fragments,
    counted_of_merged,
    measurability,
    propose_targets,
    target_violations,
)


@pytest.mark.parametrize(
    ("lesion", "role", "said"),
    [
        (Candidate("a", 10.0, slice_mm=5), "target", "at least 10 mm"),
        (Candidate("a", 9.9, slice_mm=1), "non-target", "below 10 mm"),
        (Candidate("a", 15.9, slice_mm=8), "non-target", "twice the slice thickness of 8 mm"),
        (Candidate("a", 16.0, slice_mm=8), "target", "16 mm"),
        (Candidate("a", 10.0), "target", "10 mm"),
        (Candidate("a", None, 8.0), "non-target", "not measured"),
        (Candidate("n", 30.0, 15.0, node=True), "target", "short axis of 15.0 mm"),
        (Candidate("n", 30.0, 14.9, node=True), "non-target", "below 15 mm"),
        (Candidate("n", 30.0, 10.0, node=True), "non-target", "below 15 mm"),
        (Candidate("n", 30.0, 9.9, node=True), "normal", "normal"),
        (Candidate("n", 30.0, 17.0, node=True, slice_mm=10), "non-target", "20 mm"),
        (Candidate("n", 30.0, None, node=True), "non-target", "short axis was not measured"),
    ],
)
def test_what_is_measurable(lesion, role, said):
    found = measurability(lesion)
    assert found.role == role and said in found.reason


def roles(*lesions):
    return {entry.name: entry.role for entry in propose_targets(lesions)}


def test_every_organ_is_represented_before_any_gets_two():
    found = roles(
        *(Candidate(f"liver{size}", size, organ="liver") for size in (60, 50, 40)),
        Candidate("lung", 12, organ="lung"),
        Candidate("bone", 11, organ="bone"),
        Candidate("adrenal", 14, organ="adrenal"),
        Candidate("kidney", 13, organ="kidney"),
    )
    assert [name for name, role in found.items() if role == "target"] == [
        "liver60",
        "lung",
        "bone",
        "adrenal",
        "kidney",
    ]


def test_two_an_organ_nodes_are_one_organ_and_five_in_all():
    found = propose_targets(
        [
            Candidate("n1", 40, 25, True, "chest"),
            Candidate("n2", 40, 20, True, "neck"),
            Candidate("n3", 40, 16, True, "abdomen"),
            Candidate("lung1", 30, organ="Lung"),
            Candidate("lung2", 20, organ="lung "),
            Candidate("lung3", 15, organ="lung"),
        ]
    )
    said = {entry.name: (entry.role, entry.reason) for entry in found}
    assert [name for name, (role, _) in said.items() if role == "target"] == ["n1", "n2", "lung1", "lung2"]
    assert "lymph nodes" in said["n3"][1] and "at most two" in said["lung3"][1]
    five = roles(*(Candidate(str(size), size) for size in range(20, 27)))
    assert [name for name, role in five.items() if role == "target"] == ["22", "23", "24", "25", "26"]


def test_violations_are_said():
    assert target_violations([Candidate("a", 20, organ="liver"), Candidate("n", 20, 16, True)]) == []
    six = target_violations([Candidate(str(n), 20, organ=f"organ {n}") for n in range(6)])
    assert len(six) == 1 and "at most five" in six[0]
    three = target_violations([Candidate(str(n), 20, organ="liver") for n in range(3)])
    assert len(three) == 1 and "3 targets lie in liver" in three[0]
    small = target_violations([Candidate("a", 8, organ="liver")])
    assert small == ["a cannot be a target: its longest diameter of 8.0 mm is below 10 mm."]
    assert "cannot be checked" in target_violations([Candidate(str(n), 20) for n in range(3)])[0]


def test_fragments_are_added_and_a_merged_mass_counts_once():
    assert counted_fragments(False, [(12, 8), (7, 5)]) == 19
    assert counted_fragments(True, [(12, 8), (7, 5)]) == 13
    found = counted_of_merged({"a": None, "b": 40.0, "c": 12.0, "d": 9.0}, [("a", "b", "c")])
    assert found == {"a": 0.0, "b": 40.0, "c": 0.0, "d": 9.0}
    assert counted_of_merged({"a": None, "b": None}, [("a", "b")]) == {"a": None, "b": None}

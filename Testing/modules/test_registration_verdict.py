"""The verdict reaches the scene: names that warn, the table's first row, the sentence at the end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from modules import scene_builders as build

REASON = "What lies together in the two images is not the same anatomy."


def report(level: str, *reasons: str) -> dict:
    return {"version": "1", "preset": "ct-inter-patient", "verdict": {"level": level, "reasons": list(reasons)}}


@pytest.fixture
def lib(scene):
    """The parts of the module that need no window."""
    from SAMConvexLib import status, verdicts
    from SAMConvexRegistrationLib import outputs, quality, request

    return SimpleNamespace(outputs=outputs, quality=quality, request=request, status=status, verdicts=verdicts)


def test_a_result_that_must_not_be_used_says_so_in_the_names_of_its_nodes(lib, scene):
    array = build.smooth_array()
    fixed, moving = (build.volume(name, array, build.centered(build.oblique(), array.shape)) for name in ("F", "M"))
    request = lib.request.RegistrationRequest(fixed, moving)
    run = SimpleNamespace(labelNames={}, protectedNames={}, names={})
    table = lib.outputs.OutputNodes()
    names = []
    for level in ("do not use", "do not use", "check", "good"):
        if table.table is None:
            lib.outputs.create(request, table, ["table"])
        files = lib.outputs.EngineFiles(report(level, REASON), grid=())
        lib.outputs.fill(request, run, files, table)
        names.append(table.table.GetName())
    assert names == ["M to F quality (do not use)"] * 2 + ["M to F quality"] * 2
    assert [node.GetName() for node in (fixed, moving)] == ["F", "M"]


def test_the_first_row_of_the_table_is_the_verdict(lib):
    rows = lib.quality.tableTexts(report("check", REASON) | {"folding_percent": 0.0})
    assert rows[0] == ("Verdict", "", "check", "") and len(rows) == 2
    assert lib.quality.tableTexts({"folding_percent": 0.0})[0][0] == "Folded volume"


def test_the_sentence_at_the_end_tells_the_verdict_before_the_warnings(lib):
    from SAMConvexLib.job import JobState

    result = SimpleNamespace(report=report("do not use", REASON) | {"warnings": ["And a note."]})
    job = SimpleNamespace(state=JobState.DONE, result=result, seconds=24.0)
    assert lib.status.sentence(job) == f"Finished in 24 s. Verdict: do not use. {REASON} And a note."
    job.result.report = {"warnings": []}
    assert lib.status.sentence(job) == "Finished in 24 s."


def test_what_was_not_checked_is_never_green(lib):
    colors = {level: lib.verdicts.color(level) for level in ("good", "check", "do not use", "", "unheard of")}
    assert len(set(colors.values())) == 4 and colors[""] == colors["unheard of"] == lib.verdicts.NOT_CHECKED
    assert lib.verdicts.levelLabel("") == "not checked" and lib.verdicts.levelOf({}) == ""


def test_levels_are_those_of_the_engine(lib):
    from samconvex.report import verdict

    assert set(lib.verdicts.COLORS) == set(verdict.LEVELS)

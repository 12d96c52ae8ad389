"""Landmarks through the logic: points go out, answers come back as markups, and the user decides about each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from modules import scene_builders as build
from modules.quick_matcher import SHIFT_LPS

ENGINE = Path(__file__).with_name("quick_matcher.py")
SHIFT_RAS = np.array([-SHIFT_LPS[0], -SHIFT_LPS[1], SHIFT_LPS[2]])
POINTS = ((5.0, -10.0, 20.0), (0.0, -5.0, 25.0), (12.0, -20.0, 15.0))


@pytest.fixture
def module(load_scripted_module, repository):
    load_scripted_module(repository / "SAMLandmark" / "SAMLandmark.py", enter=False)
    import SAMLandmark

    return SAMLandmark


@pytest.fixture
def logic(module):
    logic = module.SAMLandmarkLogic()
    logic.behavior = "done"
    logic.engineCommand = lambda arguments: [
        sys.executable,
        str(ENGINE),
        logic.behavior,
        *[str(argument) for argument in arguments],
    ]
    return logic


@pytest.fixture
def volumes():
    """Template and query on oblique, differently turned grids."""
    array = build.smooth_array()
    return [
        build.volume(name, array, build.centered(build.oblique(degrees=degrees), array.shape))
        for name, degrees in (("Template", 20.0), ("Query", -15.0))
    ]


@pytest.fixture
def points():
    return build.markups("Points", POINTS, ["a", "gone", "c"])


@pytest.fixture
def results(module):
    from SAMLandmarkLib import results

    return results


def test_points_are_found_and_missing_ones_stay_undefined(logic, results, volumes, points):
    found = logic.matchLandmarks(volumes[0], points, volumes[1])
    assert found.GetNumberOfControlPoints() == 3
    assert [found.GetNthControlPointLabel(n) for n in range(3)] == ["a", "gone", "c"]
    for n in (0, 2):
        np.testing.assert_allclose(results.positionOf(found, n), np.add(POINTS[n], SHIFT_RAS), atol=1e-3)
    assert results.positionOf(found, 1) is None
    rows = logic.pointRows(found)
    assert [row.state for row in rows] == [results.NEW, results.NOT_FOUND, results.NEW]
    assert rows[0].score == 0.9 and rows[0].cycle == 1.5 and "0.90" in found.GetNthControlPointDescription(0)
    assert found.GetNthControlPointSelected(0) and not found.GetNthControlPointSelected(1)
    assert found.GetNodeReference("SAMLandmark.Volume") is volumes[1]


def test_several_volumes_give_a_node_each_and_given_nodes_are_filled(logic, volumes, points):
    third = build.volume("Third", build.smooth_array(), build.centered(build.oblique(), (40, 44, 48)))
    mine = build.markups("Mine", [(0, 0, 0)] * 5)
    found = logic.matchLandmarks(volumes[0], points, [volumes[1], third], outputMarkups=[mine, None])
    assert found[0] is mine and mine.GetName() == "Mine" and mine.GetNumberOfControlPoints() == 3
    assert found[1].GetName() == "Points in Third"


def test_parent_transforms_of_both_volumes_are_honored(logic, results, volumes, points):
    parent = build.linear_parent(volumes[1], build.translation(30, 0, 0))
    found = logic.matchLandmarks(volumes[0], points, volumes[1])
    # The engine works in the world, where the query was moved along with its transform.
    np.testing.assert_allclose(results.positionOf(found, 0), np.add(POINTS[0], SHIFT_RAS), atol=1e-3)
    parent.SetAndObserveTransformToParent(build_bend())
    with pytest.raises(ValueError, match="non-linear"):
        logic.matchLandmarks(volumes[0], points, volumes[1])


def build_bend():
    from SAMConvexLib import nodes

    lattice = build.lattice((0, 0, 0), 20.0, (9, 9, 9))
    return nodes.orientedGrid(build.smooth_displacement(lattice, (9, 9, 9)), lattice)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda t, q, p: (None, p, q), "Choose the volume"),
        (lambda t, q, p: (t, p, t), "template itself"),
        (lambda t, q, p: (t, build.markups("Empty", []), q), "no point with a position"),
        (lambda t, q, p: (t, p, []), "at least one target scan"),
    ],
)
def test_unusable_input_is_told_in_one_sentence(logic, volumes, points, change, says):
    template, markups, query = change(volumes[0], volumes[1], points)
    with pytest.raises(ValueError, match=says):
        logic.matchLandmarks(template, markups, query)


def test_an_output_that_is_an_input_is_refused(logic, volumes, points):
    with pytest.raises(ValueError, match="is an input"):
        logic.matchLandmarks(volumes[0], points, volumes[1], outputMarkups=points)
    assert points.GetNumberOfControlPoints() == 3


def test_inputs_are_not_touched(logic, volumes, points):
    before = [node.GetMTime() for node in (*volumes, points)]
    logic.matchLandmarks(volumes[0], points, volumes[1])
    assert [node.GetMTime() for node in (*volumes, points)] == before


def test_minimum_score_and_further_templates_reach_the_engine(module, logic, results, volumes, points):
    first = logic.matchLandmarks(volumes[0], points, volumes[1])
    third = build.volume("Third", build.smooth_array(), build.centered(build.oblique(), (40, 44, 48)))
    found = logic.matchLandmarks(volumes[0], points, third, minimumScore=0.7, moreTemplates=[(volumes[1], first)])
    assert logic.pointRows(found)[0].votes == 2
    from SAMLandmarkLib import matching

    request = matching.MatchRequest([matching.Template.of(points, volumes[0])], [third], 0.7)
    assert matching.prepare(request).arguments[-2:] == ["--min-score", 0.7]


@pytest.fixture
def found(logic, volumes, points):
    return logic.matchLandmarks(volumes[0], points, volumes[1])


def test_a_point_is_accepted_rejected_and_restored(results, found):
    results.decide(found, 0, results.ACCEPTED)
    assert results.rows(found)[0].state == results.ACCEPTED and results.rows(found)[0].confidence == 1.0
    results.decide(found, 2, results.REJECTED)
    assert results.positionOf(found, 2) is None and results.rows(found)[2].state == results.REJECTED
    results.decide(found, 2, "")
    np.testing.assert_allclose(results.positionOf(found, 2), np.add(POINTS[2], SHIFT_RAS), atol=1e-3)
    assert results.rows(found)[2].state == results.NEW


def test_accepting_a_point_that_was_not_found_takes_its_best_place(results, found):
    results.decide(found, 1, results.ACCEPTED)
    np.testing.assert_allclose(results.positionOf(found, 1), np.add(POINTS[1], SHIFT_RAS), atol=1e-3)
    assert results.rows(found)[1].state == results.ACCEPTED


def test_a_dragged_point_counts_as_corrected(results, found):
    found.SetNthControlPointPositionWorld(0, 1.0, 2.0, 3.0)
    results.update(found)
    assert results.rows(found)[0].state == results.CORRECTED
    assert "corrected" in found.GetNthControlPointDescription(0)


def test_a_corrected_result_becomes_a_template(logic, results, volumes, found):
    results.place(found, 1, (1.0, 2.0, 3.0))
    again = logic.matchLandmarks(None, found, volumes[0])
    assert again.GetNumberOfControlPoints() == 3
    np.testing.assert_allclose(results.positionOf(again, 0), np.add(POINTS[0], 2 * SHIFT_RAS), atol=1e-3)


def test_errors_are_given_where_the_truth_is_known(results, found):
    truth = build.markups("Truth", [np.add(POINTS[0], SHIFT_RAS) + [3.0, 0, 4.0]], ["a"])
    assert results.rows(found, truth)[0].error == pytest.approx(5.0, abs=1e-3)
    assert results.rows(found, truth)[2].error is None
    assert results.errorSummary(found, truth) == pytest.approx((5.0, 5.0, 1), abs=1e-3)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    results.fillTable(table, [found], {found.GetID(): truth})
    assert table.GetNumberOfRows() == 3 and table.GetCellText(0, 8) == "5.00"


def test_results_come_back_with_the_scene(results, found, scene, tmp_path):
    results.decide(found, 0, results.ACCEPTED)
    results.decide(found, 2, results.REJECTED)
    before = results.rows(found)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    loaded = results.resultNodes()
    assert len(loaded) == 1 and results.rows(loaded[0]) == before
    assert results.queryVolume(loaded[0]).GetName() == "Query"


def test_the_callback_hears_of_progress_and_cancels(module, logic, volumes, points):
    from SAMConvexLib.job import JobCancelled

    logic.behavior = "slow"
    heard = []

    def callback(stage, fraction, message):
        heard.append(fraction)
        return fraction < 0.4

    with pytest.raises(JobCancelled):
        logic.matchLandmarks(volumes[0], points, volumes[1], progressCallback=callback)
    assert heard[-1] >= 0.4
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")[1:]


def test_an_engine_error_names_the_node(module, logic, volumes, points):
    from SAMConvexLib.job import JobFailed

    logic.behavior = "input"
    with pytest.raises(JobFailed, match="'Template' is no CT"):
        logic.matchLandmarks(volumes[0], points, volumes[1])


# --- template library -------------------------------------------------------------------------------------------------


def write_template(folder, **changes):
    import hashlib

    folder.mkdir(parents=True)
    (folder / "embedding.npz").write_bytes(b"content")
    values = {
        "format": 1,
        "name": "Chest",
        "description": "by two readers",
        "points": [{"label": "a", "position": [-5.0, 10.0, 20.0]}],
        "image": None,
        "embedding_sha256": hashlib.sha256(b"content").hexdigest(),
        **changes,
    }
    (folder / "template.json").write_text(json.dumps(values))
    return folder


def test_a_template_without_image_is_loaded_and_used(module, logic, results, volumes, tmp_path):
    from SAMLandmarkLib import library

    folder = write_template(tmp_path / "chest")
    entries, problems = library.listTemplates(tmp_path)
    assert [entry.name for entry in entries] == ["Chest"] and not problems
    markups, volume = library.load(folder)
    assert volume is None
    np.testing.assert_allclose(results.positionOf(markups, 0), (5.0, -10.0, 20.0))
    found = logic.matchLandmarks(None, markups, volumes[1])
    np.testing.assert_allclose(results.positionOf(found, 0), np.add((5.0, -10.0, 20.0), SHIFT_RAS), atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 7},
        {"points": [{"label": "a", "position": [1, 2]}]},
        {"points": []},
        {"format": None},
        {"points": [{"label": "a", "position": [1, 2, "nan"]}]},
    ],
)
def test_a_damaged_template_is_listed_as_a_problem(module, tmp_path, changes):
    from SAMLandmarkLib import library

    write_template(tmp_path / "bad", **changes)
    entries, problems = library.listTemplates(tmp_path)
    assert not entries and str(tmp_path / "bad") in problems[0]


def test_a_changed_embedding_is_refused(module, tmp_path):
    from SAMLandmarkLib import library

    folder = write_template(tmp_path / "chest")
    (folder / "embedding.npz").write_bytes(b"changed")
    with pytest.raises(library.LibraryError, match="checksum"):
        library.load(folder)


def test_saving_a_template_starts_the_engine_with_a_new_folder(module, logic, volumes, points, tmp_path):
    from SAMLandmarkLib import library

    target = logic.startSaving(tmp_path, "Head & neck", volumes[0], points, "two readers").wait()
    assert target == tmp_path / "Head_neck" and target.is_dir()
    with pytest.raises(library.LibraryError, match="exists"):
        logic.startSaving(tmp_path, "Head & neck", volumes[0], points)
    with pytest.raises(library.LibraryError, match="name"):
        logic.startSaving(tmp_path, " ", volumes[0], points)


def test_one_point_outside_the_template_does_not_fail_the_rest(logic, results, volumes, points):
    points.SetNthControlPointPositionWorld(0, 900.0, 0.0, 0.0)
    found = logic.matchLandmarks(volumes[0], points, volumes[1])
    rows = logic.pointRows(found)
    assert [row.label for row in rows] == ["a", "gone", "c"]
    assert [row.state for row in rows] == [results.OUTSIDE_TEMPLATE, results.NOT_FOUND, results.NEW]
    np.testing.assert_allclose(results.positionOf(found, 2), np.add(POINTS[2], SHIFT_RAS), atol=1e-3)
    assert "outside the template" in found.GetNthControlPointDescription(0)
    for index in (1, 2):
        points.SetNthControlPointPositionWorld(index, 900.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="No point of 'Points' lies inside 'Template'"):
        logic.matchLandmarks(volumes[0], points, volumes[1])


def test_a_point_left_out_takes_the_answer_of_another_template(module):
    from SAMLandmarkLib import matching
    from SAMLandmarkLib.results import OUTSIDE_TEMPLATE, TemplatePoint

    near, far = (TemplatePoint(label, "", place) for label, place in (("a", (0.0, 0, 0)), ("b", (900.0, 0, 0))))
    run = matching.PreparedMatch(points=[far, near], leftOut=[far], queryPaths=["q"])
    a, b, c = ({"label": label, "found": True} for label in "abc")
    run.target.write_text(json.dumps({"q": [a, b, c]}))
    assert run.read() == [[b, a, c]]
    run.target.write_text(json.dumps({"q": [a, c]}))
    (answers,) = run.read()
    assert answers[1:] == [a, c] and answers[0]["state"] == OUTSIDE_TEMPLATE and not answers[0]["found"]


@pytest.mark.parametrize("beyond, inside", [(-0.4, True), (-0.6, False)])
def test_inside_is_what_the_engine_calls_inside(module, volumes, beyond, inside):
    from samconvex.space.volume import Volume
    from SAMConvexLib import nodes
    from SAMLandmarkLib import matching

    build.linear_parent(volumes[0], build.translation(30, 0, 0))
    matrix = nodes.parentToWorld(volumes[0]) @ nodes.ijkToRas(volumes[0])
    place = (matrix @ [beyond, 10.0, 10.0, 1.0])[:3]
    assert matching.isInside(place, volumes[0]) is inside
    frame = nodes.imageFromVolume(volumes[0])
    lps = nodes.lpsInFrame([place], frame.worldFromFrame)
    assert bool(Volume.from_sitk(frame.image).grid.contains(np.asarray(lps))[0]) is inside


def test_a_template_is_not_saved_with_a_point_beside_its_image(module, volumes, points, tmp_path):
    from SAMLandmarkLib import library

    points.SetNthControlPointPositionWorld(0, 900.0, 0.0, 0.0)
    with pytest.raises(library.LibraryError, match="Outside 'Template': 'a'"):
        library.prepareSaving(tmp_path, "Body", volumes[0], points)
    assert not list(tmp_path.iterdir())


def test_a_saved_template_without_its_image_knows_its_extent_too(logic, results, volumes, points, tmp_path):
    from SAMLandmarkLib import matching

    grid = {"size": [40] * 3, "spacing": [2.0] * 3, "origin": [-40.0, -20.0, -20.0]}
    content = {"grids": {"volume": {**grid, "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1]}}}
    (tmp_path / "template.json").write_text(json.dumps(content))
    points.SetAttribute(matching.TEMPLATE_FOLDER_ATTRIBUTE, str(tmp_path))
    points.SetNthControlPointPositionWorld(0, 0.0, 30.0, 0.0)
    request = matching.MatchRequest([matching.Template.of(points)], [volumes[1]])
    assert [point.label for point in request.leftOut()] == ["a"]
    assert f"Outside '{tmp_path.name}' and left out: 'a'" in matching.noteOn(request)
    found = logic.matchLandmarks(None, points, volumes[1])
    assert [row.state for row in logic.pointRows(found)][0] == results.OUTSIDE_TEMPLATE
    # One of an earlier version says nothing about its extent: the engine judges.
    (tmp_path / "template.json").write_text("{}")
    assert request.leftOut() == []

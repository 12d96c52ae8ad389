"""Lesions over time: every kind of lesion goes out, findings come back, response counts only what was confirmed."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from modules import scene_builders as build
from modules.quick_matcher import SHIFT_LPS

ENGINE = Path(__file__).with_name("quick_matcher.py")
SHIFT_RAS = np.array([-SHIFT_LPS[0], -SHIFT_LPS[1], SHIFT_LPS[2]])
CENTER = np.array([5.0, -10.0, 20.0])


@pytest.fixture
def logic(load_scripted_module, repository):
    load_scripted_module(repository / "SAMLandmark" / "SAMLandmark.py", enter=False)
    import SAMLandmark

    logic = SAMLandmark.SAMLandmarkLogic()
    logic.engineCommand = lambda arguments: [sys.executable, str(ENGINE), "done", *[str(a) for a in arguments]]
    return logic


@pytest.fixture
def lib(logic):
    """The parts of the module that know lesions."""
    from types import SimpleNamespace

    from SAMLandmarkLib import course, courseplot, patients, tracking

    return SimpleNamespace(course=course, courseplot=courseplot, patients=patients, tracking=tracking)


def volume(name, degrees=0.0):
    array = build.smooth_array()
    return build.volume(name, array, build.centered(build.oblique(degrees=degrees), array.shape))


@pytest.fixture
def images(logic):
    return volume("Baseline", 20.0), volume("Follow-up 2", -10.0), volume("Follow-up 1", 5.0)


def segmentation(baseline):
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 22:26] = True
    return build.segmentation("Lesion segments", baseline, [("s", "Liver lesion", (1, 0, 0), mask)])


def line():
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Diameter")
    for shift in (-6.0, 6.0):
        node.AddControlPointWorld(vtk.vtkVector3d(*(CENTER + [shift, 0, 0])))
    return node


def roi():
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    node.SetCenterWorld(*CENTER)
    node.SetSizeWorld(10.0, 12.0, 14.0)
    return node


def test_points_boxes_lines_and_segments_are_found(logic, lib, images):
    points = build.markups("Lesions", [CENTER, CENTER + 4], ["Lung lesion", "gone"])
    table = logic.trackLesions(images[0], [points, roi(), line(), segmentation(images[0])], images[1])
    course = lib.course.courseOf(table)
    names = [lesion["name"] for lesion in course["lesions"]]
    assert names == ["Lung lesion", "gone", "Box", "Diameter", "Liver lesion"]
    for lesion in course["lesions"]:
        finding = lesion["findings"][1]
        if lesion["name"] == "gone":
            assert finding["state"] == lib.course.NOT_IN_VIEW and finding["place"] is None
            continue
        start = np.array(lesion["findings"][0]["place"])
        assert np.linalg.norm(start - CENTER) < 8.0
        np.testing.assert_allclose(np.array(finding["place"]) - start, SHIFT_RAS, atol=0.01)
    assert table.GetNumberOfRows() == 10
    markups = slicer.util.getNode("Lesions in Follow-up 2")
    assert markups.GetNumberOfControlPoints() == 5
    assert markups.GetNthControlPointPositionStatus(1) != slicer.vtkMRMLMarkupsNode.PositionDefined


def test_separate_parts_of_a_segment_are_said_in_the_table(logic, lib, images, tmp_path):
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 14:18] = mask[18:22, 20:24, 28:32] = True
    node = build.segmentation("Class map", images[0], [("s", "Nodules", (1, 0, 0), mask)])
    table = logic.trackLesions(images[0], [node, line()], images[1])
    lib.course.exportCsv(table, tmp_path / "course.csv")
    with open(tmp_path / "course.csv", encoding="utf-8") as stream:
        notes = [row["Note"] for row in csv.DictReader(stream)]
    assert notes == ["Nodules has separate parts.", "", "", ""]
    column = [table.GetTable().GetColumnName(n) for n in range(table.GetNumberOfColumns())].index("Note")
    assert table.GetCellText(0, column) == notes[0]


def test_a_segments_contours_lie_where_the_lesion_was_found(logic, lib, images):
    table = logic.trackLesions(images[0], segmentation(images[0]), images[1])
    place = lib.course.courseOf(table)["lesions"][0]["findings"][1]["place"]
    contours = slicer.util.getNode("Lesion contours in Follow-up 2")
    segments = contours.GetSegmentation()
    assert segments.GetNumberOfSegments() == 2
    center = contours.GetSegmentCenterRAS(segments.GetNthSegmentID(1))
    assert np.linalg.norm(np.array(center) - place) < 3.0


def test_follow_ups_are_ordered_by_date_where_all_are_known(logic, lib, images):
    baseline, second, first = images
    assert [e.name for e in lib.tracking.followUpsOf([second, first])] == ["Follow-up 2", "Follow-up 1"]
    second.SetAttribute(lib.patients.DATE_ATTRIBUTE, "2024-06-01")
    first.SetAttribute(lib.patients.DATE_ATTRIBUTE, "20240301")
    assert [e.name for e in lib.tracking.followUpsOf([second, first])] == ["Follow-up 1", "Follow-up 2"]


def test_a_sequences_volumes_are_follow_ups(logic, lib, images):
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Series")
    for value in ("0", "1"):
        sequence.SetDataNodeAtValue(images[1], value)
    table = logic.trackLesions(images[0], build.markups("L", [CENTER], ["a"]), sequence)
    assert len(lib.course.courseOf(table)["timepoints"]) == 3


def in_patient(node, name):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), name)
    if not patient:
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), name)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), patient)
    return hierarchy, patient


def test_patients_are_kept_apart(logic, lib, images):
    from SAMConvexLib.nodes import NodeError

    points = build.markups("L", [CENTER], ["a"])
    hierarchy, patient = in_patient(images[0], "Doe")
    in_patient(images[1], "Doe")
    table = logic.trackLesions(images[0], points, images[1])
    assert lib.course.courseOf(table)["patient"] == "Doe" and "Doe" in table.GetName()
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(table)) == patient
    in_patient(images[2], "Miller")
    with pytest.raises(NodeError, match="Miller.*Doe"):
        logic.trackLesions(images[0], points, images[2])


@pytest.fixture
def table(logic, images):
    """Two segments that shrink from 20 to 12 to 4 mm."""
    nodes = segmentation(images[0])
    mask = np.zeros((40, 44, 48), bool)
    mask[24:27, 20:24, 22:26] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), nodes, nodes.GetSegmentation().AddEmptySegment("t", "Node lesion"), images[0]
    )
    return logic.trackLesions(images[0], nodes, [images[1], images[2]])


def test_only_confirmed_diameters_count_for_the_response(lib, table):
    assert lib.course.response(lib.course.courseOf(table)) == []
    lib.course.confirm(table, "Liver lesion", 0)
    entries = lib.course.response(lib.course.courseOf(table))
    assert [e.category for e in entries] == ["baseline", "NE", "NE"] and entries[0].sum_mm == 20.0
    lib.course.confirm(table, "Liver lesion", 1)
    lib.course.confirm(table, "Liver lesion", 2, 18.0)
    entries = lib.course.response(lib.course.courseOf(table))
    assert [e.category for e in entries] == ["baseline", "PR", "PD"]
    lib.course.withdraw(table, "Liver lesion", 2)
    assert lib.course.response(lib.course.courseOf(table))[2].category == "NE"
    lib.course.setNewLesion(table, 1, True)
    assert lib.course.response(lib.course.courseOf(table))[1].category == "PD"


def test_a_lymph_node_counts_by_its_short_axis(lib, table):
    lib.course.confirm(table, "Node lesion", 0)
    lib.course.setLymphNode(table, "Node lesion", True)
    assert lib.course.response(lib.course.courseOf(table)) == []
    lib.course.confirm(table, "Node lesion", 0)
    assert lib.course.response(lib.course.courseOf(table))[0].sum_mm == 12.0


def test_changes_are_told_since_baseline_and_smallest(lib, table):
    lesion = lib.course.courseOf(table)["lesions"][0]
    assert lib.course.changesOf(lesion)[0] == (None, None)
    assert lib.course.changesOf(lesion)[2] == pytest.approx((-80.0, -100 * 8 / 12))


def test_the_course_is_exported(lib, table, tmp_path):
    lib.course.confirm(table, "Liver lesion", 0)
    lib.course.exportCsv(table, tmp_path / "course.csv")
    with open(tmp_path / "course.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 and rows[0]["Confirmed (mm)"] == "20.00"
    lib.course.exportJson(table, tmp_path / "course.json")
    values = json.loads((tmp_path / "course.json").read_text(encoding="utf-8"))
    assert "not a diagnosis" in values["notice"] and values["response"][0]["category"] == "baseline"


def test_the_plot_shows_every_lesion_and_the_sum(lib, table):
    chart = lib.courseplot.plot(table)
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [node.GetYColumnName() for node in series] == ["Liver lesion", "Node lesion", "Sum"]
    numbers = series[2].GetTableNode().GetTable()
    assert [numbers.GetValueByName(n, "Sum").ToDouble() for n in range(3)] == [40.0, 24.0, 8.0]
    assert lib.courseplot.plot(table) is chart and chart.GetNumberOfPlotSeriesNodes() == 3


def test_a_course_comes_back_with_the_scene(lib, table, scene, tmp_path):
    lib.course.confirm(table, "Liver lesion", 0)
    before, name = lib.course.courseOf(table), table.GetName()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert lib.course.courseOf(slicer.util.getNode(name)) == before

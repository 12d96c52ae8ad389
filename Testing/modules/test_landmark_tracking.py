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

    from SAMLandmarkLib import course, courseplot, measurelines, patients, tracking

    def confirm(table, lesion, visit, kind="measured", **sizes):
        return course.change(table, lambda c: course.decisions().confirm(c, lesion, visit, kind, **sizes))

    def assessed(table):
        return course.rules().assess_course(course.courseOf(table)).visits

    return SimpleNamespace(
        course=course,
        courseplot=courseplot,
        measurelines=measurelines,
        patients=patients,
        tracking=tracking,
        confirm=confirm,
        assessed=assessed,
    )


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
    assert [lesion.name for lesion in course.lesions] == ["Lung lesion", "gone", "Box", "Diameter", "Liver lesion"]
    assert [visit.name for visit in course.visits] == ["Baseline", "Follow-up 2"]
    for lesion in course.lesions:
        reading = lesion.readings["Follow-up 2"]
        if lesion.name == "gone":
            assert reading.state == "outside" and reading.position is None
            continue
        start = lib.course.placeOf(table, course.visits[0], lesion.readings["Baseline"].position)
        assert np.linalg.norm(start - CENTER) < 8.0
        place = lib.course.placeOf(table, course.visits[1], reading.position)
        np.testing.assert_allclose(place - start, SHIFT_RAS, atol=0.01)
    assert table.GetNumberOfRows() == 10
    markups = slicer.util.getNode("Lesions in Follow-up 2")
    assert markups.GetNumberOfControlPoints() == 5
    assert markups.GetNthControlPointPositionStatus(1) != slicer.vtkMRMLMarkupsNode.PositionDefined


def test_separate_parts_of_a_segment_are_said_in_the_table(logic, lib, images, tmp_path):
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 14:18] = mask[18:22, 20:24, 28:32] = True
    node = build.segmentation("Class map", images[0], [("s", "Nodules", (1, 0, 0), mask)])
    table = logic.trackLesions(images[0], [node, line()], images[1])
    lib.course.exportCsv(table, tmp_path / "course.csv", ",")
    with open(tmp_path / "course.csv", encoding="utf-8-sig") as stream:
        notes = [row["reason"] for row in csv.DictReader(stream)]
    assert notes == ["Nodules has separate parts.", "", "", ""]
    column = [table.GetTable().GetColumnName(n) for n in range(table.GetNumberOfColumns())].index("reason")
    assert table.GetCellText(0, column) == notes[0]


def test_a_segments_contours_lie_where_the_lesion_was_found(logic, lib, images):
    table = logic.trackLesions(images[0], segmentation(images[0]), images[1])
    course = lib.course.courseOf(table)
    place = lib.course.placeOf(table, course.visits[1], course.lesions[0].readings["Follow-up 2"].position)
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
    assert len(lib.course.courseOf(table).visits) == 3


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
    assert lib.course.courseOf(table).patient == "Doe" and "Doe" in table.GetName()
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
    assert lib.assessed(table) == ()
    lib.confirm(table, "Liver lesion", "Baseline")
    entries = lib.assessed(table)
    assert [e.recist.category for e in entries] == ["baseline", "NE", "NE"] and entries[0].recist.sum_mm == 20.0
    lib.confirm(table, "Liver lesion", "Follow-up 2")
    lib.confirm(table, "Liver lesion", "Follow-up 1", longest_mm=18.0)
    assert [e.recist.category for e in lib.assessed(table)] == ["baseline", "PR", "PD"]
    lib.course.change(table, lambda c: lib.course.decisions().withdraw(c, "Liver lesion", "Follow-up 1"))
    assert lib.assessed(table)[2].recist.category == "NE"
    lib.course.change(table, lambda c: lib.course.decisions().set_judgement(c, "Follow-up 2", "new_lesion", True))
    assert lib.assessed(table)[1].recist.category == "PD"


def test_a_lymph_node_counts_by_its_short_axis_and_nothing_is_erased(lib, table):
    lib.confirm(table, "Node lesion", "Baseline", longest_mm=30.0, short_axis_mm=16.0)
    before = lib.course.courseOf(table).lesion("Node lesion").readings
    lib.course.change(table, lambda c: lib.course.decisions().set_node(c, "Node lesion", True))
    assert lib.assessed(table)[0].recist.sum_mm == 16.0
    lib.course.change(table, lambda c: lib.course.decisions().set_node(c, "Node lesion", False))
    assert lib.assessed(table)[0].recist.sum_mm == 30.0
    assert lib.course.courseOf(table).lesion("Node lesion").readings == before


def test_a_single_number_typed_for_a_lymph_node_is_its_short_axis(lib, table):
    from SAMLandmarkLib import measuring

    lib.course.change(table, lambda c: lib.course.decisions().set_node(c, "Node lesion", True))
    for text, sizes in (("16", (20.0, 16.0)), ("25 x 17,5", (25.0, 17.5))):
        lib.course.change(table, lambda c, text=text: measuring.confirmTyped(c, "Node lesion", "Baseline", text))
        confirmed = lib.course.courseOf(table).lesion("Node lesion").readings["Baseline"].confirmed
        assert (confirmed.longest_mm, confirmed.short_axis_mm) == sizes


def test_what_the_engine_refuses_changes_nothing(lib, table):
    from SAMConvexLib.nodes import NodeError

    before = table.GetAttribute(lib.course.COURSE_ATTRIBUTE)
    with pytest.raises(NodeError, match=r"give 125 or 12.5 mm if that was meant"):
        lib.confirm(table, "Liver lesion", "Baseline", longest_mm=1250.0)
    assert table.GetAttribute(lib.course.COURSE_ATTRIBUTE) == before


def test_changes_are_told_since_baseline_and_smallest(lib, table):
    course = lib.course.courseOf(table)
    changes = lib.course.rules().changes_of(course, course.lesions[0])
    assert changes[0] == (None, None) and changes[2] == pytest.approx((-80.0, -100 * 8 / 12))


def test_the_course_is_exported_and_another_station_reads_it(lib, table, tmp_path, scene):
    from SAMConvexLib.nodes import NodeError

    lib.confirm(table, "Liver lesion", "Baseline")
    for delimiter in ",;":
        lib.course.exportCsv(table, tmp_path / "course.csv", delimiter)
        with open(tmp_path / "course.csv", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter=delimiter))
        assert len(rows) == 6 and rows[0]["confirmed_longest_mm"] == "20" and rows[0]["sum_mm"] == "20"
    lib.course.exportJson(table, tmp_path / "course.json")
    before = lib.course.courseOf(table)
    assert json.loads((tmp_path / "course.json").read_text(encoding="utf-8"))["format"] == "samconvex course"
    scene.Clear(0)
    other = lib.course.importJson(tmp_path / "course.json")
    assert lib.course.courseOf(other) == before and other.GetNumberOfRows() == 6
    (tmp_path / "course.json").write_text("{}")
    with pytest.raises(NodeError, match="is no course of lesions"):
        lib.course.importJson(tmp_path / "course.json")


def test_images_of_an_imported_course_are_found_by_their_files(logic, lib, images, scene, tmp_path):
    for number, node in enumerate(images[:2]):
        assert slicer.util.saveNode(node, str(tmp_path / f"{number}.nrrd"))
    table = logic.trackLesions(images[0], build.markups("L", [CENTER], ["a"]), images[1])
    lib.course.exportJson(table, tmp_path / "course.json")
    scene.Clear(0)
    first = slicer.util.loadVolume(str(tmp_path / "0.nrrd"))
    other = lib.course.importJson(tmp_path / "course.json")
    course = lib.course.courseOf(other)
    assert [lib.course.nodeOf(other, visit, lib.course.VOLUME) for visit in course.visits] == [first, None]
    # Also when they are loaded later; a name is not looked at.
    second = slicer.util.loadVolume(str(tmp_path / "1.nrrd"), {"name": "something else"})
    lib.course.linkImages(other, course)
    assert [lib.course.nodeOf(other, visit, lib.course.VOLUME) for visit in course.visits] == [first, second]


def readings_of(lib, table, visit):
    return {lesion.name: lesion.readings[visit] for lesion in lib.course.courseOf(table).lesions}


def test_a_course_goes_on_with_further_follow_ups(logic, lib, images):
    """Added without losing a confirmation, in the order of dates, each image once."""
    baseline, second, first = images
    for node, day in zip((baseline, first, second), ("20260101", "20260301", "20260601"), strict=True):
        node.SetAttribute(lib.patients.DATE_ATTRIBUTE, day)
    nodes = segmentation(baseline)
    table = logic.trackLesions(baseline, nodes, second)
    for visit in ("Baseline", "Follow-up 2"):
        lib.confirm(table, "Liver lesion", visit)
    before = readings_of(lib, table, "Follow-up 2")
    assert logic.trackLesions(baseline, nodes, first, outputTable=table) is table
    course = lib.course.courseOf(table)
    assert [visit.name for visit in course.visits] == ["Baseline", "Follow-up 1", "Follow-up 2"]
    assert [visit.date for visit in course.visits] == ["2026-01-01", "2026-03-01", "2026-06-01"]
    assert readings_of(lib, table, "Follow-up 2") == before
    assert [lib.course.nodeOf(table, visit, lib.course.VOLUME) for visit in course.visits] == [baseline, first, second]
    # Lesions that no node marks any more are tracked by what the course knows.
    logic.trackLesions(baseline, [], second, outputTable=table)
    assert len(lib.course.courseOf(table).visits) == 3


def test_reading_a_time_point_again_replaces_only_that(logic, lib, images):
    nodes = segmentation(images[0])
    table = logic.trackLesions(images[0], nodes, [images[1], images[2]])
    lib.confirm(table, "Liver lesion", "Follow-up 1", longest_mm=11.0)
    lib.confirm(table, "Liver lesion", "Follow-up 2", longest_mm=9.0)
    kept, again = readings_of(lib, table, "Follow-up 1"), readings_of(lib, table, "Follow-up 2")
    contours = slicer.util.getNodes("Lesion contours in*")
    logic.trackLesions(images[0], nodes, images[1], outputTable=table)
    assert readings_of(lib, table, "Follow-up 1") == kept
    confirmed = readings_of(lib, table, "Follow-up 2")["Liver lesion"].confirmed
    assert confirmed == again["Liver lesion"].confirmed
    # The old points and contours have gone with what they showed.
    assert len(slicer.util.getNodes("Lesion contours in*")) == len(contours) == 2
    assert len(slicer.util.getNodes("Lesions in*")) == 2


def test_another_baseline_or_patient_does_not_enter_a_course(logic, lib, images):
    from SAMConvexLib.job import JobFailed
    from SAMConvexLib.nodes import NodeError

    points = build.markups("L", [CENTER], ["a"])
    hierarchy, patient = in_patient(images[0], "Doe")
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMPatientIDAttributeName()
    hierarchy.SetItemAttribute(patient, name, "17")
    table = logic.trackLesions(images[0], points, images[1])
    before = table.GetAttribute(lib.course.COURSE_ATTRIBUTE)
    assert lib.course.courseOf(table).patient_id == "17"
    with pytest.raises(NodeError, match="another baseline"):
        logic.trackLesions(images[2], points, images[1], outputTable=table)
    _hierarchy, other = in_patient(images[2], "Doe ")
    hierarchy.SetItemAttribute(other, name, "18")
    with pytest.raises((NodeError, JobFailed), match="18|Doe"):
        logic.trackLesions(images[0], points, images[2], outputTable=table)
    assert table.GetAttribute(lib.course.COURSE_ATTRIBUTE) == before


def test_a_line_has_the_length_of_the_number(lib):
    line = [[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]
    longer = lib.measurelines.scaled(line, 10.0)
    assert lib.measurelines.length(longer) == pytest.approx(10.0)
    np.testing.assert_allclose(np.mean(longer, 0), np.mean(line, 0), atol=1e-3)
    assert lib.measurelines.scaled(line, 0.0) == line


def test_the_plot_shows_every_lesion_and_the_sum(lib, table):
    chart = lib.courseplot.plot(table)
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert [node.GetYColumnName() for node in series] == ["Liver lesion", "Node lesion", "Sum"]
    numbers = series[2].GetTableNode().GetTable()
    assert [numbers.GetValueByName(n, "Sum").ToDouble() for n in range(3)] == [40.0, 24.0, 8.0]
    assert lib.courseplot.plot(table) is chart and chart.GetNumberOfPlotSeriesNodes() == 3
    # The spider: each lesion's change since the baseline, on the same chart.
    assert lib.courseplot.plot(table, lib.courseplot.CHANGE) is chart and chart.GetNumberOfPlotSeriesNodes() == 2
    numbers = chart.GetNthPlotSeriesNode(0).GetTableNode().GetTable()
    assert [numbers.GetValueByName(n, "Liver lesion").ToDouble() for n in range(3)] == [0.0, -40.0, -80.0]


def test_a_course_comes_back_with_the_scene(lib, table, scene, tmp_path):
    lib.confirm(table, "Liver lesion", "Baseline")
    before, name = lib.course.courseOf(table), table.GetName()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    table = slicer.util.getNode(name)
    assert lib.course.courseOf(table) == before
    images = [lib.course.nodeOf(table, visit, lib.course.VOLUME) for visit in before.visits]
    assert [node.GetName() for node in images] == ["Baseline", "Follow-up 2", "Follow-up 1"]
    assert lib.course.nodeOf(table, before.visits[1], lib.course.CONTOURS).GetName() == "Lesion contours in Follow-up 2"

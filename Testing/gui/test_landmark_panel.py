"""The landmark module as a user clicks it: find, check, correct, follow the mouse, confirm lesions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from harness import wait_until

ENGINE = Path(__file__).parents[1] / "modules" / "quick_matcher.py"
POINTS = ((5.0, -10.0, 20.0), (0.0, -5.0, 25.0), (12.0, -20.0, 15.0))


@pytest.fixture
def widget(load_scripted_module, repository):
    widget = load_scripted_module(repository / "SAMLandmark" / "SAMLandmark.py")
    widget.behavior = "done"
    widget.logic.engineCommand = lambda arguments: [
        sys.executable,
        str(ENGINE),
        widget.behavior,
        *[str(argument) for argument in arguments],
    ]

    def live(first, second):
        from SAMLandmarkLib.live import LiveMatching
        from SAMLandmarkLib.worker import LiveWorker

        return LiveMatching(first, second, worker=LiveWorker([sys.executable, str(ENGINE), "live"]))

    widget.logic.liveMatching = live
    return widget


@pytest.fixture
def volumes(build, widget):
    array = build.smooth_array()
    return [
        build.volume(name, array, build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape, (5, -10, 20)))
        for name in ("Template", "Query", "Third")
    ]


@pytest.fixture
def chosen(build, widget, volumes):
    """Template and query chosen in the panel."""
    points = build.markups("Points", POINTS, ["a", "gone", "c"])
    widget.ui.templateVolumeSelector.setCurrentNode(volumes[0])
    widget.ui.templateMarkupsSelector.setCurrentNode(points)
    widget.landmarkPanel.queries.setChecked(volumes[1])
    return points


@pytest.fixture
def found(widget, chosen):
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 120)
    assert widget.ui.statusLabel.text.startswith("Finished"), widget.ui.statusLabel.text
    return widget.landmarkPanel.result()


def select(table, row):
    table.clearSelection()
    table.selectRow(row)


def cell(table, row, title):
    """The item of a row in the column of that title."""
    titles = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    return table.item(row, titles.index(title))


def column(table, title):
    """The texts of the column of that title."""
    return [cell(table, row, title).text() for row in range(table.rowCount)]


def test_apply_says_what_is_missing(widget, build, volumes):
    assert widget.ui.applyButton.toolTip == "Choose the template points." and not widget.ui.applyButton.enabled
    widget.ui.templateMarkupsSelector.setCurrentNode(build.markups("Points", POINTS))
    assert "Choose the volume" in widget.ui.applyButton.toolTip
    widget.ui.templateVolumeSelector.setCurrentNode(volumes[0])
    assert "target scan" in widget.ui.applyButton.toolTip
    widget.landmarkPanel.queries.setChecked(volumes[1])
    assert widget.ui.applyButton.enabled
    assert widget.parameters().queryVolumes[0] is volumes[1]


def test_points_are_found_colored_checked_and_corrected(widget, found):
    ui, table = widget.ui, widget.ui.pointTable
    assert [table.item(row, 1).text() for row in range(3)] == ["to be checked", "not found", "to be checked"]
    hues = [table.item(row, 0).background().color().hue() for row in range(3)]
    assert hues[0] > 90 and hues[1] < 40
    select(table, 0)
    ui.acceptButton.click()
    assert table.item(0, 1).text() == "accepted"
    select(table, 2)
    ui.rejectButton.click()
    assert table.item(2, 1).text() == "rejected"
    ui.restoreButton.click()
    assert table.item(2, 1).text() == "to be checked"
    # Dragging the point in a view.
    found.SetNthControlPointPositionWorld(2, 1.0, 2.0, 3.0)
    wait_until(lambda: table.item(2, 1).text() == "corrected")
    select(table, 2)
    ui.rematchButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 120)
    assert table.item(2, 1).text() == "to be checked" and table.item(0, 1).text() == "accepted"


def test_a_missing_point_is_put_at_the_crosshair(widget, found):
    import slicer

    slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0].SetCrosshairRAS(7.0, 8.0, 9.0)
    select(widget.ui.pointTable, 1)
    widget.ui.placeButton.click()
    assert widget.ui.pointTable.item(1, 1).text() == "corrected"


def test_a_corrected_query_votes_for_the_next_one(widget, found, volumes):
    widget.ui.votesCheckBox.checked = True
    widget.landmarkPanel.queries.setChecked(volumes[1], False)
    widget.landmarkPanel.queries.setChecked(volumes[2])
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 120)
    assert widget.ui.resultSelector.currentText.startswith("Third")
    assert cell(widget.ui.pointTable, 0, "Templates agreeing").text() == "2"


def test_side_by_side_jumps_in_both_views_follows_and_is_put_back(main_window, widget, found, volumes):
    import slicer
    from SAMLandmarkLib import results, views

    layout = views.layoutNode()
    before = layout.GetViewArrangement()
    widget.ui.sideBySideCheckBox.checked = True
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    composites = [views.sliceLogic(name).GetSliceCompositeNode() for name in ("Red", "Yellow")]
    assert [node.GetBackgroundVolumeID() for node in composites] == [volumes[0].GetID(), volumes[1].GetID()]
    select(widget.ui.pointTable, 2)
    np.testing.assert_allclose(views.centerOf(views.sliceNode("Red")), POINTS[2], atol=0.5)
    np.testing.assert_allclose(views.centerOf(views.sliceNode("Yellow")), results.positionOf(found, 2), atol=0.5)
    views.sliceLogic("Red").SetSliceOffset(POINTS[2][2] + 6.0)
    shift = views.centerOf(views.sliceNode("Yellow"))[2] - views.centerOf(views.sliceNode("Red"))[2]
    assert shift == pytest.approx(10.0, abs=0.5)
    shown = [node.GetDisplayNode().GetViewNodeIDs() for node in (found, widget.parameters().templateMarkups)]
    assert shown == [("vtkMRMLSliceNodeYellow",), ("vtkMRMLSliceNodeRed",)]
    widget.ui.sideBySideCheckBox.checked = False
    assert not found.GetDisplayNode().GetViewNodeIDs()
    assert layout.GetViewArrangement() == before
    assert composites[0].GetBackgroundVolumeID() != volumes[0].GetID()


def test_cancel_and_a_failure_are_told_and_the_next_run_works(widget, chosen):
    widget.behavior = "slow"
    widget.ui.applyButton.click()
    wait_until(lambda: widget.landmarkPanel.job.progress.fraction > 0.4, 120)
    assert widget.ui.applyButton.text == "Cancel"
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning)
    assert "Cancelled" in widget.ui.statusLabel.text
    widget.behavior = "input"
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 120)
    assert "'Template' is no CT" in widget.ui.statusLabel.text
    widget.behavior = "done"
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 120)
    assert widget.ui.pointTable.rowCount == 3


def test_closing_the_scene_during_a_run_ends_it(widget, chosen, scene):
    widget.behavior = "slow"
    widget.ui.applyButton.click()
    wait_until(lambda: widget.landmarkPanel.job.progress.fraction > 0.4, 120)
    scene.Clear(0)
    wait_until(lambda: not widget.landmarkPanel.isRunning)
    assert widget.ui.pointTable.rowCount == 0 and not widget.ui.applyButton.enabled


CONTROLS = {
    "mode": ("modeComboBox", "currentText", "Fast", "FAST"),
    "minimumScore": ("minimumScoreSpinBox", "value", 0.6, 0.6),
    "liveMinimumScore": ("liveMinimumScoreSpinBox", "value", 0.6, 0.6),
    "trackMinimumScore": ("trackMinimumScoreSpinBox", "value", 0.6, 0.6),
    "linkViews": ("linkCheckBox", "checked", False, False),
    "liveHeat": ("liveHeatCheckBox", "checked", True, True),
    "liveFollow": ("liveFollowCheckBox", "checked", False, False),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_and_its_parameter_agree_both_ways(widget, name):
    control, attribute, shown, stored = CONTROLS[name]
    control, parameters = getattr(widget.ui, control), widget.parameters()
    original = getattr(parameters, name)
    setattr(control, attribute, shown)
    value = getattr(parameters, name)
    assert getattr(value, "name", value) == stored
    setattr(parameters, name, original)
    assert getattr(control, attribute) != shown
    setattr(parameters, name, value)
    assert getattr(control, attribute) == shown


def test_choices_come_back_with_the_scene(widget, found, volumes, scene, tmp_path):
    import slicer

    widget.ui.minimumScoreSpinBox.value = 0.65
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert widget.ui.templateVolumeSelector.currentNode() is None
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    widget.parent.exit()
    widget.parent.enter()
    assert widget.ui.templateVolumeSelector.currentNode().GetName() == "Template"
    assert [node.GetName() for node in widget.parameters().queryVolumes] == ["Query"]
    assert widget.ui.minimumScoreSpinBox.value == 0.65
    assert widget.ui.pointTable.rowCount == 3


def test_the_mouse_over_one_volume_moves_the_point_in_the_other(main_window, views, widget, volumes):
    import slicer
    from SAMLandmarkLib import results
    from SAMLandmarkLib.live import LiveState

    ui = widget.ui
    ui.liveFirstSelector.setCurrentNode(volumes[0])
    ui.liveSecondSelector.setCurrentNode(volumes[1])
    ui.liveSideBySideCheckBox.checked = True
    ui.liveStartButton.click()
    wait_until(lambda: widget.livePanel.live.state is LiveState.READY, 120)
    main_window.fit()
    view = views["Red"]
    height, width = view.pixels().shape[:2]
    interactor = view.interactor()
    interactor.SetEventInformation(width // 2, height // 2, 0, 0)
    interactor.InvokeEvent("MouseMoveEvent")
    wait_until(lambda: widget.livePanel.live.state is LiveState.FOUND, 60)
    ras = [0.0, 0.0, 0.0]
    slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0].GetCursorPositionRAS(ras)
    place = results.positionOf(widget.livePanel.live.marker, 0)
    np.testing.assert_allclose(place, np.add(ras, (-4.0, 6.0, 10.0)), atol=0.01)
    assert "Query" in ui.liveStatusLabel.text and "ms" in ui.liveLatencyLabel.text
    ui.liveStartButton.click()
    assert not widget.livePanel.isOn and not ui.liveSideBySideCheckBox.checked


def test_lesions_are_tracked_confirmed_and_exported(widget, build, volumes, answers, tmp_path):
    ui = widget.ui
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 22:26] = True
    seg = build.segmentation("Seg", volumes[0], [("s", "Liver lesion", (1, 0, 0), mask)])
    ui.baselineSelector.setCurrentNode(volumes[0])
    widget.trackingPanel.lesions.setChecked(seg)
    widget.trackingPanel.followUps.setChecked(volumes[1])
    widget.trackingPanel.followUps.setChecked(volumes[2])
    assert "Query, Third" in ui.followUpOrderLabel.text
    ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 120)
    assert ui.trackStatusLabel.text.startswith("Finished"), ui.trackStatusLabel.text
    assert ui.courseTable.rowCount == 3 and column(ui.responseTable, "RECIST") == ["", "", ""]
    for row in range(2):
        select(ui.courseTable, row)
        ui.confirmButton.click()
    cell(ui.courseTable, 2, "Confirmed").setText("25")
    assert column(ui.responseTable, "RECIST") == ["baseline", "PR", "PD"]
    assert column(ui.responseTable, "iRECIST") == ["", "iPR", "iUPD"]
    assert "at least 20 % and 5 mm" in cell(ui.responseTable, 2, "Rule").text()
    for text, said in (("much", "no diameter"), ("1250", "give 125 or 12.5 mm if that was meant")):
        cell(ui.courseTable, 2, "Confirmed").setText(text)
        assert said in ui.trackStatusLabel.text and cell(ui.responseTable, 2, "RECIST").text() == "PD"
        assert cell(ui.courseTable, 2, "Confirmed").text().startswith("25.0")
    answers.expect("QFileDialog.getSaveFileName", str(tmp_path / "course.csv"))
    ui.csvButton.click()
    assert ",measured,25," in (tmp_path / "course.csv").read_text(encoding="utf-8-sig")
    ui.plotButton.click()
    assert "chart" in ui.trackStatusLabel.text


def test_what_is_odd_about_a_lesion_stands_in_the_panels_table(widget, build, volumes):
    ui = widget.ui
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 14:18] = mask[18:22, 20:24, 28:32] = True
    seg = build.segmentation("Class map", volumes[0], [("s", "Nodules", (1, 0, 0), mask)])
    ui.baselineSelector.setCurrentNode(volumes[0])
    widget.trackingPanel.lesions.setChecked(seg)
    widget.trackingPanel.followUps.setChecked(volumes[1])
    ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 120)
    last = ui.courseTable.columnCount - 1
    assert ui.courseTable.horizontalHeaderItem(last).text() == "Note"
    assert [ui.courseTable.item(row, last).text() for row in range(2)] == ["Nodules has separate parts.", ""]
    assert ui.courseTable.item(0, 0).toolTip() == "Nodules has separate parts."


def shown_in(names):
    """IDs of the background volumes of slice views."""
    from SAMLandmarkLib import views

    return {views.sliceLogic(name).GetSliceCompositeNode().GetBackgroundVolumeID() for name in names}


def drawn(markups, views=("Red", "Yellow", "Green"), kind="vtkMRMLSliceNode"):
    """The views that draw a point list."""
    display = markups.GetDisplayNode()
    names = {f"{kind}{name}": name for name in views}
    return {name for node, name in names.items() if display.GetVisibility() and display.IsDisplayableInView(node)}


def in_plane_and_field(view, place):
    """Whether a slice view goes through a world point and has it between its edges."""
    x, y, z = view.convertRASToXYZ(place)
    height, width = view.pixels().shape[:2]
    return abs(z) < 0.5 and 0 <= x < width and 0 <= y < height


def test_a_selected_row_never_shows_a_point_on_another_patients_image(main_window, views, widget, found, volumes):
    import slicer
    from SAMLandmarkLib import results

    everywhere = {"Red", "Yellow", "Green"}
    points = widget.parameters().templateMarkups
    slicer.util.setSliceViewerLayers(background=volumes[0])
    assert drawn(points) == everywhere and drawn(found) == set()
    select(widget.ui.pointTable, 2)
    assert shown_in(everywhere) == {volumes[1].GetID()} and "in 'Query'" in widget.ui.shownLabel.text
    assert in_plane_and_field(views["Red"], results.positionOf(found, 2))
    assert drawn(points) == set() and drawn(found) == everywhere
    # Without an image to tell them apart, the 3D view draws one patient's points only.
    assert drawn(found, ["1"], "vtkMRMLViewNode") and not drawn(points, ["1"], "vtkMRMLViewNode")
    # Not found: the views go to where it lies in the template.
    select(widget.ui.pointTable, 1)
    assert shown_in(everywhere) == {volumes[0].GetID()} and "template 'Template'" in widget.ui.shownLabel.text
    assert in_plane_and_field(views["Red"], POINTS[1])
    # A view that is zoomed in elsewhere moves there.
    select(widget.ui.pointTable, 0)
    views["Red"].mrmlSliceNode().JumpSliceByCentering(*results.positionOf(found, 0))
    views["Red"].mrmlSliceNode().SetFieldOfView(10.0, 10.0, 1.0)
    select(widget.ui.pointTable, 2)
    assert in_plane_and_field(views["Red"], results.positionOf(found, 2))
    select(widget.ui.pointTable, 1)
    assert drawn(points) == everywhere and drawn(found) == set()
    assert not drawn(points, ["1"], "vtkMRMLViewNode")
    # A view of a third image shows neither; one that is left shows what it did before.
    views["Red"].mrmlSliceCompositeNode().SetBackgroundVolumeID(volumes[2].GetID())
    assert drawn(points) == {"Yellow", "Green"}
    main_window.showModule("")
    widget.parent.exit()
    for node in (points, found):
        assert drawn(node) == everywhere and not node.GetDisplayNode().GetViewNodeIDs()
        assert not node.GetDisplayNode().GetAttributeNames()


def test_side_by_side_keeps_the_template_that_the_points_were_found_from(main_window, widget, found, volumes):
    widget.ui.templateVolumeSelector.setCurrentNode(volumes[2])
    widget.ui.sideBySideCheckBox.checked = True
    assert [shown_in([name]) for name in ("Red", "Yellow")] == [{volumes[0].GetID()}, {volumes[1].GetID()}]
    widget.ui.sideBySideCheckBox.checked = False


@pytest.fixture
def tracked(widget, build, volumes):
    """One lesion of 20 mm, tracked in two follow-ups, which are called alike."""
    volumes[2].SetName("Query 2")
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 22:26] = True
    seg = build.segmentation("Seg", volumes[0], [("s", "Lesion", (1, 0, 0), mask)])
    widget.ui.baselineSelector.setCurrentNode(volumes[0])
    widget.trackingPanel.lesions.setChecked(seg)
    for volume in volumes[1:]:
        widget.trackingPanel.followUps.setChecked(volume)
    track(widget)
    return widget.trackingPanel


def track(widget):
    widget.ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 120)
    assert widget.ui.trackStatusLabel.text.startswith("Finished"), widget.ui.trackStatusLabel.text


def reading(panel, row):
    """The reading that a row shows, as the course keeps it."""
    from SAMLandmarkLib.course import courseOf

    lesion, visit = panel.course._rows[row]
    return courseOf(panel.table()).lesion(lesion).readings[visit]


def test_a_visit_without_an_image_leaves_the_views_alone(main_window, widget, tracked, volumes):
    import slicer

    ui = widget.ui
    select(ui.courseTable, 1)
    assert shown_in(["Red", "Green"]) == {volumes[1].GetID()} and not ui.shownLesionLabel.text
    # By the node and not by its name: names may begin alike, be the same, or change.
    select(ui.courseTable, 2)
    assert shown_in(["Red", "Green"]) == {volumes[2].GetID()}
    volumes[0].SetName("Query")
    select(ui.courseTable, 1)
    assert shown_in(["Red", "Green"]) == {volumes[1].GetID()}
    slicer.mrmlScene.RemoveNode(volumes[2])
    select(ui.courseTable, 2)
    assert shown_in(["Red", "Green"]) == {volumes[1].GetID()} and "'Query 2'" in ui.shownLesionLabel.text


def test_one_click_confirms_what_the_rules_know(widget, tracked):
    ui = widget.ui
    select(ui.courseTable, 0)
    ui.confirmButton.click()
    select(ui.courseTable, 1)
    shown = []
    for name in ("goneButton", "tooSmallButton", "notEvaluableButton", "confirmButton", "withdrawButton"):
        getattr(ui, name).click()
        shown.append((cell(ui.courseTable, 1, "Confirmed").text(), cell(ui.responseTable, 1, "RECIST").text()))
    assert shown == [
        ("0 (gone)", "CR"),
        ("5 (too small)", "PR"),
        ("not evaluable", "NE"),
        ("12.0 x 8.0", "PR"),
        ("", "NE"),
    ]
    # The row stays selected, and so do the controls of its lesion.
    assert tracked.course.selected() == [("Lesion", "Query")] and ui.roleComboBox.currentText == "target"


def test_a_dragged_line_is_the_number_and_a_typed_number_the_line(main_window, widget, tracked):
    from SAMLandmarkLib.measurelines import LONGEST, SHORT, length

    ui, lines = widget.ui, tracked.course.views.lines
    select(ui.courseTable, 0)
    longest, short = lines.node(LONGEST), lines.node(SHORT)
    assert longest.GetNumberOfControlPoints() == 2 and longest.GetMeasurement("length").GetValue() == pytest.approx(
        20.0
    )
    suggested = reading(tracked, 0).longest_line
    # As the mouse does it, 4 mm further out.
    place = np.array(longest.GetNthControlPointPositionWorld(1))
    start = np.array(longest.GetNthControlPointPositionWorld(0))
    longest.SetNthControlPointPositionWorld(1, *(place + (place - start) / 5))
    assert cell(ui.courseTable, 0, "Confirmed").text() == "24.0 x 8.0"
    assert length(reading(tracked, 0).longest_line) == pytest.approx(24.0, abs=0.01)
    assert cell(ui.courseTable, 0, "Size (mm)").text().startswith("20.0 x 12.0")
    cell(ui.courseTable, 0, "Confirmed").setText("30 x 15")
    assert longest.GetMeasurement("length").GetValue() == pytest.approx(30.0, abs=0.01)
    assert short.GetMeasurement("length").GetValue() == pytest.approx(15.0, abs=0.01)
    # A short axis that is longer than the longest diameter is none, and nothing changes.
    short.SetNthControlPointPositionWorld(1, *(np.array(short.GetNthControlPointPositionWorld(1)) + (0, 300, 0)))
    assert cell(ui.courseTable, 0, "Confirmed").text() == "30.0 x 15.0" and ui.trackStatusLabel.text
    ui.withdrawButton.click()
    assert reading(tracked, 0).longest_line == suggested and reading(tracked, 0).confirmed is None
    assert longest.GetMeasurement("length").GetValue() == pytest.approx(20.0)
    # Only in the views of the image that it was measured in.
    select(ui.courseTable, 1)
    assert longest.GetMeasurement("length").GetValue() == pytest.approx(12.0)
    widget.parent.exit()
    assert longest.GetNumberOfControlPoints() == 0


def test_the_mouse_drags_the_end_of_a_diameter(main_window, views, widget, tracked):
    from SAMLandmarkLib.measurelines import LONGEST

    ui = widget.ui
    select(ui.courseTable, 0)
    main_window.fit()
    select(ui.courseTable, 1)
    node, view = tracked.course.views.lines.node(LONGEST), views["Red"]
    x, y, z = view.convertRASToXYZ(node.GetNthControlPointPositionWorld(1))
    assert abs(z) < 0.5, "the views go to the slice that was measured in"
    view.pixels()
    for event, across in (("MouseMove", 0), ("LeftButtonPress", 0), ("MouseMove", 30), ("LeftButtonRelease", 30)):
        view.interactor().SetEventInformation(int(round(x)) + across, int(round(y)), 0, 0)
        view.interactor().InvokeEvent(f"{event}Event")
    length = node.GetMeasurement("length").GetValue()
    assert abs(length - 12.0) > 1.0
    assert cell(ui.courseTable, 1, "Confirmed").text() == f"{length:.1f} x 8.0"


def test_what_nobody_measured_is_measured_in_the_view(main_window, widget, build, volumes):
    from SAMLandmarkLib.measurelines import LONGEST

    ui = widget.ui
    ui.baselineSelector.setCurrentNode(volumes[0])
    widget.trackingPanel.lesions.setChecked(build.markups("Lesions", POINTS[:1], ["L1"]))
    widget.trackingPanel.followUps.setChecked(volumes[1])
    track(widget)
    select(ui.courseTable, 0)
    ui.confirmButton.click()
    assert "no longest diameter" in ui.trackStatusLabel.text
    ui.measureButton.click()
    assert cell(ui.courseTable, 0, "Confirmed").text() == ""
    node = widget.trackingPanel.course.views.lines.node(LONGEST)
    node.SetNthControlPointPositionWorld(0, *(np.array(node.GetNthControlPointPositionWorld(1)) + (14.0, 0, 0)))
    assert cell(ui.courseTable, 0, "Confirmed").text() == "14.0 x 10.0"


def test_side_by_side_shows_the_baseline_and_only_its_own_contours(main_window, views, widget, tracked, volumes):
    import slicer
    from SAMLandmarkLib import course as courses
    from SAMLandmarkLib.views import centerOf, sliceNode

    ui, table = widget.ui, tracked.table()
    contours = [courses.nodeOf(table, visit, courses.CONTOURS) for visit in courses.courseOf(table).visits]
    layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    before = layout.GetViewArrangement()
    select(ui.courseTable, 1)
    assert drawn(contours[1]) == {"Red", "Yellow", "Green"} and drawn(contours[2]) == set()
    ui.lesionSideBySideCheckBox.checked = True
    assert [shown_in([name]) for name in ("Red", "Yellow")] == [{volumes[0].GetID()}, {volumes[1].GetID()}]
    assert drawn(contours[1], ("Red", "Yellow")) == {"Yellow"}
    # The baseline's own marks are in its view only.
    marked = courses.nodeOf(table, courses.courseOf(table).visits[0], courses.MARKED)
    assert drawn(marked, ("Red", "Yellow")) == {"Red"}
    apart = centerOf(sliceNode("Yellow")) - centerOf(sliceNode("Red"))
    np.testing.assert_allclose(apart, (-4.0, 6.0, 10.0), atol=0.1)
    # Linked: scrolling in one moves the other.
    sliceNode("Red").JumpSliceByCentering(*(centerOf(sliceNode("Red")) + (0, 0, 5.0)))
    np.testing.assert_allclose(centerOf(sliceNode("Yellow")) - centerOf(sliceNode("Red")), apart, atol=0.1)
    select(ui.courseTable, 2)
    assert shown_in(["Yellow"]) == {volumes[2].GetID()} and drawn(contours[2], ("Red", "Yellow")) == {"Yellow"}
    ui.lesionSideBySideCheckBox.checked = False
    assert layout.GetViewArrangement() == before
    widget.parent.exit()
    for node in contours[1:]:
        assert drawn(node) == {"Red", "Yellow", "Green"} and not node.GetDisplayNode().GetViewNodeIDs()


def test_visits_are_dated_ordered_and_read_again(widget, tracked):
    ui = widget.ui
    select(ui.courseTable, 0)
    ui.confirmButton.click()
    select(ui.courseTable, 2)
    select(ui.responseTable, 2)
    ui.earlierButton.click()
    assert column(ui.responseTable, "Visit") == ["Template", "Query 2", "Query"]
    # What is selected goes with it.
    assert tracked.course.selected() == [("Lesion", "Query 2")] and tracked.course.selectedVisits() == ["Query 2"]
    for row, day in enumerate(("2026-01-05", "2026-06-01", "20260302")):
        cell(ui.responseTable, row, "Date").setText(day)
    assert column(ui.responseTable, "Visit") == ["Template", "Query", "Query 2"]
    assert column(ui.responseTable, "Date") == ["2026-01-05", "2026-03-02", "2026-06-01"]
    cell(ui.responseTable, 1, "Date").setText("soon")
    assert "no day" in ui.trackStatusLabel.text and cell(ui.responseTable, 1, "Date").text() == "2026-03-02"
    cell(ui.responseTable, 1, "Visit").setText("Spring")
    assert column(ui.courseTable, "Visit") == ["Template", "Spring", "Query 2"]
    select(ui.courseTable, 1)
    ui.confirmButton.click()
    select(ui.responseTable, 1)
    ui.rerunButton.click()
    wait_until(lambda: not tracked.isRunning, 120)
    assert column(ui.courseTable, "Confirmed") == ["20.0 x 12.0", "12.0 x 8.0", ""]
    assert column(ui.responseTable, "Visit") == ["Template", "Spring", "Query 2"]


def test_a_follow_up_is_added_to_the_course(widget, tracked, build):
    ui = widget.ui
    select(ui.courseTable, 0)
    ui.confirmButton.click()
    assert "Read again" in ui.followUpOrderLabel.text
    array = build.smooth_array()
    later = build.volume("Later", array, build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape, (5, -10, 20)))
    tracked.followUps.setChecked(later)
    assert ui.followUpOrderLabel.text == "Added to the course: Later"
    track(widget)
    assert column(ui.responseTable, "Visit") == ["Template", "Query", "Query 2", "Later"]
    assert column(ui.courseTable, "Confirmed") == ["20.0 x 12.0", "", "", ""]
    # Without a course another one is begun.
    ui.courseTableSelector.setCurrentNode(None)
    track(widget)
    from SAMLandmarkLib.course import courseTables

    assert len(courseTables()) == 2 and len(column(ui.responseTable, "Visit")) == 4


def test_roles_organs_and_judgements_are_set_in_the_panel(widget, tracked):
    ui = widget.ui
    for row in range(3):
        select(ui.courseTable, row)
        ui.confirmButton.click()
    assert column(ui.responseTable, "RECIST") == ["baseline", "PR", "PR"] and "Five" not in ui.notesLabel.text
    ui.organLineEdit.text = "liver"
    ui.organLineEdit.editingFinished.emit()
    assert cell(ui.courseTable, 0, "Organ").text() == "liver"
    select(ui.responseTable, 2)
    ui.newLesionCheckBox.checked = True
    assert column(ui.responseTable, "RECIST") == ["baseline", "PR", "PD"]
    ui.newLesionCheckBox.checked = False
    select(ui.courseTable, 0)
    ui.lymphNodeCheckBox.checked = True
    # 12 mm are no target node, and the panel says so; both diameters are kept.
    assert "cannot be a target" in ui.notesLabel.text and cell(ui.courseTable, 0, "Confirmed").text() == "20.0 x 12.0"
    ui.proposeRolesButton.click()
    assert cell(ui.courseTable, 0, "Role").text() == "non-target, node"
    assert column(ui.responseTable, "RECIST") == ["baseline", "CR", "CR"]
    select(ui.responseTable, 1)
    ui.nonTargetProgressCheckBox.checked = True
    assert column(ui.responseTable, "RECIST")[1] == "PD"


def test_a_new_lesion_is_added_at_the_crosshair_and_states_are_corrected(main_window, widget, tracked):
    import slicer

    ui = widget.ui
    for row in range(3):
        select(ui.courseTable, row)
        ui.confirmButton.click()
    slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0].SetCrosshairRAS(7.0, 8.0, 9.0)
    select(ui.responseTable, 0)
    assert not ui.addLesionButton.enabled
    select(ui.responseTable, 1)
    ui.addLesionButton.click()
    assert tracked.course.selected() == [("New lesion 1", "Query")]
    assert reading(tracked, 3).position == [-7.0, -8.0, 9.0] and cell(ui.courseTable, 3, "State").text() == "new"
    assert column(ui.responseTable, "RECIST") == ["baseline", "PR", "PR"]
    ui.tooSmallButton.click()
    # Seen once, it is there until somebody says that it has gone.
    assert column(ui.responseTable, "RECIST") == ["baseline", "PD", "PD"]
    assert column(ui.responseTable, "iRECIST") == ["", "iUPD", "iUPD"]
    select(ui.courseTable, 4)
    assert tracked.course.selected() == [("New lesion 1", "Query 2")]
    ui.stateComboBox.setCurrentIndex(ui.stateComboBox.findData("gone"))
    ui.stateComboBox.activated.emit(ui.stateComboBox.currentIndex)
    assert cell(ui.courseTable, 4, "Confirmed").text() == "0 (gone)"
    assert column(ui.responseTable, "iRECIST") == ["", "iUPD", "iPR"]
    ui.stateComboBox.setCurrentIndex(ui.stateComboBox.findData("merged"))
    ui.stateComboBox.activated.emit(ui.stateComboBox.currentIndex)
    assert "does not merge alone" in ui.trackStatusLabel.text and cell(ui.courseTable, 4, "State").text() == "gone"


def test_candidates_of_new_lesions_are_accepted_or_rejected(main_window, widget, tracked, volumes):
    ui = widget.ui
    assert ui.candidateBox.isHidden()
    select(ui.courseTable, 0)
    ui.confirmButton.click()
    ui.findNewLesionsCheckBox.checked = True
    track(widget)
    assert column(ui.candidateTable, "Visit") == ["Query", "Query", "Query 2", "Query 2"]
    select(ui.candidateTable, 1)
    assert shown_in(["Red", "Green"]) == {volumes[1].GetID()}
    ui.acceptCandidateButton.click()
    assert column(ui.candidateTable, "Visit") == ["Query", "Query 2", "Query 2"]
    assert [row[0] for row in tracked.course._rows].count("new 1") == 2
    select(ui.courseTable, tracked.course._rows.index(("new 1", "Query")))
    ui.confirmButton.click()
    assert column(ui.responseTable, "RECIST")[1:] == ["PD", "PD"]
    for _count in range(3):
        select(ui.candidateTable, 0)
        ui.rejectCandidateButton.click()
    assert ui.candidateBox.isHidden()
    # What was decided stays decided when the time points are read again.
    track(widget)
    assert ui.candidateBox.isHidden() and "new 1" in column(ui.courseTable, "Lesion")


def test_the_columns_that_matter_are_seen_whole(main_window, widget, tracked):
    """At 1366 x 768: no header is cut, and size, confirmed, change and category need no scrolling."""
    ui = widget.ui
    for row in range(3):
        select(ui.courseTable, row)
        ui.confirmButton.click()
    ui.tabWidget.setCurrentIndex(2)
    main_window.showModule("SAMLandmark")
    main_window.resize(1366, 768)
    main_window.fit()
    for table, last in ((ui.courseTable, "Change"), (ui.responseTable, "iRECIST")):
        header = table.horizontalHeader()
        titles = [table.horizontalHeaderItem(n).text() for n in range(table.columnCount)]
        for number, title in enumerate(titles):
            assert header.sectionSize(number) >= header.fontMetrics().horizontalAdvance(title), title
        end = titles.index(last)
        right = header.sectionPosition(end) + header.sectionSize(end)
        assert right <= table.viewport().property("width"), f"{last} ends at {right}"


def test_a_course_goes_to_another_station_and_back(widget, tracked, answers, tmp_path):
    ui = widget.ui
    select(ui.courseTable, 0)
    ui.confirmButton.click()
    answers.expect("QFileDialog.getSaveFileName", str(tmp_path / "course.json"))
    ui.jsonButton.click()
    answers.expect("QFileDialog.getOpenFileName", str(tmp_path / "course.json"))
    ui.importButton.click()
    assert "Read" in ui.trackStatusLabel.text and column(ui.courseTable, "Confirmed")[0] == "20.0 x 12.0"
    # Its images are not files: the views stay, and it is said.
    select(ui.courseTable, 1)
    assert "not in the scene" in ui.shownLesionLabel.text
    (tmp_path / "course.json").write_text("[]")
    answers.expect("QFileDialog.getOpenFileName", str(tmp_path / "course.json"))
    ui.importButton.click()
    assert "no course of lesions" in ui.trackStatusLabel.text


def test_what_was_found_how_well_and_why_not_stands_in_the_table(widget, build, volumes):
    ui, table = widget.ui, widget.ui.pointTable
    ui.templateVolumeSelector.setCurrentNode(volumes[0])
    places = [*POINTS, (500.0, 0.0, 0.0)]
    ui.templateMarkupsSelector.setCurrentNode(build.markups("Points", places, ["a", "gone", "beyond", "beside"]))
    widget.landmarkPanel.queries.setChecked(volumes[1])
    # Told before the work, by name; the others are looked for.
    assert ui.applyButton.enabled and "'beside'" in ui.leftOutLabel.text and "'a'" not in ui.leftOutLabel.text
    ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 120)
    assert ui.statusLabel.text.startswith("Finished"), ui.statusLabel.text
    states = [cell(table, row, "State").text() for row in range(4)]
    assert states == ["to be checked", "not found", "outside this scan", "outside the template"]
    assert [cell(table, row, "90 % within (mm)").text() for row in range(4)] == ["8", "", "", ""]
    hues = [table.item(row, 0).background().color().hue() for row in range(4)]
    assert 90 < hues[0] < 150 and hues[1] < 40 and all(200 < hue < 260 for hue in hues[2:])
    found = widget.landmarkPanel.result()
    assert "nine of ten within 8 mm" in found.GetNthControlPointDescription(0)
    # A corrected point has no such bound any more.
    found.SetNthControlPointPositionWorld(0, 1.0, 2.0, 3.0)
    wait_until(lambda: cell(table, 0, "State").text() == "corrected")
    assert cell(table, 0, "90 % within (mm)").text() == ""


def test_the_sentence_goes_when_the_points_move_into_the_template(widget, build, volumes):
    markups = build.markups("Points", [(500.0, 0.0, 0.0)], ["beside"])
    widget.ui.templateVolumeSelector.setCurrentNode(volumes[0])
    widget.ui.templateMarkupsSelector.setCurrentNode(markups)
    widget.landmarkPanel.queries.setChecked(volumes[1])
    assert not widget.ui.applyButton.enabled and "lies inside 'Template'" in widget.ui.applyButton.toolTip
    markups.SetNthControlPointPositionWorld(0, *POINTS[0])
    wait_until(lambda: widget.ui.applyButton.enabled)


def test_each_tab_has_its_own_minimum_score(widget, build, volumes):
    ui, parameters = widget.ui, widget.parameters()
    ui.minimumScoreSpinBox.value = 0.9
    ui.baselineSelector.setCurrentNode(volumes[0])
    ui.liveFirstSelector.setCurrentNode(volumes[0])
    ui.liveSecondSelector.setCurrentNode(volumes[1])
    ui.liveStartButton.click()
    assert widget.trackingPanel.request().minimumScore is None and widget.livePanel.live.minimumScore is None
    ui.liveMinimumScoreSpinBox.value, ui.trackMinimumScoreSpinBox.value = 0.3, 0.4
    assert widget.trackingPanel.request().minimumScore == 0.4 and widget.livePanel.live.minimumScore == 0.3
    assert parameters.minimumScore == 0.9
    tabs = {"minimumScoreSpinBox": "landmarkTab", "liveMinimumScoreSpinBox": "liveTab"}
    for name, tab in {**tabs, "trackMinimumScoreSpinBox": "lesionTab"}.items():
        assert getattr(ui, tab).isAncestorOf(getattr(ui, name))
    # What all tabs share is in none.
    assert not any(tab.isAncestorOf(ui.deviceComboBox) for tab in (ui.landmarkTab, ui.liveTab, ui.lesionTab))
    ui.liveStartButton.click()


def test_points_are_placed_on_the_template_with_a_button(main_window, views, widget, volumes):
    import slicer

    ui = widget.ui
    assert not ui.placePointsButton.enabled and "template volume first" in ui.placePointsButton.toolTip
    ui.templateVolumeSelector.setCurrentNode(volumes[0])
    slicer.util.setSliceViewerLayers(background=volumes[1])
    ui.placePointsButton.click()
    markups = widget.parameters().templateMarkups
    assert shown_in(["Red", "Yellow", "Green"]) == {volumes[0].GetID()} and ui.placePointsButton.checked
    main_window.fit()
    click(views["Red"], 0.4)
    click(views["Red"], 0.6)
    assert sum(markups.GetNthControlPointPositionStatus(n) == 2 for n in range(2)) == 2
    ui.placePointsButton.click()
    interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    assert interaction.GetCurrentInteractionMode() != interaction.Place
    # Left by the right mouse button or the tool bar, the button comes up too.
    ui.placePointsButton.click()
    interaction.SwitchToViewTransformMode()
    assert not ui.placePointsButton.checked
    # Lesions: a list of their own, checked at once.
    ui.baselineSelector.setCurrentNode(volumes[1])
    ui.placeLesionsButton.click()
    assert shown_in(["Red"]) == {volumes[1].GetID()}
    assert [node.GetName() for node in widget.trackingPanel.lesions.checked()] == ["Lesions"]
    widget.parent.exit()
    assert interaction.GetCurrentInteractionMode() != interaction.Place


def click(view, share):
    """A click at a share of a view's width and height."""
    height, width = view.pixels().shape[:2]
    interactor = view.interactor()
    for event in ("MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
        interactor.SetEventInformation(int(width * share), int(height * share), 0, 0)
        interactor.InvokeEvent(event)


def test_empty_lists_say_the_first_steps(widget, build):
    ui = widget.ui
    for listed, word in ((ui.queryList, "Add Data"), (ui.lesionList, "Place points"), (ui.followUpList, "Add Data")):
        assert listed.count == 1 and word in listed.item(0).text()
    assert widget.landmarkPanel.queries.checked() == [] and widget.trackingPanel.lesions.checked() == []
    for label, table in ((ui.firstStepsLabel, ui.pointTable), (ui.courseHintLabel, ui.courseTable)):
        assert label.text.startswith("First steps") and table.isHidden()
    assert "No template yet" in ui.libraryDescriptionLabel.text
    array = build.smooth_array()
    build.volume("Query", array, build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape))
    assert [ui.queryList.item(row).text() for row in range(ui.queryList.count)] == ["Query"]


def test_the_first_steps_go_when_points_are_found(widget, found):
    assert widget.ui.firstStepsLabel.isHidden() and not widget.ui.pointTable.isHidden()
    for label in (widget.ui.leftOutLabel, widget.ui.shownLabel):
        assert label.isHidden(), "a label without a sentence takes no room"
    select(widget.ui.pointTable, 0)
    assert not widget.ui.shownLabel.isHidden()


def test_the_diameters_are_seen_in_the_plot(main_window, views, widget, build, volumes):
    import slicer

    ui = widget.ui
    mask = np.zeros((40, 44, 48), bool)
    mask[18:22, 20:24, 22:26] = True
    ui.baselineSelector.setCurrentNode(volumes[0])
    widget.trackingPanel.lesions.setChecked(build.segmentation("Seg", volumes[0], [("s", "Lesion", (1, 0, 0), mask)]))
    for volume in volumes[1:]:
        widget.trackingPanel.followUps.setChecked(volume)
    ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 120)
    ui.plotButton.click()
    chart = slicer.app.layoutManager().plotWidget(0).mrmlPlotViewNode().GetPlotChartNode()
    assert f"'{chart.GetName()}'" in ui.trackStatusLabel.text
    chart.SetLegendVisibility(False)
    # The one lesion shrinks by 8 mm a visit: a line that falls to the right, in its color.
    color = np.array(chart.GetNthPlotSeriesNode(0).GetColor()) * 255
    rows, columns = np.nonzero(np.abs(views["Plot"].pixels() - color).max(-1) < 40)
    assert len(rows) > 50 and np.corrcoef(rows, columns)[0, 1] > 0.9


def test_the_overlay_is_seen_with_its_legend(main_window, views, widget, volumes):
    from SAMLandmarkLib.live import LiveState

    ui = widget.ui
    ui.liveFirstSelector.setCurrentNode(volumes[0])
    ui.liveSecondSelector.setCurrentNode(volumes[1])
    ui.liveSideBySideCheckBox.checked = True
    ui.liveStartButton.click()
    live = widget.livePanel.live
    wait_until(lambda: live.state is LiveState.READY, 120)
    main_window.fit()
    # The stub's similar block lies at the origin; the slices stay there.
    ui.liveFollowCheckBox.checked = False
    views["Yellow"].sliceLogic().SetSliceOffset(-4.0)
    before = views["Yellow"].pixels().astype(int)
    ui.liveHeatCheckBox.checked = True
    live.moveTo(volumes[0], (4.0, -6.0, -10.0))
    wait_until(lambda: live.heatNode is not None, 60)
    after = views["Yellow"].pixels().astype(int)
    red = (after[..., 0] - after[..., 2] > 60) & (np.abs(after - before).max(-1) > 30)
    right = after.shape[1] * 3 // 4
    assert red[:, :right].sum() > 300, "the most similar place"
    assert (np.abs(after - before).max(-1) > 30)[:, right:].sum() > 300, "the legend"
    ui.liveHeatCheckBox.checked = False
    np.testing.assert_array_equal(views["Yellow"].pixels()[:, right:], before[:, right:])
    ui.liveStartButton.click()


def test_the_buttons_below_the_points_fit_a_narrow_panel(main_window, widget, found):
    from harness.pictures import settle
    from PySide6 import QtCore

    main_window.showModule("SAMLandmark")
    settle(0.3)
    rows = {}
    for name in ("accept", "reject", "acceptAll", "restore", "place", "rematch", "table"):
        button = getattr(widget.ui, name + "Button")
        top = button.mapTo(main_window, QtCore.QPoint(0, 0)).y()
        rows[top] = rows.get(top, 0) + button.sizeHint().width()
    # What a panel of 373 pixels, as at 1366x768, leaves beside margins and scroll bar.
    assert len(rows) >= 2 and max(rows.values()) <= 320, rows

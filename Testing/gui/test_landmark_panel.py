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
    assert ui.courseTable.rowCount == 3 and ui.responseTable.rowCount == 0
    for row in range(2):
        select(ui.courseTable, row)
        ui.confirmButton.click()
    ui.courseTable.item(2, 6).setText("25")
    assert [ui.responseTable.item(row, 4).text() for row in range(3)] == ["baseline", "PR", "PD"]
    ui.courseTable.item(2, 6).setText("much")
    assert "no diameter" in ui.trackStatusLabel.text and ui.responseTable.item(2, 4).text() == "PD"
    answers.expect("QFileDialog.getSaveFileName", str(tmp_path / "course.csv"))
    ui.csvButton.click()
    assert "25.00" in (tmp_path / "course.csv").read_text(encoding="utf-8")
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


def test_a_visit_without_an_image_leaves_the_views_alone(main_window, widget, build, volumes):
    import slicer

    ui = widget.ui
    ui.baselineSelector.setCurrentNode(volumes[0])
    widget.trackingPanel.lesions.setChecked(build.markups("Lesions", POINTS[:1], ["L1"]))
    widget.trackingPanel.followUps.setChecked(volumes[1])
    ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 120)
    select(ui.courseTable, 1)
    assert shown_in(["Red", "Green"]) == {volumes[1].GetID()} and not ui.shownLesionLabel.text
    slicer.util.setSliceViewerLayers(background=volumes[0])
    # Another image whose name begins the same is none.
    volumes[1].SetName("Query of another patient")
    select(ui.courseTable, 0)
    select(ui.courseTable, 1)
    assert shown_in(["Red", "Green"]) == {volumes[0].GetID()} and "'Query'" in ui.shownLesionLabel.text


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

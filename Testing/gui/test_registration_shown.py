"""After a run the views show the result, and one click leads back."""

from __future__ import annotations

import numpy as np
import pytest
from harness import wait_until


@pytest.fixture
def widget(widget):
    widget.behavior = "good"
    return widget


@pytest.fixture
def apply(widget, build):
    """A function that registers a pair whose scans lie ``apart`` mm from each other; returns its nodes."""
    import slicer

    def run(apart=0.0):
        array = build.smooth_array()
        geometry = build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape, (5.0, -10.0, 20.0 + apart))
        fixed = build.volume("Fixed", array, geometry)
        moving = build.volume("Moving", array, build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape))
        mask = slicer.util.arrayFromVolume(moving) > 400
        seg = build.segmentation("Seg", moving, [("a", "Blob", (1.0, 0.0, 1.0), mask)])
        points = build.markups("Points", [build.center_of(moving)])
        ui = widget.ui
        ui.fixedSelector.setCurrentNode(fixed)
        ui.movingSelector.setCurrentNode(moving)
        ui.movingSegmentationSelector.setCurrentNode(seg)
        ui.movingMarkupsSelector.setCurrentNode(points)
        ui.errorCheckBox.checked = True
        slicer.util.setSliceViewerLayers(background=moving)
        ui.applyButton.click()
        wait_until(lambda: widget.previewPanel.preview is not None, 120)
        assert not widget.isRunning
        return fixed, moving, seg, points

    return run


def visible(*nodes):
    return [bool(node.GetDisplayNode().GetVisibility()) for node in nodes]


def test_the_result_is_shown_without_a_click_and_one_click_leads_back(main_window, views, widget, apply):
    fixed, moving, seg, points = apply()
    composite = views["Red"].mrmlSliceCompositeNode()
    ui, parameters = widget.ui, widget.parameters()
    assert ui.previewModeComboBox.currentText == "Blend"
    assert composite.GetBackgroundVolumeID() == fixed.GetID()
    assert composite.GetForegroundVolumeID() == widget.previewPanel.preview.movingStandIn.GetID()
    assert composite.GetForegroundOpacity() == 0.5
    assert visible(seg, points, parameters.outputSegmentation) == [False] * 3
    assert visible(parameters.outputMarkups) == [True]
    ui.revertButton.click()
    assert visible(seg, points, parameters.outputSegmentation) == [True] * 3
    assert composite.GetBackgroundVolumeID() == moving.GetID() and composite.GetForegroundVolumeID() is None


def test_the_banner_is_on_the_screen_at_1366x768_when_a_run_has_finished(main_window, widget, apply):
    from harness.pictures import settle
    from PySide6 import QtCore

    main_window.showModule("SAMConvexRegistration")
    main_window.resize(1366, 768)
    apply()
    area, label = main_window._scroll.viewport(), widget.ui.verdictLabel

    def seen(control):
        top = control.mapTo(area, QtCore.QPoint(0, 0)).y()
        return 0 <= top <= area.size.height() - control.size.height()

    settle(0.3)
    wait_until(lambda: seen(label), 5)
    assert not label.isHidden() and label.size.height() > 10 and seen(widget.ui.revertButton)


def test_the_figures_stand_beside_their_names_in_a_narrow_panel(main_window, widget):
    from harness.pictures import settle
    from SAMConvexRegistrationLib.previewpanel import showReport

    main_window.showModule("SAMConvexRegistration")
    widget.ui.qualityButton.collapsed = False
    table = widget.ui.qualityTable
    table.setMaximumWidth(340)
    verdict = {"level": "check", "reasons": ["One image had to be enlarged or shrunk."], "evidence": {}}
    expected = {"median": 9.1, "p90": 15.7, "max": 42.2, "family": "between patients", "own_calibration": True}
    showReport(widget.ui, {"folding_percent": 0.0, "verdict": verdict, "expected_error_mm": expected})
    settle(0.2)
    ends = [table.columnViewportPosition(column) + table.columnWidth(column) for column in range(4)]
    assert max(ends) <= table.viewport().width


def test_the_views_go_to_the_fixed_image_where_it_lies_elsewhere(main_window, views, widget, apply):
    main_window.fit()
    fixed, *_others = apply(apart=400.0)
    bounds = np.zeros(6)
    fixed.GetRASBounds(bounds)
    offset = views["Red"].mrmlSliceNode().GetSliceOffset()
    assert bounds[4] < offset < bounds[5]


def test_a_scene_saved_while_the_result_is_shown_comes_back_with_everything_visible(widget, apply, scene, tmp_path):
    import slicer

    apply()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    seg, points = slicer.util.getNode("Seg"), slicer.util.getNode("Points")
    assert visible(seg, points) == [True, True]
    assert seg.GetDisplayNode().GetAttribute("SAMConvex.Hidden") is None


def test_places_are_ranked_by_the_expected_error_and_marked(main_window, views, widget, apply):
    import slicer
    from SAMConvexLib import nodes

    apply()
    ui = widget.ui
    ui.worstButton.click()
    assert ui.worstLabel.text.startswith("1 of ") and "below 9.0 mm" in ui.worstLabel.text
    marker = next(n for n in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode") if "preview" in n.GetName())
    first = nodes.worldPoints(marker)[1][0]
    texts = []
    for _place in range(int(ui.worstLabel.text.split()[2].rstrip(":")) - 1):
        ui.worstButton.click()
        texts.append(ui.worstLabel.text)
    assert "of its volume" in texts[-1] and not np.allclose(nodes.worldPoints(marker)[1][0], first)
    # The other list starts at its own first place and shows its map.
    ui.leastCertainButton.click()
    assert ui.worstLabel.text.startswith("1 of 5") and ui.previewModeComboBox.currentText == "Expected error"


def test_the_legend_is_drawn_in_the_view(main_window, views, widget, apply):
    import slicer
    from harness.pictures import settle

    apply()
    main_window.fit()
    ui = widget.ui
    ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findText("Volume change"))
    settle(0.2)
    shown = views["Red"].pixels().astype(int)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(widget.previewPanel.preview._jacobian)
    legend.SetVisibility(False)
    settle(0.2)
    assert (np.abs(views["Red"].pixels() - shown).max(-1) > 40).sum() > 500


def test_flicker_ends_when_the_module_is_left(main_window, views, widget, apply):
    apply()
    ui = widget.ui
    ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findText("Flicker"))
    widget.parent.exit()
    assert not widget.previewPanel._flickerTimer.isActive()
    widget.parent.enter()
    assert ui.previewModeComboBox.currentText == "Blend"


def test_nodes_placed_under_a_result_block_neither_preview_nor_apply(widget, apply):
    from SAMConvexLib import nodes

    fixed, moving, seg, points = apply()
    ui = widget.ui
    first = nodes.gridOfTransform(widget.parameters().outputTransform)[0].copy()
    carried = nodes.worldPoints(widget.parameters().outputMarkups)[1]
    ui.revertButton.click()
    ui.attachCheckBox.checked = True
    assert moving.GetParentTransformNode() is not None
    assert ui.applyButton.enabled and ui.reasonLabel.isHidden()
    ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findText("Checkerboard"))
    assert widget.previewPanel.preview is not None and ui.worstLabel.text == ""
    ui.applyButton.click()
    assert not ui.attachCheckBox.enabled
    wait_until(lambda: not widget.isRunning, 120)
    assert ui.statusLabel.text.startswith("Finished")
    assert [node.GetParentTransformNode() for node in (moving, seg, points)] == [None] * 3
    assert np.array_equal(nodes.gridOfTransform(widget.parameters().outputTransform)[0], first)
    assert np.allclose(nodes.worldPoints(widget.parameters().outputMarkups)[1], carried)


def test_a_script_registers_placed_nodes_from_where_they_came(widget, apply):
    from SAMConvexLib import nodes

    fixed, moving, _seg, points = apply()
    first = nodes.gridOfTransform(widget.parameters().outputTransform)[0].copy()
    carried = nodes.worldPoints(widget.parameters().outputMarkups)[1]
    widget.ui.revertButton.click()
    widget.ui.attachCheckBox.checked = True
    result = widget.logic.registerVolumes(fixed, moving, movingMarkups=points)
    assert np.array_equal(nodes.gridOfTransform(result.transformNode)[0], first)
    assert np.allclose(nodes.worldPoints(result.outputs.markups)[1], carried)


# --- batch ----------------------------------------------------------------------------------------------------------


def listed(widget):
    movingList = widget.ui.batchMovingList
    return [movingList.item(row).text() for row in range(movingList.count)]


def check_all(widget):
    from PySide6 import QtCore

    for row in range(widget.ui.batchMovingList.count):
        widget.ui.batchMovingList.item(row).setCheckState(QtCore.Qt.CheckState.Checked)


def volumes(build, widget, *names):
    array = build.smooth_array()
    geometry = build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape)
    made = [build.volume(name, array, geometry) for name in names]
    widget.ui.batchFixedSelector.setCurrentNode(made[0])
    return made


def test_the_batch_list_follows_the_scene(widget, build, scene):
    fixed, first, second = volumes(build, widget, "Fixed", "First", "Second")
    assert listed(widget) == ["First", "Second"]
    check_all(widget)
    scene.RemoveNode(first)
    assert listed(widget) == ["Second"] and widget.ui.batchApplyButton.enabled
    scene.RemoveNode(second)
    assert listed(widget) == [] and not widget.ui.batchApplyButton.enabled


def test_a_volume_removed_while_it_waits_is_named_and_the_others_are_registered(widget, build, scene):
    _fixed, first, second, _third = volumes(build, widget, "Fixed", "First", "Second", "Third")
    check_all(widget)
    widget.ui.batchApplyButton.click()
    scene.RemoveNode(second)
    wait_until(lambda: not widget.batchPanel.isRunning, 120)
    table = widget.ui.batchTable
    assert [table.item(row, 1).text() for row in range(3)] == ["done", "failed", "done"]
    assert "'Second'" in table.item(1, 4).text() and "removed" in table.item(1, 4).text()
    assert "#ffcd50" in widget.ui.batchStatusLabel.styleSheet
    # Results are no inputs.
    assert listed(widget) == ["First", "Third"]


def test_the_batch_table_holds_figures_and_the_whole_message(widget, build, main_window):
    volumes(build, widget, "Fixed", "First")
    check_all(widget)
    widget.ui.batchApplyButton.click()
    wait_until(lambda: not widget.batchPanel.isRunning, 120)
    table = widget.ui.batchTable
    titles = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    assert titles[5] == "Figures" and "folded 0.000 %" in table.item(0, 5).text()
    for column in range(len(titles)):
        assert table.item(0, column).toolTip() == table.item(0, column).text()
    assert table.columnWidth(4) == 260 and table.wordWrap


def test_a_walk_from_two_images_to_the_worst_place_and_back(main_window, views, widget, build, scene, tmp_path):
    """New scene, pair, Apply, verdict, worst place, save, reload, Revert: what a user clicks is on the screen."""
    import slicer
    from harness.pictures import settle
    from PySide6 import QtCore

    main_window.showModule("SAMConvexRegistration")
    main_window.resize(1366, 768)
    ui, area, clicks = widget.ui, main_window._scroll, []

    def click(button):
        settle(0.1)
        area.ensureWidgetVisible(button, 0, 0)
        settle(0.1)
        corner = button.mapTo(area.viewport(), QtCore.QPoint(0, 0))
        assert corner.x() >= 0 and corner.x() + button.size.width() <= area.viewport().size.width()
        assert 0 <= corner.y() <= area.viewport().size.height() - button.size.height()
        clicks.append(button.text)
        button.click()

    array = build.smooth_array()
    geometry = build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape)
    ui.fixedSelector.setCurrentNode(build.volume("Fixed", array, geometry))
    ui.movingSelector.setCurrentNode(build.volume("Moving", array, geometry))
    click(ui.applyButton)
    wait_until(lambda: widget.previewPanel.preview is not None, 120)
    assert "GOOD" in ui.verdictLabel.text and not ui.verdictLabel.isHidden()
    click(ui.worstButton)
    assert ui.worstLabel.text.startswith("1 of ")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert widget.parameters().outputTransform.GetName() == "Moving to Fixed" and "GOOD" in ui.verdictLabel.text
    # Nothing of the preview was saved; shown again, one click leads back.
    assert not slicer.util.getNodes("*preview*") and not ui.revertButton.enabled
    click(ui.worstButton)
    click(ui.revertButton)
    assert widget.previewPanel.preview is None and clicks == ["Apply", "Worst place", "Worst place", "Revert"]

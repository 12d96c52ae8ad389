"""The panel and the parameter node agree both ways; presets, sets, batch and preview are used as a user does."""

from __future__ import annotations

import numpy as np
import pytest
from harness import wait_until


@pytest.fixture
def pair(build, widget):
    array = build.smooth_array()
    fixed = build.volume("Fixed", array, build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape))
    moving = build.volume("Moving", array, build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape, (8, -13, 24)))
    widget.ui.fixedSelector.setCurrentNode(fixed)
    widget.ui.movingSelector.setCurrentNode(moving)
    return fixed, moving


@pytest.fixture
def registered(widget, pair, build):
    """A finished registration with a segmentation carried along and its expected error."""
    import slicer

    mask = slicer.util.arrayFromVolume(pair[1]) > 400
    seg = build.segmentation("Seg", pair[1], [("a", "Blob", (1.0, 0.0, 1.0), mask)])
    seg.GetDisplayNode().SetVisibility(False)
    widget.ui.errorCheckBox.checked = True
    widget.ui.movingSegmentationSelector.setCurrentNode(seg)
    widget.ui.applyButton.click()
    wait_until(lambda: not widget.isRunning, 120)
    # The result is shown in a pass of its own; the tests begin with the views as they were.
    wait_until(lambda: widget.ui.revertButton.enabled, 30)
    widget.ui.revertButton.click()
    return (*pair, seg)


CONTROLS = {
    "strength": ("strengthComboBox", "currentText", "Stiff (smoothest)", "STIFF"),
    "quality": ("qualityComboBox", "currentText", "Best", "BEST"),
    "device": ("deviceComboBox", "currentText", "CPU", "CPU"),
    "affine": ("affineComboBox", "currentText", "Body shape", "MOMENTS"),
    "features": ("featuresComboBox", "currentText", "SAM + MIND (CT)", "SAM_MIND"),
    "refinement": ("refinementComboBox", "currentText", "None", "NONE"),
    "threads": ("threadsSpinBox", "value", 3, 3),
    "maximumMemoryGib": ("memorySpinBox", "value", 2.5, 2.5),
    "seed": ("seedSpinBox", "value", 11, 11),
    "protection": ("protectionComboBox", "currentText", "Volume only", "VOLUME"),
    "symmetric": ("symmetricCheckBox", "checked", True, True),
    "wantInverse": ("inverseCheckBox", "checked", True, True),
    "wantTable": ("tableCheckBox", "checked", False, False),
}


def test_every_choice_of_features_and_refinement_says_when_to_take_it(widget):
    from PySide6 import QtCore
    from SAMConvexRegistrationLib import settings

    def check():
        for combo, kind in (("featuresComboBox", settings.Features), ("refinementComboBox", settings.Refinement)):
            combo = getattr(widget.ui, combo)
            shown = [
                (combo.itemText(row), combo.itemData(row, QtCore.Qt.ItemDataRole.ToolTipRole))
                for row in range(combo.count)
            ]
            assert shown == [(member.label(), member.explanation()) for member in kind]
            assert all(tip.endswith(".") and tip.count(". ") == 0 for _label, tip in shown)

    check()
    # Connecting another parameter set fills the lists anew.
    widget.ui.parameterSetSelector.setCurrentNode(widget.ui.parameterSetSelector.addNode())
    check()


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


def test_parameters_are_saved_and_loaded_with_the_scene(widget, pair, scene, tmp_path):
    import slicer

    widget.ui.strengthComboBox.setCurrentText("Stiff (smoothest)")
    widget.ui.threadsSpinBox.value = 3
    widget.ui.featuresComboBox.setCurrentText("MIND (any modality)")
    widget.ui.jacobianCheckBox.checked = True
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert widget.ui.fixedSelector.currentNode() is None
    assert widget.ui.threadsSpinBox.value == 0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    widget.parent.exit()
    widget.parent.enter()
    loaded = [
        n
        for n in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        if n.GetAttribute("ModuleName") == widget.moduleName
    ]
    widget.ui.parameterSetSelector.setCurrentNode(loaded[-1])
    assert widget.ui.fixedSelector.currentNode().GetName() == "Fixed"
    assert widget.ui.strengthComboBox.currentText == "Stiff (smoothest)"
    assert widget.ui.threadsSpinBox.value == 3 and widget.ui.jacobianCheckBox.checked
    assert widget.ui.featuresComboBox.currentText == "MIND (any modality)"
    assert widget.ui.applyButton.enabled


def test_parameter_sets_are_kept_apart(widget, pair):
    first = widget.parameters()
    widget.ui.threadsSpinBox.value = 3
    second = widget.ui.parameterSetSelector.addNode()
    if second is None:
        second = widget.ui.parameterSetSelector.currentNode()
    widget.ui.parameterSetSelector.setCurrentNode(second)
    assert widget.parameters().parameterNode is second
    assert widget.ui.threadsSpinBox.value == 0 and widget.ui.fixedSelector.currentNode() is None
    widget.ui.threadsSpinBox.value = 5
    assert first.threads == 3
    widget.ui.parameterSetSelector.setCurrentNode(first.parameterNode)
    assert widget.ui.threadsSpinBox.value == 3
    assert widget.ui.fixedSelector.currentNode() is pair[0]


def choose_preset(widget, text):
    combo = widget.ui.presetComboBox
    index = combo.findText(text)
    assert index >= 0, text
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def test_a_preset_is_chosen_saved_and_deleted(widget, answers, tmp_path, monkeypatch):
    from SAMConvexRegistrationLib import presets

    monkeypatch.setattr(presets, "userPresetFolder", lambda: tmp_path)
    choose_preset(widget, "MR and CT")
    assert widget.parameters().preset == "mr-ct"
    assert "MR and a CT" in widget.ui.presetDescriptionLabel.text
    widget.ui.strengthComboBox.setCurrentText("Flexible (follows detail)")
    widget.ui.featuresComboBox.setCurrentText("DNS (MR and CT, learned)")
    answers.expect("QInputDialog.getText", "Legs")
    widget.presetMenu.saveForUserAction.trigger()
    answers.expect("QInputDialog.getText", "Study 7")
    widget.presetMenu.saveInSceneAction.trigger()
    choose_preset(widget, "MR, brain")
    assert widget.ui.strengthComboBox.currentText == "Normal"
    assert widget.ui.featuresComboBox.currentText == "As the preset says"
    for name in ("Legs (mine)", "Study 7 (in the scene)"):
        choose_preset(widget, name)
        assert widget.parameters().preset == "mr-ct"
        assert widget.ui.strengthComboBox.currentText == "Flexible (follows detail)"
        assert widget.ui.featuresComboBox.currentText == "DNS (MR and CT, learned)"
        choose_preset(widget, "MR, brain")
    choose_preset(widget, "Legs (mine)")
    widget.presetMenu.deleteAction.trigger()
    assert widget.ui.presetComboBox.findText("Legs (mine)") < 0
    choose_preset(widget, "Study 7 (in the scene)")
    widget.presetMenu.deleteAction.trigger()
    assert widget.ui.presetComboBox.findText("Study 7 (in the scene)") < 0
    choose_preset(widget, "MR, brain")
    assert not widget.presetMenu.deleteAction.enabled


def test_edit_properties_of_a_result_opens_it_here(widget, registered):
    transform = widget.parameters().outputTransform
    widget.parameters().outputTransform = None
    assert widget.parent.nodeEditable(transform) > 0.5
    assert widget.parent.nodeEditable(registered[0]) == 0
    widget.parent.setEditedNode(transform)
    assert widget.ui.outputTransformSelector.currentNode() is transform


# --- preview --------------------------------------------------------------------------------------------------------


def choose_mode(widget, text):
    widget.ui.previewModeComboBox.setCurrentIndex(widget.ui.previewModeComboBox.findText(text))


def test_the_outline_lies_on_the_organ_in_the_rendered_slice(main_window, views, widget, registered):
    import slicer
    from harness.pictures import colored, settle

    fixed, moving, seg = registered
    slicer.util.setSliceViewerLayers(background=fixed)
    main_window.fit()
    choose_mode(widget, "Blend")
    widget.ui.blendSlider.value = 0
    settle(0.3)
    view = views["Red"]
    magenta = np.argwhere(colored(view.pixels(), (255, 0, 255), 80))
    assert len(magenta) > 100
    # Truth: the segmentation that the engine's transform carried to the fixed image, cut at this slice.
    warped = widget.parameters().outputSegmentation
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(warped, "a", fixed) > 0
    rows, columns = magenta[:, 0], magenta[:, 1]
    height = view.pixels().shape[0]
    ras_to_ijk = np.linalg.inv(np.array([[v for v in row] for row in matrix_of(fixed)]))
    edge = edges(mask)
    distances = []
    for row, column in zip(rows[::5], columns[::5], strict=True):
        ras = view.convertXYZToRAS((column, height - 1 - row, 0))
        i, j, k = (ras_to_ijk @ [*ras, 1.0])[:3]
        near = edge[int(round(k))]
        distances.append(np.sqrt(((near - [j, i]) ** 2).sum(1).min()) if len(near) else np.inf)
    assert np.percentile(distances, 95) < 2.0  # voxels


def matrix_of(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return [[matrix.GetElement(r, c) for c in range(4)] for r in range(4)]


def edges(mask):
    """Per slice, the (row, column) of mask voxels with a neighbor outside."""
    inner = mask.copy()
    for axis in (1, 2):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return [np.argwhere(slice_) for slice_ in mask & ~inner]


def test_every_mode_changes_the_picture_and_revert_brings_it_back(main_window, views, widget, registered):
    import slicer
    from harness.pictures import settle

    fixed, moving, seg = registered
    slicer.util.setSliceViewerLayers(background=moving)
    main_window.fit()
    settle(0.2)
    before = views["Red"].pixels().astype(int)
    pictures = {}
    for name in ("Blend", "Checkerboard", "Difference", "Volume change", "Expected error"):
        choose_mode(widget, name)
        settle(0.2)
        pictures[name] = views["Red"].pixels().astype(int)
        assert np.abs(pictures[name] - before).mean() > 0.5, name
    for one in pictures:
        for other in pictures:
            assert one == other or np.abs(pictures[one] - pictures[other]).mean() > 0.3, (one, other)
    choose_mode(widget, "Blend")
    settle(0.2)
    plain = views["Red"].pixels().astype(int)
    widget.ui.gridCheckBox.checked = True
    settle(0.2)
    assert np.abs(views["Red"].pixels() - plain).mean() > 0.5
    widget.ui.revertButton.click()
    settle(0.2)
    assert np.abs(views["Red"].pixels() - before).max() == 0
    assert widget.ui.previewModeComboBox.currentText == "Off" and not widget.ui.revertButton.enabled


def test_flicker_swaps_the_pictures_by_itself(main_window, views, widget, registered):
    choose_mode(widget, "Flicker")
    composite = views["Red"].mrmlSliceCompositeNode()
    seen = set()
    wait_until(lambda: seen.add(composite.GetForegroundOpacity()) or len(seen) == 2, 20)
    assert seen == {0.0, 1.0}
    choose_mode(widget, "Off")


def test_the_least_certain_place_is_shown_with_its_millimeters(main_window, views, widget, registered):
    widget.ui.leastCertainButton.click()
    assert widget.ui.previewModeComboBox.currentText == "Expected error"
    assert widget.ui.worstLabel.text == "1 of 5: nine of ten errors are below 9.0 mm"
    first = views["Red"].mrmlSliceNode().GetSliceOffset()
    widget.ui.leastCertainButton.click()
    assert widget.ui.worstLabel.text == "2 of 5: nine of ten errors are below 2.0 mm"
    assert views["Red"].mrmlSliceNode().GetSliceOffset() != first


def test_without_the_expected_error_the_panel_says_how_to_get_it(widget, registered):
    widget.parameters().outputError = None
    assert not widget.ui.leastCertainButton.enabled
    choose_mode(widget, "Expected error")
    assert "Check 'Expected error' among the outputs" in widget.ui.worstLabel.text
    assert widget.ui.previewModeComboBox.currentText == "Off"


def test_the_worst_place_is_shown_and_counted(main_window, views, widget, registered):
    widget.ui.worstButton.click()
    assert widget.ui.worstLabel.text.startswith("1 of")
    first = views["Red"].mrmlSliceNode().GetSliceOffset()
    widget.ui.worstButton.click()
    assert widget.ui.worstLabel.text.startswith("2 of")
    assert views["Red"].mrmlSliceNode().GetSliceOffset() != first
    widget.ui.revertButton.click()


def test_attach_and_revert_restore_the_users_parents(widget, registered, build):
    fixed, moving, seg = registered
    widget.ui.attachCheckBox.checked = True
    assert moving.GetParentTransformNode() is widget.parameters().outputTransform
    assert seg.GetParentTransformNode() is widget.parameters().outputTransform
    widget.ui.revertButton.click()
    assert moving.GetParentTransformNode() is None and seg.GetParentTransformNode() is None
    assert not widget.ui.attachCheckBox.checked


def test_the_preview_ends_when_a_node_goes(widget, registered, scene):
    choose_mode(widget, "Difference")
    assert widget.previewPanel.preview is not None
    scene.RemoveNode(registered[1])
    assert widget.previewPanel.preview is None
    assert widget.ui.previewModeComboBox.currentText == "Off"


def test_closing_the_scene_during_a_preview_is_safe(main_window, widget, registered, scene):
    choose_mode(widget, "Flicker")
    scene.Clear(0)
    assert widget.previewPanel.preview is None and not widget.ui.previewButton.enabled


# --- batch ----------------------------------------------------------------------------------------------------------


def test_the_batch_tab_registers_checked_volumes(widget, pair, build):
    import slicer

    ui = widget.ui
    ui.tabWidget.setCurrentIndex(1)
    build.volume("Later", build.smooth_array(), np.diag([2.0, 2.0, 2.0, 1.0]))
    ui.batchFixedSelector.setCurrentNode(pair[0])
    names = [ui.batchMovingList.item(row).text() for row in range(ui.batchMovingList.count)]
    assert names == ["Moving", "Later"]
    assert not ui.batchApplyButton.enabled
    from PySide6 import QtCore

    for row in range(2):
        ui.batchMovingList.item(row).setCheckState(QtCore.Qt.CheckState.Checked)
    ui.batchApplyButton.click()
    assert ui.batchApplyButton.text == "Cancel"
    wait_until(lambda: not widget.batchPanel.isRunning, 120)
    assert ui.batchStatusLabel.text == "2 of 2 pairs registered."
    assert [ui.batchTable.item(row, 1).text() for row in range(2)] == ["done", "done"]
    assert slicer.util.getNode("Later to Fixed") is not None


def test_the_batch_list_shows_the_verdict_of_every_pair(widget, pair):
    from PySide6 import QtCore

    ui = widget.ui
    ui.tabWidget.setCurrentIndex(1)
    ui.batchFixedSelector.setCurrentNode(pair[0])
    ui.batchMovingList.item(0).setCheckState(QtCore.Qt.CheckState.Checked)
    done = widget.logic.engineCommand
    widget.logic.engineCommand = lambda arguments: [
        word if word != "done" else "do-not-use" for word in done(arguments)
    ]
    ui.batchApplyButton.click()
    wait_until(lambda: not widget.batchPanel.isRunning, 120)
    cell = ui.batchTable.item(0, 2)
    assert cell.text() == "do not use" and cell.background().color().name() == "#ff5f50"
    assert ui.batchTable.horizontalHeaderItem(2).text() == "Verdict"
    assert ui.batchTable.item(0, 4).text().startswith("Bones do")


def test_the_batch_tab_runs_a_csv_and_explains_a_wrong_one(widget, build, tmp_path):
    import SimpleITK as sitk

    ui = widget.ui
    ui.batchSourceComboBox.setCurrentIndex(1)
    (tmp_path / "pairs.csv").write_text("fixed,moving\nmissing.nii,missing.nii\n")
    ui.batchCsvPathEdit.currentPath = str(tmp_path / "pairs.csv")
    ui.batchFolderButton.directory = str(tmp_path / "out")
    ui.batchApplyButton.click()
    assert "missing.nii" in ui.batchStatusLabel.text and not widget.batchPanel.isRunning
    sitk.WriteImage(sitk.GetImageFromArray(build.box_array()), str(tmp_path / "a.nii.gz"))
    (tmp_path / "out").mkdir()
    (tmp_path / "pairs.csv").write_text("fixed,moving\na.nii.gz,a.nii.gz\n")
    ui.batchApplyButton.click()
    wait_until(lambda: not widget.batchPanel.isRunning, 120)
    assert (tmp_path / "out" / "pair001" / "report.json").is_file()
    assert (tmp_path / "out" / "manifest.json").is_file()


# --- use without a mouse ----------------------------------------------------------------------------------------------


def test_the_tab_key_visits_the_controls_from_top_to_bottom(main_window, widget):
    from PySide6 import QtWidgets

    names = (
        "fixedSelector",
        "movingSelector",
        "presetComboBox",
        "strengthComboBox",
        "qualityComboBox",
        "deviceComboBox",
        "applyButton",
    )
    wanted = {getattr(widget.ui, name): name for name in names}
    start = current = widget.ui.fixedSelector
    visited = []
    while True:
        owner = current
        while owner is not None and owner not in wanted:
            owner = QtWidgets.QWidget.parentWidget(owner)
        if owner is not None and wanted[owner] not in visited:
            visited.append(wanted[owner])
        current = QtWidgets.QWidget.nextInFocusChain(current)
        if current is start:
            break
    assert visited == list(names)


def test_a_reload_takes_the_libraries_along(widget):
    import slicer
    from SAMConvexLib import job as before

    widget.onReload()
    from SAMConvexLib import job as after

    assert after is not before
    new = slicer.modules.SAMConvexRegistrationWidget
    assert new is not widget and new.ui.applyButton.text == "Apply"

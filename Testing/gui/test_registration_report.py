"""What a result looks like: its page in a window, green and magenta, side by side; a box as mask."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from harness import wait_until

SLICES = ("Red", "Yellow", "Green")


@pytest.fixture
def apply(widget, build):
    """A function that registers a pair with a preset; returns its nodes."""

    def run(preset="ct-inter-patient"):
        array = build.smooth_array()
        geometry = build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape)
        fixed, moving = build.volume("Fixed", array, geometry), build.volume("Moving", array, geometry)
        widget.ui.fixedSelector.setCurrentNode(fixed)
        widget.ui.movingSelector.setCurrentNode(moving)
        widget.presetMenu.choose("built-in:" + preset)
        widget.ui.applyButton.click()
        wait_until(lambda: widget.previewPanel.preview is not None, 120)
        return fixed, moving

    return run


def show(widget, mode):
    from harness.pictures import settle

    ui = widget.ui
    ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findData(mode))
    settle(0.2)


def test_the_report_page_is_shown_and_saved(main_window, widget, apply, answers, tmp_path, monkeypatch):
    ui = widget.ui
    assert not ui.reportButton.enabled
    apply()
    node = widget.parameters().outputReport
    assert node.GetClassName() == "vtkMRMLVectorVolumeNode" and ui.reportButton.enabled
    ui.reportButton.click()
    window = widget.previewPanel.reportWindow
    assert window.dialog.isVisible() and window.dialog.windowTitle == "Moving to Fixed report"
    answers.expect("QFileDialog.getSaveFileName", str(tmp_path / "page.png"))
    window.saveButton.click()
    page = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "page.png")))
    assert page.shape == (20, 60, 3) and page[5, 10].tolist() == [250, 20, 40] and (page > 0).sum() == 3
    answers.expect("QFileDialog.getSaveFileName", str(tmp_path / "no such folder" / "page.png"))
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", said.append)
    window.saveButton.click()
    assert len(said) == 1 and "no such folder" in said[0] and "could not be written" in said[0]
    window.dialog.close()
    # It is a page, not an image to register.
    assert node.GetID() not in [each.GetID() for each in ui.fixedSelector.nodes()]
    # A run without the page takes the button along.
    ui.outputReportSelector.setCurrentNode(None)
    assert not ui.reportButton.enabled


def test_what_only_one_image_shows_is_green_or_magenta(main_window, views, widget, apply, build):
    from SAMConvexRegistrationLib.preview import PreviewMode, RegistrationPreview

    def colors(preview):
        preview.show(PreviewMode.FUSION)
        picture = views["Red"].pixels().astype(int)
        preview.revert()
        assert np.abs(picture[..., 0] - picture[..., 2]).max() < 10
        return picture[..., 1] - picture[..., 0]

    fixed, moving = apply("rigid")
    transform = widget.parameters().outputTransform
    transform.SetAndObserveTransformFromParent(None)
    widget.ui.revertButton.click()
    slicer.util.setSliceViewerLayers(background=fixed, fit=True)
    alike = colors(RegistrationPreview(fixed, moving, transform))
    # Equally bright gives gray, up to the rounding of two color tables.
    assert np.abs(alike).max() < 40
    slicer.util.updateVolumeFromArray(moving, slicer.util.arrayFromVolume(moving)[:, :, ::-1].copy())
    apart = colors(RegistrationPreview(fixed, moving, transform))
    assert (apart > alike.max() + 20).sum() > 100 and (apart < alike.min() - 20).sum() > 100
    assert fixed.GetDisplayNode().GetColorNodeID() == "vtkMRMLColorTableNodeGrey"


def test_side_by_side_shows_the_same_place_and_one_click_leads_back(main_window, views, widget, apply):
    fixed, _moving = apply()
    layout = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    before = layout.GetViewArrangement()
    positions = [slicer.util.arrayFromVTKMatrix(views[name].mrmlSliceNode().GetSliceToRAS()) for name in SLICES]
    show(widget, "side-by-side")
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    left, right = views["Red"], views["Yellow"]
    assert left.mrmlSliceCompositeNode().GetBackgroundVolumeID() == fixed.GetID()
    standIn = widget.previewPanel.preview.movingStandIn
    assert right.mrmlSliceCompositeNode().GetBackgroundVolumeID() == standIn.GetID()
    assert all(view.mrmlSliceCompositeNode().GetForegroundVolumeID() is None for view in (left, right))
    sides = [slicer.util.arrayFromVTKMatrix(view.mrmlSliceNode().GetSliceToRAS()) for view in (left, right)]
    assert np.allclose(*sides) and all(view.pixels().max() > 60 for view in (left, right))
    assert all(view.mrmlSliceCompositeNode().GetLinkedControl() for view in (left, right))
    show(widget, "blend")
    assert layout.GetViewArrangement() == before
    show(widget, "side-by-side")
    widget.ui.revertButton.click()
    assert layout.GetViewArrangement() == before
    after = [slicer.util.arrayFromVTKMatrix(views[name].mrmlSliceNode().GetSliceToRAS()) for name in SLICES]
    assert all(np.allclose(*pair) for pair in zip(positions, after, strict=True))
    assert not left.mrmlSliceCompositeNode().GetLinkedControl()


def test_a_box_is_chosen_as_mask_and_kept_with_the_scene(widget, scene, tmp_path):
    box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    widget.ui.fixedMaskSelector.setCurrentNode(box)
    assert widget.parameters().fixedMask is box and widget.parameters().request().fixedMask is box
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    sets = [widget.logic.parametersOf(node) for node in widget.logic.getAllParameterNodes()]
    masks = [(each.fixedMask, each.movingMask) for each in sets if each.fixedMask is not None]
    assert [(fixed.GetName(), moving) for fixed, moving in masks] == [("Box", None)]

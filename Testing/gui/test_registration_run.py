"""Apply, Cancel and what follows, clicked as a user clicks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from harness import wait_until


@pytest.fixture
def pair(build, widget):
    """Fixed and moving volume, chosen in the panel."""
    array = build.smooth_array()
    fixed = build.volume("Fixed", array, build.centered(build.oblique(), array.shape))
    moving = build.volume("Moving", array, build.centered(build.oblique(degrees=-10), array.shape))
    widget.ui.fixedSelector.setCurrentNode(fixed)
    widget.ui.movingSelector.setCurrentNode(moving)
    return fixed, moving


def finish(widget, seconds=120):
    wait_until(lambda: not widget.isRunning, seconds)


def test_apply_says_what_is_missing(widget, build):
    assert not widget.ui.applyButton.enabled
    assert widget.ui.applyButton.toolTip == "Choose the fixed volume."
    node = build.volume("Only", build.box_array(), build.oblique())
    widget.ui.fixedSelector.setCurrentNode(node)
    assert widget.ui.applyButton.toolTip == "Choose the moving volume."
    widget.ui.movingSelector.setCurrentNode(node)
    assert "same" in widget.ui.applyButton.toolTip
    assert not widget.ui.applyButton.enabled


def test_apply_needs_at_least_one_output(widget, pair):
    for name in ("transform", "volume", "table"):
        getattr(widget.ui, name + "CheckBox").checked = False
    assert not widget.ui.applyButton.enabled and "output" in widget.ui.applyButton.toolTip
    widget.ui.jacobianCheckBox.checked = True
    assert widget.ui.applyButton.enabled


def test_a_run_fills_the_chosen_outputs_and_selects_them(widget, pair, scene):
    import slicer

    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Cancel"
    assert not widget.ui.inputsButton.enabled
    wait_until(lambda: widget.ui.progressBar.value >= 500, 120)
    assert not widget.ui.progressBar.isHidden()
    assert "Deforming" in widget.ui.statusLabel.text and "3 s left" in widget.ui.statusLabel.text
    finish(widget)
    parameters = widget.parameters()
    assert widget.ui.statusLabel.text.startswith("Finished")
    assert parameters.outputTransform.GetName() == "Moving to Fixed"
    assert widget.ui.outputTransformSelector.currentNode() is parameters.outputTransform
    assert parameters.outputVolume.GetName() == "Moving registered to Fixed"
    assert np.ptp(slicer.util.arrayFromVolume(parameters.outputVolume)) > 500
    assert parameters.outputTable.GetNumberOfRows() >= 2
    assert parameters.outputInverse is None and parameters.outputJacobian is None
    assert widget.ui.applyButton.text == "Apply" and widget.ui.applyButton.enabled
    assert widget.ui.inputsButton.enabled and widget.ui.progressBar.isHidden()
    assert widget.ui.previewButton.enabled and not widget.ui.previewButton.collapsed
    assert widget.ui.qualityTable.rowCount >= 2


@pytest.mark.parametrize(
    ("behavior", "word", "color"),
    [("good", "GOOD", "#78d696"), ("check", "CHECK", "#ffcd50"), ("do-not-use", "DO NOT USE", "#ff5f50")],
)
def test_the_verdict_stands_above_the_figures_by_color_and_word(widget, pair, behavior, word, color):
    ui = widget.ui
    assert ui.verdictLabel.isHidden()
    widget.behavior = behavior
    ui.applyButton.click()
    finish(widget)
    assert not ui.verdictLabel.isHidden() and not ui.qualityButton.collapsed
    assert f"<b>{word}</b>" in ui.verdictLabel.text and "&lt;not&gt;" in ui.verdictLabel.text
    assert color in ui.verdictLabel.styleSheet
    assert [ui.qualityTable.item(0, column).text() for column in (0, 2)] == ["Verdict", word.lower()]
    marked = widget.parameters().outputTransform.GetName().endswith(" (do not use)")
    assert marked == (behavior == "do-not-use")
    assert word.lower() in ui.statusLabel.text


def test_a_result_that_nobody_checked_is_gray(widget, pair):
    widget.ui.applyButton.click()
    finish(widget)
    assert "NOT CHECKED" in widget.ui.verdictLabel.text and "#c8c8c8" in widget.ui.verdictLabel.styleSheet
    assert widget.ui.qualityTable.item(0, 0).text() != "Verdict"
    widget.ui.outputTransformSelector.setCurrentNode(None)
    assert widget.ui.verdictLabel.isHidden()


def test_a_second_run_fills_the_same_nodes(widget, pair):
    widget.ui.applyButton.click()
    finish(widget)
    first = widget.parameters().outputTransform, widget.parameters().outputVolume
    widget.ui.applyButton.click()
    finish(widget)
    assert (widget.parameters().outputTransform, widget.parameters().outputVolume) == first


def test_everything_that_was_asked_for_is_carried_along(widget, pair, build):
    import slicer

    fixed, moving = pair
    mask = np.zeros((40, 44, 48), bool)
    mask[10:28, 12:30, 12:30] = True
    seg = build.segmentation("Organs", moving, [("a", "Liver", (1, 0, 0), mask)])
    other = build.segmentation("Truth", fixed, [("z", "Liver", (0, 1, 0), mask)])
    points = build.markups("Marks", [build.center_of(moving)])
    widget.ui.movingSegmentationSelector.setCurrentNode(seg)
    widget.ui.fixedSegmentationSelector.setCurrentNode(other)
    widget.ui.movingMarkupsSelector.setCurrentNode(points)
    widget.ui.inverseCheckBox.checked = True
    widget.ui.jacobianCheckBox.checked = True
    widget.ui.validityCheckBox.checked = True
    widget.ui.errorCheckBox.checked = True
    bones = build.segmentation("Bones", fixed, [("b", "Rib", (1, 1, 1), mask)])
    widget.ui.protectMaskSelector.setCurrentNode(bones)
    widget.ui.applyButton.click()
    finish(widget)
    parameters = widget.parameters()
    assert parameters.outputSegmentation.GetSegmentation().GetSegment("a").GetName() == "Liver"
    assert parameters.outputMarkups.GetNumberOfControlPoints() == 1
    assert parameters.outputInverse is not None and parameters.outputJacobian is not None
    assert parameters.outputValidity.IsA("vtkMRMLLabelMapVolumeNode")
    assert slicer.util.arrayFromVolume(parameters.outputError).max() == 9.0
    assert np.unique(slicer.util.arrayFromVolume(parameters.outputValidity)).tolist() == [0, 1]
    assert "Protected Rib could not be kept" in widget.ui.statusLabel.text
    texts = [widget.ui.qualityTable.item(row, 0).text() for row in range(widget.ui.qualityTable.rowCount)]
    assert "Dice, Liver" in texts and "Protected Rib, deformation taken out" in texts
    # There and back again.
    from SAMConvexLib import nodes

    start = build.center_of(fixed) + np.array([[3.0, 2.0, 1.0]])
    there = nodes.transformPoints(parameters.outputTransform.GetTransformFromParent(), start)
    back = nodes.transformPoints(parameters.outputInverse.GetTransformFromParent(), there)
    assert np.abs(there - start).max() > 0.9 and np.abs(back - start).max() < 0.3


def test_settings_reach_the_engine(widget, pair):
    from SAMConvexRegistrationLib import quality

    ui = widget.ui
    ui.presetComboBox.setCurrentIndex(ui.presetComboBox.findText("CT, follow-up"))
    ui.presetComboBox.activated.emit(ui.presetComboBox.currentIndex)
    ui.strengthComboBox.setCurrentText("Stiff (smoothest)")
    ui.protectionComboBox.setCurrentText("Volume only")
    ui.symmetricCheckBox.checked = True
    ui.featuresComboBox.setCurrentText("SAM + MIND (CT)")
    ui.refinementComboBox.setCurrentText("Adam (gradient descent)")
    ui.deviceComboBox.setCurrentText("CPU")
    ui.threadsSpinBox.value = 2
    ui.applyButton.click()
    finish(widget)
    arguments = " ".join(quality.reportOf(widget.parameters().outputTransform)["arguments"])
    for words in (
        "--preset ct-follow-up",
        "--strength stiff",
        "--protect-mode volume",
        "--symmetric",
        "--features sam+mind",
        "--refine adam",
        "--device cpu",
    ):
        assert words in arguments


def test_cancel_is_answered_within_a_second_and_changes_nothing(widget, pair, scene):
    widget.behavior = "slow"
    before = scene.GetNumberOfNodes()
    widget.ui.applyButton.click()
    wait_until(lambda: widget.ui.progressBar.value >= 500, 120)
    begin = time.monotonic()
    widget.ui.applyButton.click()
    assert widget.ui.applyButton.text == "Cancelling..." and not widget.ui.applyButton.enabled
    finish(widget, 5)
    assert time.monotonic() - begin < 1.0
    assert widget.ui.applyButton.text == "Apply" and widget.ui.applyButton.enabled
    assert "Cancelled" in widget.ui.statusLabel.text
    assert scene.GetNumberOfNodes() == before


@pytest.mark.parametrize(
    ("behavior", "sentence"),
    [("input", "'Moving' is constant"), ("crash", "ZeroDivisionError"), ("killed", "memory")],
)
def test_a_failure_is_told_in_the_panel_and_the_next_run_works(widget, pair, behavior, sentence):
    widget.behavior = behavior
    widget.ui.applyButton.click()
    finish(widget)
    assert sentence in widget.ui.statusLabel.text
    assert widget.ui.applyButton.enabled and widget.parameters().outputTransform is None
    widget.behavior = "done"
    widget.ui.applyButton.click()
    finish(widget)
    assert widget.parameters().outputTransform is not None


def test_closing_the_scene_in_the_middle_of_a_run_ends_it(widget, pair, scene):
    widget.behavior = "slow"
    widget.ui.applyButton.click()
    wait_until(lambda: widget.ui.progressBar.value >= 500, 120)
    scene.Clear(0)
    finish(widget, 5)
    assert widget.parameters() is not None and not widget.ui.applyButton.enabled
    assert widget.parameters().fixedVolume is None


def test_removing_an_input_in_the_middle_of_a_run_ends_it(widget, pair, scene):
    widget.behavior = "slow"
    widget.ui.applyButton.click()
    wait_until(lambda: widget.ui.progressBar.value >= 500, 120)
    scene.RemoveNode(pair[1])
    finish(widget, 5)
    assert "'Moving' was removed" in widget.ui.statusLabel.text


def test_leaving_the_module_keeps_the_run_going(widget, pair):
    parameters = widget.parameters()
    widget.ui.applyButton.click()
    widget.parent.exit()
    finish(widget)
    widget.parent.enter()
    assert widget.parameters().parameterNode is parameters.parameterNode
    assert widget.parameters().outputTransform is not None


def test_the_user_interface_stays_alive_during_a_run(widget, pair):
    """The longest pause between two passes of the event loop, from Apply to the imported result."""
    from PySide6 import QtCore

    widget.ui.applyButton.click()
    worst, last = 0.0, time.monotonic()
    while widget.isRunning:
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 10)
        now = time.monotonic()
        worst, last = max(worst, now - last), now
        time.sleep(0.002)
    assert worst < 0.5


def test_the_forecast_is_shown_before_the_run(widget, pair):
    wait_until(lambda: widget.ui.forecastLabel.text != "", 120)
    assert "75 s" in widget.ui.forecastLabel.text and "2.5 GiB" in widget.ui.forecastLabel.text


def test_the_forecast_knows_features_refinement_and_memory_limit(widget, pair):
    ui, label = widget.ui, widget.ui.forecastLabel
    wait_until(lambda: label.text != "", 120)
    plain = label.text
    for combo, time_ in ((ui.featuresComboBox, "2 min"), (ui.refinementComboBox, "2 min")):
        combo.setCurrentIndex(1)
        wait_until(lambda: label.text != "", 120)
        assert time_ in label.text and label.text != plain
        combo.setCurrentIndex(0)
        assert label.text == plain
    ui.memorySpinBox.value = 2.0
    assert "more than the limit of 2 GiB" in label.text and "2.5 GiB" in label.text
    ui.memorySpinBox.value = 3.0
    assert label.text == plain


def test_the_numbers_behind_a_strength_are_shown_beside_it(widget, pair):
    label = widget.ui.strengthNumbersLabel
    wait_until(lambda: label.text != "", 120)
    assert label.text == "coupling 0.04, smoothing passes 2"
    widget.ui.strengthComboBox.setCurrentText("Stiff (smoothest)")
    assert label.text == "coupling 0.16, smoothing passes 3, regularization 4"


def test_a_forecast_beyond_the_free_memory_warns():
    from SAMConvexRegistrationLib import forecast

    sentence = forecast.costSentence({"seconds": 600.0, "memory_gib": 12.0}, 7.5)
    assert "12.0 GiB" in sentence and "only 7.5 GiB" in sentence

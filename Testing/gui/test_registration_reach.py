"""What a user needs is on a small screen, and is said before the run."""

from __future__ import annotations

import numpy as np
import pytest
from harness import wait_until


def images(build, widget, fixed_air, moving_air):
    """A pair whose darkest values are the given ones, chosen in the panel."""
    array = build.smooth_array()
    matrix = build.centered(np.diag([-2.0, -2.0, 2.0, 1.0]), array.shape)
    pair = [
        build.volume(name, np.where(array < 50, air, array), matrix)
        for name, air in (("Fixed", fixed_air), ("Moving", moving_air))
    ]
    widget.ui.fixedSelector.setCurrentNode(pair[0])
    widget.ui.movingSelector.setCurrentNode(pair[1])
    return pair


def finish(widget):
    wait_until(lambda: not widget.isRunning, 120)


def on_screen(widget, window):
    """Whether all of a widget lies in the visible part of the module panel."""
    from PySide6 import QtCore

    area = window._scroll.viewport()
    top = widget.mapTo(area, QtCore.QPoint(0, 0)).y()
    return top >= 0 and top + widget.size.height() <= area.size.height()


def test_apply_and_the_reason_beside_it_are_visible_at_1366x768(main_window, widget, build):
    from harness.pictures import settle

    main_window.showModule("SAMConvexRegistration")
    main_window.resize(1366, 768)
    settle(0.2)
    ui = widget.ui
    assert ui.outputsButton.collapsed and ui.advancedButton.collapsed
    assert ui.reasonLabel.text == "Choose the fixed volume." and on_screen(ui.reasonLabel, main_window)
    assert on_screen(ui.applyButton, main_window) and on_screen(ui.revertButton, main_window)
    # With the longest hint above it as well.
    images(build, widget, 0, 0)
    settle(0.2)
    assert ui.reasonLabel.isHidden() and not ui.presetHintLabel.isHidden()
    assert ui.applyButton.enabled and on_screen(ui.applyButton, main_window)
    ui.tabWidget.setCurrentIndex(1)
    settle(0.2)
    assert on_screen(ui.batchApplyButton, main_window)


@pytest.mark.parametrize(
    ("fixed", "moving", "chosen", "offered"),
    [
        (0, 0, "CT, different patients", ["brain-mr", "mr-body"]),
        (-1000, 0, "CT, follow-up", ["mr-ct"]),
        (-1000, -1000, "MR, brain", ["ct-inter-patient", "ct-lung-breathing", "ct-follow-up", "ct-multiphase"]),
        (-1000, -1000, "CT, follow-up", []),
        (0, 0, "Affine", []),
    ],
)
def test_a_preset_for_other_images_is_said_before_apply(widget, build, fixed, moving, chosen, offered):
    ui = widget.ui
    images(build, widget, fixed, moving)
    index = ui.presetComboBox.findText(chosen)
    ui.presetComboBox.setCurrentIndex(index)
    ui.presetComboBox.activated.emit(index)
    assert ui.presetHintLabel.isHidden() == (not offered)
    assert [name for name in PRESETS if f'href="{name}"' in ui.presetHintLabel.text] == offered
    if offered:
        # A dark theme's links are light.
        assert ui.presetHintLabel.text.count("color:#141414") == len(offered)
        ui.presetHintLabel.linkActivated.emit(offered[-1])
        assert widget.parameters().preset == offered[-1] and ui.presetHintLabel.isHidden()


PRESETS = (
    "ct-inter-patient",
    "ct-lung-breathing",
    "ct-follow-up",
    "ct-multiphase",
    "mr-ct",
    "brain-mr",
    "mr-body",
    "rigid",
    "affine",
    "fast-preview",
)


def test_what_looks_like_a_ct_is_the_engines_rule(scene, build):
    pytest.importorskip("torch")
    import SimpleITK as sitk
    from samconvex.space.intensity import looks_like_ct
    from samconvex.space.volume import Volume
    from SAMConvexRegistrationLib import presets

    for air in (-1024, -500, -120, -99, 0):
        array = np.full((4, 4, 4), 50, np.int16)
        array[0] = air
        node = build.volume("V", array, np.eye(4))
        assert presets.looksLikeCt(node) == looks_like_ct(Volume.from_sitk(sitk.GetImageFromArray(array)))


@pytest.mark.parametrize(
    ("behavior", "color"), [("good", ""), ("check", "#ffcd50"), ("do-not-use", "#ff5f50"), ("input", "#ff5f50")]
)
def test_warnings_and_errors_do_not_look_like_success(widget, build, behavior, color):
    images(build, widget, -1000, -1000)
    widget.behavior = behavior
    widget.ui.applyButton.click()
    assert widget.ui.statusLabel.styleSheet == ""
    finish(widget)
    assert (color in widget.ui.statusLabel.styleSheet) and bool(color) == bool(widget.ui.statusLabel.styleSheet)


def test_messages_wrap_instead_of_pushing_controls_off_the_screen(repository):
    import xml.etree.ElementTree as ElementTree

    form = ElementTree.parse(repository / "SAMConvexRegistration" / "Resources" / "UI" / "SAMConvexRegistration.ui")
    checked = 0
    for label in form.getroot().iter("widget"):
        properties = {entry.get("name"): entry for entry in label.findall("property")}
        if label.get("class") == "QLabel" and not properties["text"].find("string").text:
            assert "wordWrap" in properties, label.get("name")
            checked += 1
    assert checked >= 8


def test_a_problem_is_forgotten_when_its_cause_goes(widget, build):
    fixed, moving = images(build, widget, -1000, -1000)
    widget.behavior = "input"
    widget.ui.applyButton.click()
    finish(widget)
    assert "is constant" in widget.ui.statusLabel.text
    other = build.volume("Other", build.smooth_array(), np.eye(4))
    widget.ui.movingSelector.setCurrentNode(other)
    assert widget.ui.statusLabel.text == "" and widget.ui.statusLabel.styleSheet == ""
    # A refusal before the run as well; what a run achieved stays.
    widget.ui.outputVolumeSelector.setCurrentNode(fixed)
    widget.ui.applyButton.click()
    assert "is an input" in widget.ui.statusLabel.text
    widget.ui.outputVolumeSelector.setCurrentNode(None)
    widget.behavior = "good"
    widget.ui.threadsSpinBox.value = 2
    assert widget.ui.statusLabel.text == ""
    widget.ui.applyButton.click()
    finish(widget)
    widget.ui.threadsSpinBox.value = 1
    assert widget.ui.statusLabel.text.startswith("Finished")


def test_maps_of_figures_are_not_offered_as_images(widget, build):
    fixed, moving = images(build, widget, -1000, -1000)
    ui = widget.ui
    ui.jacobianCheckBox.checked = True
    ui.errorCheckBox.checked = True
    ui.applyButton.click()
    finish(widget)
    registered = widget.parameters().outputVolume.GetName()
    for selector in (ui.fixedSelector, ui.movingSelector, ui.batchFixedSelector):
        assert [node.GetName() for node in selector.nodes()] == ["Fixed", "Moving", registered]
    assert ui.fixedSelector.currentNode() is fixed and ui.movingSelector.currentNode() is moving
    assert ui.outputErrorSelector.currentNode() is widget.parameters().outputError


def test_the_keyboard_stays_on_its_row_of_the_batch_list(widget, build):
    names = ("Fixed", "First", "Second", "Third")
    made = [build.volume(name, build.smooth_array(), np.eye(4)) for name in names]
    ui = widget.ui
    ui.batchFixedSelector.setCurrentNode(made[0])
    ui.batchMovingList.setCurrentRow(1)
    build.volume("Fourth", build.smooth_array(), np.eye(4))
    assert ui.batchMovingList.item(ui.batchMovingList.currentRow).text() == "Second"


def test_words_are_the_users(repository, scene):
    from SAMConvexRegistrationLib import quality

    form = (repository / "SAMConvexRegistration" / "Resources" / "UI" / "SAMConvexRegistration.ui").read_text(
        encoding="utf-8"
    )
    assert "<string>Flexibility:</string>" in form and "Strength:" not in form
    # The numbers behind it are for experts.
    assert form.index('name="advancedButton"') < form.index('name="strengthNumbersLabel"')
    report = {"sdlogj": 0.3, "inverse_consistency_mm": {"mean": 0.1, "p95": 0.2}}
    texts = [row[0] for row in quality.tableRows(report)]
    assert texts[0].startswith("Smoothness (usual: ")
    assert texts[1:] == ["There-and-back error, mean", "There-and-back error, 95th percentile"]

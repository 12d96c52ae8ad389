"""An unmodified scripted module loads, is connected with its parameter node, and can be clicked."""

from pathlib import Path

import numpy as np
import pytest
from harness import wait_until

EXAMPLE = Path(__file__).parent / "data" / "HarnessExample" / "HarnessExample.py"


@pytest.fixture
def widget(load_scripted_module):
    return load_scripted_module(EXAMPLE)


@pytest.fixture
def ramp(scene):
    import slicer

    values = np.broadcast_to(np.arange(20.0, dtype=np.float32), (10, 15, 20)).copy()
    return slicer.util.addVolumeFromArray(values, name="Ramp")


def test_module_is_known_to_slicer(widget):
    import slicer

    assert slicer.modules.harnessexample.title == "Harness example"
    assert slicer.modules.HarnessExampleWidget is widget
    assert slicer.util.getModuleWidget("HarnessExample") is widget
    assert slicer.util.getModuleLogic("HarnessExample") is widget.logic
    assert slicer.util.modulePath("HarnessExample") == str(EXAMPLE)
    assert "HarnessExample" in slicer.util.moduleNames()


def test_ui_file_becomes_widgets(widget):
    assert widget.ui.applyButton.text == "Apply"
    assert widget.ui.thresholdSlider.suffix == " HU"
    assert widget.ui.advancedButton.collapsed
    assert list(widget.ui.inputSelector.nodeTypes) == ["vtkMRMLScalarVolumeNode"]
    assert widget.ui.unknownWidget.className() == "ctkUnheardOfWidget"


def test_selector_follows_scene(widget, ramp):
    import slicer

    selector = widget.ui.inputSelector
    assert not widget.ui.applyButton.enabled
    selector.setCurrentNode(ramp)
    assert widget._parameterNode.inputVolume is ramp
    assert widget.ui.applyButton.enabled
    slicer.mrmlScene.RemoveNode(ramp)
    assert selector.currentNode() is None
    assert not widget.ui.applyButton.enabled


def test_gui_and_parameter_node_agree_both_ways(widget):
    import HarnessExample

    node, ui = widget._parameterNode, widget.ui
    node.threshold = 42.5
    assert ui.thresholdSlider.value == 42.5
    ui.thresholdSlider.value = 7.0
    assert node.threshold == 7.0
    node.side = HarnessExample.Side.BELOW
    assert ui.sideComboBox.currentText == "Keep what is below"
    ui.sideComboBox.currentIndex = 0
    assert node.side is HarnessExample.Side.ABOVE
    ui.methodComboBox.setCurrentText("fast")
    assert node.method == "fast"
    ui.verboseCheckBox.checked = True
    assert node.verbose is True
    ui.titleLineEdit.text = "changed"
    assert node.title == "changed"
    ui.folderPath.currentPath = "/tmp"
    assert str(node.folder) == "/tmp"
    ui.lowSpinBox.value = 5
    assert node.range.low == 5
    node.range.low = 1
    assert ui.lowSpinBox.value == 1


def test_apply_is_clicked(widget, ramp, app):
    import slicer
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    widget.ui.inputSelector.setCurrentNode(ramp)
    widget.ui.thresholdSlider.value = 9.5
    QTest.mouseClick(widget.ui.applyButton, QtCore.Qt.MouseButton.LeftButton)
    result = widget.ui.outputSelector.currentNode()
    assert result.GetName() == "Result"
    assert slicer.util.arrayFromVolume(result).sum() == 10 * 15 * 10
    wait_until(lambda: widget.ui.statusLabel.text == "Done")


def test_dialog_gets_its_answer(widget, answers):
    answers.expect("QInputDialog.getText", "Liver")
    widget.ui.nameButton.click()
    assert widget._parameterNode.title == "Liver"
    assert answers.opened == [("QInputDialog.getText", "Name Name of the result:")]


def test_scene_close_resets_panel(widget, ramp):
    import slicer

    widget._parameterNode.title = "before"
    widget.ui.inputSelector.setCurrentNode(ramp)
    slicer.mrmlScene.Clear(0)
    assert widget._parameterNode.title == "example"
    assert widget.ui.titleLineEdit.text == "example"


def test_exit_disconnects_panel(widget):
    node = widget._parameterNode
    widget.parent.exit()
    widget.ui.titleLineEdit.text = "unseen"
    assert node.title == "example"


def test_parameters_survive_saving(widget, ramp, tmp_path):
    import slicer

    node = widget._parameterNode
    node.inputVolume = ramp
    node.names = ["a", "b"]
    node.names.append("c")
    node.extraVolumes = [ramp]
    node.limit = 4
    node.range.high = 9
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    loaded = widget.logic.getParameterNode()
    assert loaded.inputVolume.GetName() == "Ramp"
    assert list(loaded.names) == ["a", "b", "c"]
    assert [n.GetName() for n in loaded.extraVolumes] == ["Ramp"]
    assert loaded.limit == 4
    assert (loaded.range.low, loaded.range.high) == (2, 9)


def test_wrong_values_are_refused(widget):
    node = widget._parameterNode
    for name, value in (
        ("threshold", 101.0),
        ("count", "three"),
        ("count", 0),
        ("method", "other"),
        ("inputVolume", 3),
    ):
        with pytest.raises((ValueError, TypeError)):
            setattr(node, name, value)


def test_sample_data_are_registered(widget):
    import SampleData

    assert SampleData.SampleDataLogic().clickButton("Ramp")[0].GetName() == "Ramp"


def test_self_test_runs(widget):
    import slicer

    slicer.selfTests["HarnessExample"](msec=0)


def test_module_reloads(widget):
    import slicer

    slicer.util.reloadScriptedModule("HarnessExample")
    assert slicer.modules.HarnessExampleWidget is not widget
    assert slicer.modules.HarnessExampleWidget.ui.applyButton.text == "Apply"


def test_typing_errors_on_widgets_are_refused(widget):
    with pytest.raises(AttributeError, match="'enabeld' does not exist on QPushButton"):
        widget.ui.applyButton.enabeld = True

"""``import qt`` and ``import ctk`` give what PythonQt gives in Slicer."""

import pytest

pytestmark = pytest.mark.usefixtures("scene")


def test_properties_are_attributes():
    import qt

    box = qt.QDoubleSpinBox()
    box.maximum = 5.0
    box.value = 4.5
    box.suffix = " mm"
    assert (box.value, box.maximum, box.text, box.enabled) == (4.5, 5.0, "4.50 mm", True)
    with pytest.raises(TypeError):
        box.value()
    table = qt.QTableWidget(2, 3)
    assert (table.rowCount, table.columnCount) == (2, 3)
    table.rowCount = 4
    assert table.rowCount == 4
    with pytest.raises(AttributeError):
        qt.QComboBox().count = 3


def test_names_and_classes():
    import qt

    button = qt.QPushButton("Go")
    button.name = "goButton"
    assert (button.name, button.objectName, button.className()) == ("goButton", "goButton", "QPushButton")


def test_signals_connect_by_name_and_as_attributes():
    import qt

    box, calls = qt.QCheckBox(), []
    box.connect("toggled(bool)", calls.append)
    box.toggled.connect(calls.append)
    box.checked = True
    assert calls == [True, True]
    box.disconnect("toggled(bool)", calls.append)
    box.checked = False
    assert calls == [True, True, False]
    with pytest.raises(ValueError, match="no signal"):
        box.connect("currentIndexChanged(QString)", calls.append)


def test_enumerations_are_integers():
    import qt

    states = []
    box = qt.QCheckBox()
    box.connect("stateChanged(int)", lambda state: states.append(state == qt.Qt.Checked))
    box.checked = True
    assert states == [True] and qt.QMessageBox.Yes == 16384
    item = qt.QTableWidgetItem("text")
    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
    assert not item.flags() & qt.Qt.ItemIsEditable


def test_static_functions_of_property_names_stay():
    import qt
    from harness import wait_until

    fired = []
    qt.QTimer.singleShot(0, lambda: fired.append(1))
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.interval = 1
    timer.connect("timeout()", lambda: fired.append(2))
    timer.start()
    wait_until(lambda: len(fired) == 2)
    assert sorted(fired) == [1, 2] and not timer.active


def test_children_are_found_by_class_name():
    import qt

    parent = qt.QWidget()
    label = qt.QLabel("a", parent)
    label.name = "first"
    qt.QLabel("b", parent)
    assert len(parent.findChildren("QLabel")) == 2 == len(parent.findChildren(qt.QLabel))
    assert parent.findChild("QLabel", "first") is label
    assert parent.findChildren(qt.QLabel, "first") == [label]


def test_input_dialog_answers_like_pythonqt(answers):
    import PythonQt
    import qt

    ok = PythonQt.BoolResult()
    answers.expect("QInputDialog.getText", "name")
    assert qt.QInputDialog.getText(None, "Title", "Label", qt.QLineEdit.Normal, "old", ok) == "name" and ok
    answers.expect("QFileDialog.getOpenFileName", "/a/b.nrrd")
    assert qt.QFileDialog.getOpenFileName(None, "Open", "", "*") == "/a/b.nrrd"


def test_slider_widget_keeps_slider_and_box_together():
    import ctk

    slider, values = ctk.ctkSliderWidget(), []
    slider.connect("valueChanged(double)", values.append)
    slider.minimum, slider.maximum, slider.singleStep, slider.decimals = 0.0, 10.0, 0.5, 1
    slider.value = 2.5
    assert slider.slider().value == 250 and slider.spinBox().value == 2.5
    slider.slider().value = 730
    assert slider.value == 7.5
    slider.spinBox().value = 20.0
    assert slider.value == 10.0
    assert values == [2.5, 7.5, 10.0]
    slider.value = 10.0
    assert len(values) == 3


def test_collapsible_button_hides_and_shows_its_contents(app):
    import ctk
    import qt
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    section = ctk.ctkCollapsibleButton()
    section.text = "Advanced"
    layout = qt.QVBoxLayout(section)
    shown, hidden = qt.QLabel("shown"), qt.QLabel("hidden by the module")
    layout.addWidget(shown)
    layout.addWidget(hidden)
    hidden.visible = False
    section.show()
    changes = []
    section.connect("contentsCollapsed(bool)", changes.append)
    assert shown.visible and not hidden.visible
    QTest.mouseClick(section, QtCore.Qt.MouseButton.LeftButton, pos=QtCore.QPoint(20, 10))
    assert section.collapsed and not shown.visible
    section.collapsed = False
    assert shown.visible and not hidden.visible
    assert changes == [True, False]


def test_node_selector_creates_renames_and_deletes(answers):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLTransformNode"]
    selector.noneEnabled, selector.renameEnabled, selector.baseName = True, True, "Registration"
    selector.setMRMLScene(slicer.mrmlScene)
    box, changed = selector.comboBox(), []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: changed.append(node and node.GetName()))
    texts = [box.itemText(i) for i in range(box.count)]
    assert texts == ["None", "", "Create new Transform", "Rename current Transform…", "Delete current Transform"]
    box.activated.emit(2)
    assert selector.currentNode().GetName() == "Registration"
    answers.expect("QInputDialog.getText", "Renamed")
    box.activated.emit(box.findText("Rename current Transform…"))
    assert selector.currentNode().GetName() == "Renamed" and box.currentText == "Renamed"
    box.activated.emit(box.findText("Delete current Transform"))
    assert selector.currentNode() is None and slicer.mrmlScene.GetFirstNodeByName("Renamed") is None
    assert changed == ["Registration", None]


def test_node_selector_filters():
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.noneEnabled = True
    selector.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    for kind, name in (("ScalarVolume", "ct"), ("LabelMapVolume", "labels"), ("Model", "surface")):
        slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", name)
    assert [node.GetName() for node in selector.nodes()] == ["ct"]
    selector.showChildNodeTypes = False
    selector.addAttribute("vtkMRMLScalarVolumeNode", "Phase", "inhale")
    assert selector.nodeCount() == 0
    slicer.util.getNode("ct").SetAttribute("Phase", "inhale")
    assert selector.nodeCount() == 1


def test_node_selector_without_none_always_chooses():
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLModelNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    first = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "a")
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "b")
    assert selector.currentNode() is first
    slicer.mrmlScene.RemoveNode(first)
    assert selector.currentNode() is second


def test_path_widgets(answers, tmp_path):
    import ctk

    line, paths = ctk.ctkPathLineEdit(), []
    line.connect("currentPathChanged(QString)", paths.append)
    line.currentPath = str(tmp_path)
    assert line.currentPath == str(tmp_path) and paths[-1] == str(tmp_path)
    button = ctk.ctkDirectoryButton()
    button.connect("directoryChanged(QString)", paths.append)
    answers.expect("QFileDialog.getExistingDirectory", str(tmp_path / "new"))
    button.browse()
    assert button.directory == str(tmp_path / "new") == paths[-1]


def test_unknown_widget_classes_are_placeholders():
    import ctk
    import slicer

    assert type(ctk.ctkNobodyKnows()).__name__ == "ctkNobodyKnows"
    slicer.qMRMLNobodyKnowsWidget().setMRMLScene(slicer.mrmlScene)
    assert not hasattr(slicer, "vtkMRMLNobodyKnowsNode")


def test_calls_leave_the_reference_count_of_none_alone():
    """PySide6 6.12.0 on Python before 3.12 takes one away with every call, until the process aborts."""
    import sys

    import qt

    label = qt.QLabel()
    before = sys.getrefcount(None)
    for index in range(500):
        label.setText(str(index))
    assert abs(sys.getrefcount(None) - before) < 100

"""The stand-in is as strict as Slicer about parameter nodes, selectors, scenes and "Edit properties"."""

import gc
import sys
import weakref
from typing import Annotated, Optional

import pytest
from harness.modules import module_file


@pytest.fixture
def wrapper_class(scene):
    from slicer import vtkMRMLScalarVolumeNode
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        volume: Optional[vtkMRMLScalarVolumeNode]  # noqa: UP045 - as modules write it
        names: list[str]
        pairs: dict[str, int]
        count: Annotated[int, WithinRange(0, 9)]

    return Parameters


@pytest.fixture
def node(scene):
    return scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


def test_values_are_stored_under_slicers_names(wrapper_class, node, scene):
    parameters = wrapper_class(node)
    assert node.GetParameter("volume.1") == "True" and not node.HasParameter("volume.0")
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    parameters.volume, parameters.names, parameters.pairs = volume, ["a", "b"], {"k": 3}
    assert node.GetNodeReference("volume.0") is volume and not node.HasParameter("volume.1")
    assert node.GetParameter("names.len") == "2" and node.GetParameter("names.1") == "b"
    assert (node.GetParameter("pairs.0.0"), node.GetParameter("pairs.0.1")) == ("k", "3")


def test_values_are_cached_until_the_node_says_that_it_was_modified(wrapper_class, node):
    parameters = wrapper_class(node)
    assert parameters.isCached("count")
    wasModified = node.StartModify()
    node.SetParameter("count", "5")
    assert parameters.count == 0
    node.EndModify(wasModified)
    assert parameters.count == 5


def test_every_wrapper_that_lives_reads_the_node_at_every_change(wrapper_class, node, monkeypatch):
    from slicer.parameterNodeWrapper import wrapper

    read = []
    load = wrapper._Parameter._load
    monkeypatch.setattr(wrapper._Parameter, "_load", lambda self: read.append(self) or load(self))
    wrappers = [wrapper_class(node) for _ in range(3)]
    read.clear()
    node.SetParameter("count", "5")
    assert len(read) == 3 * 4
    del wrappers[1:]
    read.clear()
    node.SetParameter("count", "6")
    assert len(read) == 4


@pytest.mark.parametrize("old", [False, True])
def test_disconnecting_leaves_the_observer_in_5_10_only(wrapper_class, node, monkeypatch, old):
    import qt
    from slicer.parameterNodeWrapper import wrapper

    monkeypatch.setattr(wrapper, "disconnectLeavesObserver", old)
    box = qt.QSpinBox()
    parameters = wrapper_class(node)
    alive = weakref.ref(parameters)
    parameters.disconnectGui(parameters.connectParametersToGui({"count": box}))
    del parameters
    gc.collect()
    assert (alive() is not None) == old
    node.SetParameter("count", "5")
    assert box.value == 0


def test_a_selector_keeps_no_python_object_of_a_node(scene):
    import slicer

    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    before = sys.getrefcount(volume)
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    selector.setCurrentNode(volume)
    assert selector.currentNode() is volume
    assert sys.getrefcount(volume) == before
    selector.setMRMLScene(None)


UI = """<ui version="4.0"><class>Panel</class><widget class="qMRMLWidget" name="Panel">
<layout class="QVBoxLayout" name="l"><item><widget class="qMRMLNodeComboBox" name="told"/></item>
<item><widget class="qMRMLNodeComboBox" name="untold"/></item>
</layout></widget><connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>{receiver}</receiver><slot>{slot}(vtkMRMLScene*)</slot></connection></connections></ui>"""


def load_ui(path, receiver="told", slot="setMRMLScene"):
    import slicer

    path.write_text(UI.format(receiver=receiver, slot=slot))
    return slicer.util.loadUI(str(path))


def test_a_scene_reaches_the_widgets_that_the_ui_file_connects(scene, tmp_path):
    import slicer

    panel = load_ui(tmp_path / "Panel.ui")
    panel.setMRMLScene(scene)
    ui = slicer.util.childWidgetVariables(panel)
    assert ui.told.mrmlScene() is scene
    assert ui.untold.mrmlScene() is None
    panel.setMRMLScene(None)


@pytest.mark.parametrize("wrong", [{"receiver": "nobody"}, {"slot": "setScene"}])
def test_a_connection_that_slicer_could_not_make_is_an_error(scene, tmp_path, wrong):
    with pytest.raises(ValueError, match="the .ui file connects"):
        load_ui(tmp_path / "Panel.ui", **wrong)


class Recorder:
    """A panel that notes in which order it is called."""

    def __init__(self, panel, answer=0.9):
        self.calls, self.answer = [], answer
        for name in ("enter", "exit", "nodeEditable", "setEditedNode"):
            setattr(panel, name, getattr(self, name))

    def enter(self):
        self.calls.append("enter")

    def exit(self):
        pass

    def nodeEditable(self, node):
        self.calls.append("nodeEditable")
        return self.answer

    def setEditedNode(self, node, role, context):
        self.calls.append("setEditedNode")
        return True


@pytest.fixture
def recorder(main_window, load_scripted_module):
    load_scripted_module(module_file("SAMLandmark"), enter=False)
    import slicer

    return Recorder(slicer.util.getModuleWidget("SAMLandmark"))


def test_the_node_is_handed_over_before_the_module_is_entered(recorder, node, app):
    app.openNodeModule(node)
    assert recorder.calls == ["nodeEditable", "setEditedNode", "enter"]


def test_a_module_is_asked_for_its_associated_node_types_only(recorder, node, app):
    import slicer

    slicer.modules.samlandmark.associatedNodeTypes = ["vtkMRMLTextNode"]
    assert app.nodeModule(node) == "Data"
    assert recorder.calls == []


def test_an_integer_is_no_confidence(recorder, node, app):
    recorder.answer = 1
    with pytest.raises(TypeError, match="must return a float"):
        app.nodeModule(node)


def test_a_scene_that_replaces_another_is_closed_and_loaded_in_one_batch(scene, tmp_path):
    import slicer

    for name in ("scene.mrml", "scene.mrb"):
        assert slicer.util.saveScene(str(tmp_path / name))
        seen = []
        tag = scene.AddObserver(
            scene.EndCloseEvent, lambda caller, event, seen=seen: seen.append(caller.IsBatchProcessing())
        )
        slicer.util.loadScene(str(tmp_path / name), {"clear": True})
        scene.RemoveObserver(tag)
        assert seen == [1]

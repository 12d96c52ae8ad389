"""Which parameter set a panel shows through visits, "Edit properties", deleting, closing and loading of scenes."""

import gc

import numpy as np
import pytest
from harness.modules import module_file

MODULES = ("SAMConvexRegistration", "SAMLandmark")


@pytest.fixture
def widget(load_scripted_module):
    return load_scripted_module(module_file("SAMConvexRegistration"))


@pytest.fixture(params=MODULES)
def either_widget(request, load_scripted_module):
    return load_scripted_module(module_file(request.param))


def visit_another_module(widget):
    widget.parent.exit()
    widget.parent.enter()


def observers(node):
    """How many observers a node has. VTK numbers them, and never gives a number twice."""
    last = node.AddObserver("ModifiedEvent", lambda caller, event: None)
    node.RemoveObserver(last)
    return sum(node.GetCommand(tag) is not None for tag in range(1, last))


def parameter_sets(widget):
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    return [node for node in nodes if node.GetAttribute("ModuleName") == widget.moduleName]


def result_transform(scene, name="Result"):
    from SAMConvexRegistrationLib.quality import REPORT_ATTRIBUTE

    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    transform.SetAttribute(REPORT_ATTRIBUTE, '{"preset": "balanced"}')
    return transform


# --- one wrapper a node, no observer left behind ------------------------------------------------------------------


def test_visits_keep_one_wrapper_and_its_observers(either_widget):
    parameters = either_widget.parameters()
    before = observers(parameters.parameterNode)
    assert before > 10  # every cached value has one
    for _ in range(5):
        visit_another_module(either_widget)
    assert either_widget.parameters() is parameters
    assert observers(parameters.parameterNode) == before


def test_visits_leave_no_observer_in_slicer_5_10(slicer_5_10, either_widget):
    node = either_widget.parameters().parameterNode
    before = observers(node)
    for _ in range(5):
        visit_another_module(either_widget)
    assert observers(node) == before


@pytest.mark.parametrize("name", MODULES)
def test_a_reload_leaves_no_observer_in_slicer_5_10(slicer_5_10, load_scripted_module, name):
    """One that is left calls freed memory as soon as Python collected it: 5.10 crashed."""
    import slicer

    node = load_scripted_module(module_file(name)).parameters().parameterNode
    before = observers(node)
    for reloads in (1, 2):
        slicer.util.getModuleWidget(name).onReload()
        gc.collect()
        # Slicer hides the old panel, it does not delete it: its selector of parameter sets goes on listing the node.
        listing = reloads if name == "SAMConvexRegistration" else 0
        assert observers(node) == before + listing
    node.SetParameter("unknown", "changed")


def test_the_logic_and_the_panel_share_the_wrapper(either_widget):
    assert either_widget.logic.getParameterNode() is either_widget.parameters()
    assert either_widget.logic.getParameterNode() is either_widget.logic.getParameterNode()


def test_the_first_parameter_reaches_its_control_when_the_node_is_changed(load_scripted_module, scene):
    """VTK calls the first observer of a node last: the wrapper's of its first parameter."""
    import slicer

    widget = load_scripted_module(module_file("SAMLandmark"))
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    node = widget.parameters().parameterNode
    seen = []
    widget.landmarkPanel.parametersChanged = lambda: seen.append(widget.parameters().templateVolume)
    with slicer.util.NodeModify(node):
        node.SetParameter("templateVolume.0", "")
        node.SetNodeReferenceID("templateVolume.0", volume.GetID())
    assert widget.ui.templateVolumeSelector.currentNode() is volume
    assert seen == [volume]


# --- the chosen set -----------------------------------------------------------------------------------------------


def test_the_chosen_set_survives_a_change_of_module(widget):
    second = widget.ui.parameterSetSelector.addNode()
    widget.ui.threadsSpinBox.value = 5
    visit_another_module(widget)
    assert widget.parameters().parameterNode is second
    assert widget.ui.parameterSetSelector.currentNode() is second
    assert widget.ui.threadsSpinBox.value == 5


@pytest.mark.parametrize("entered", [True, False])
def test_deleting_the_only_set_shows_one_of_the_scene(widget, scene, entered):
    widget.ui.threadsSpinBox.value = 5
    removed = widget.parameters().parameterNode
    if not entered:
        widget.parent.exit()
    scene.RemoveNode(removed)
    if not entered:
        widget.parent.enter()
    shown = widget.parameters().parameterNode
    assert shown is not removed and scene.IsNodePresent(shown)
    assert widget.ui.parameterSetSelector.currentNode() is shown
    assert widget.ui.threadsSpinBox.value == 0
    widget.ui.threadsSpinBox.value = 7
    assert widget.parameters().threads == 7 and removed.GetParameter("threads") == "5"


def test_deleting_a_set_shows_another(widget, scene):
    first = widget.parameters().parameterNode
    second = widget.ui.parameterSetSelector.addNode()
    scene.RemoveNode(second)
    assert widget.parameters().parameterNode is first
    assert parameter_sets(widget) == [first]


# --- loading ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(widget, scene, tmp_path):
    """A scene file with one parameter set, of 5 threads; the panel shows the new set of a closed scene."""
    import slicer

    path = str(tmp_path / "scene.mrb")
    widget.ui.threadsSpinBox.value = 5
    assert slicer.util.saveScene(path)
    scene.Clear(0)
    assert widget.ui.threadsSpinBox.value == 0
    return path


@pytest.mark.parametrize("clear", [True, False])
@pytest.mark.parametrize("entered", [True, False])
def test_a_loaded_scene_shows_its_parameters(widget, saved, clear, entered):
    import slicer

    if not entered:
        widget.parent.exit()
    slicer.util.loadScene(saved, {"clear": clear})
    if not entered:
        widget.parent.enter()
    assert widget.ui.threadsSpinBox.value == 5
    assert parameter_sets(widget) == [widget.parameters().parameterNode]
    assert widget.ui.parameterSetSelector.currentNode() is widget.parameters().parameterNode


@pytest.mark.parametrize("change", ["value", "name", "reference"])
def test_adding_a_scene_keeps_a_set_that_was_changed(widget, saved, scene, change):
    import slicer

    own = widget.parameters().parameterNode
    if change == "value":
        widget.ui.threadsSpinBox.value = 2
    elif change == "name":
        own.SetName("Mine")
    else:
        widget.parameters().initialTransform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    slicer.util.loadScene(saved, {"clear": False})
    assert widget.parameters().parameterNode is own
    assert len(parameter_sets(widget)) == 2


def test_a_loaded_scene_shows_its_parameters_in_landmarks(load_scripted_module, scene, tmp_path):
    import slicer

    widget = load_scripted_module(module_file("SAMLandmark"))
    widget.parameters().minimumScore = 0.25
    volumes = [slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16), name=name) for name in ("First", "Second")]
    widget.parameters().templateVolume, widget.parameters().queryVolumes = volumes[0], volumes[1:]
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert widget.parameters().minimumScore == 0.0
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert widget.parameters().minimumScore == 0.25
    assert widget.parameters().parameterNode.GetParameter("minimumScore") == "0.25"
    assert len(parameter_sets(widget)) == 1
    assert widget.ui.templateVolumeSelector.currentNode().GetName() == "First"
    assert [node.GetName() for node in widget.parameters().queryVolumes] == ["Second"]


# --- "Edit properties" --------------------------------------------------------------------------------------------


@pytest.fixture
def left_widget(main_window, load_scripted_module):
    """The panel, entered once, while another module is shown."""
    import slicer

    widget = load_scripted_module(module_file("SAMConvexRegistration"), enter=False)
    slicer.util.selectModule("SAMConvexRegistration")
    slicer.util.selectModule("")
    return widget


def test_edit_properties_of_a_result_opens_its_set(left_widget, scene, app):
    import slicer

    transform = result_transform(scene)
    first = left_widget.logic.getParameterNode()
    second = left_widget.logic.parametersOf(scene.AddNode(left_widget.logic.createParameterNode()))
    second.outputTransform = transform
    app.openNodeModule(transform)
    assert slicer.util.selectedModule() == "SAMConvexRegistration"
    assert left_widget.parameters() is second
    assert left_widget.ui.outputTransformSelector.currentNode() is transform
    assert first.outputTransform is None


def test_edit_properties_of_a_result_of_no_set_shows_it_in_the_chosen_one(left_widget, scene, app):
    transform = result_transform(scene)
    chosen = left_widget.logic.getParameterNode()
    app.openNodeModule(transform)
    assert left_widget.parameters() is chosen and chosen.outputTransform is transform


def test_edit_properties_of_a_parameter_set_opens_it(left_widget, scene, app):
    second = scene.AddNode(left_widget.logic.createParameterNode())
    app.openNodeModule(second)
    assert left_widget.parameters().parameterNode is second


def test_a_module_that_was_never_opened_is_opened_by_edit_properties(main_window, load_scripted_module, scene, app):
    import slicer

    load_scripted_module(module_file("SAMConvexRegistration"), enter=False)
    transform = result_transform(scene)
    app.openNodeModule(transform)
    widget = slicer.util.getModuleWidget("SAMConvexRegistration")
    assert widget.ui.outputTransformSelector.currentNode() is transform


def test_being_asked_adds_no_parameter_set(main_window, load_scripted_module, scene, app):
    import slicer

    for name in MODULES:
        load_scripted_module(module_file(name), enter=False)
    plain = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    assert app.nodeModule(plain) not in MODULES
    assert not slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")

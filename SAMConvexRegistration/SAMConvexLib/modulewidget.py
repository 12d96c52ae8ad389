"""Parameter node and scene events of a module's panel."""

import sys

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from . import dependencies
from .parametersets import AFTER_CONTROLS, GuiConnection, contents

# Slicer reloads a module's file only; what it imports is dropped with it, both modules' at once, as they share classes.
LIBRARIES = ("SAMConvexLib", "SAMConvexRegistrationLib", "SAMLandmarkLib")


class ModuleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A panel that shows one parameter node of its module, and none while the scene closes or another module is shown.

    Attributes:
        ui: the controls of the module's form, by name.
        logic: made by ``setupPanels``.
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._connection = None
        self._chosen = None  # node of the parameter set that was shown last
        self._made = None  # (node, contents) of the set that the panel made because the scene had none
        self._imported = False

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.setupPanels()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.EndBatchProcessEvent, self.onParameterSetsChanged)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onParameterSetsChanged)
        # Slicer makes a panel just to ask whether it edits some node: that must not add nodes to the scene.
        if self.parent.isEntered:
            self.initializeParameterNode()

    # --- what a module adds -----------------------------------------------------------------------------------------

    def setupPanels(self):
        """Make the logic and the parts of the panel, connect the controls, observe further events of the scene."""
        raise NotImplementedError

    def kill(self):
        """End everything that runs, at once: the panel is being removed."""

    def forget(self):
        """The scene goes: nothing of it may be held."""

    def installDependencies(self):
        """Make the engine able to run; continues an installation that needed a restart."""

    def parametersShown(self):
        """The controls were connected to a parameter node."""
        self.onParametersChanged()

    def onParametersChanged(self, caller=None, event=None):
        """The parameter node was modified."""

    # --- life -------------------------------------------------------------------------------------------------------

    def cleanup(self):
        self.kill()
        self.setParameterNode(None)
        self.removeObservers()
        self.logic.release()

    def enter(self):
        self.initializeParameterNode()
        if dependencies.isPending():
            dependencies.setPending(False)
            self.installDependencies()

    def exit(self):
        # What runs goes on; only the controls are disconnected.
        self.setParameterNode(None)

    def onReload(self):
        for name in [name for name in sys.modules if name.split(".")[0] in LIBRARIES]:
            del sys.modules[name]
        super().onReload()

    # --- parameter node ---------------------------------------------------------------------------------------------

    def parameters(self):
        """The parameter node that the controls show, or None."""
        return self._parameterNode

    def initializeParameterNode(self):
        """Show the parameter set that was chosen last, else the scene's first, else a new one."""
        if self.logic is None:
            return
        self.setParameterNode(self.chosenParameters())
        if self._made is not None and self._made[1] is None:
            self._made = self._chosen, contents(self._chosen)

    def chosenParameters(self):
        """The parameter set that the panel shows, or will show when it is entered."""
        if self._chosen is not None and not slicer.mrmlScene.IsNodePresent(self._chosen):
            self._chosen = None
        if self._chosen is None:
            isNew = not self.logic.getAllParameterNodes()
            self._chosen = self.logic.getParameterNode().parameterNode
            self._made = (self._chosen, None) if isNew else None
        return self.logic.parametersOf(self._chosen)

    def showParameterSet(self, node):
        """Show a parameter node of this module; while another module is shown, keep it for when this one is entered."""
        self._chosen = node
        if self.parent.isEntered:
            self.setParameterNode(self.logic.parametersOf(node))

    def setParameterNode(self, parameterNode):
        """Connect the controls to a parameter node, or to none."""
        if parameterNode is self._parameterNode:
            return
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged
            )
        self._parameterNode = parameterNode
        if parameterNode is None:
            return
        self._chosen = parameterNode.parameterNode
        self._connection = GuiConnection(parameterNode, self.ui)
        # The node, not its wrapper: the mixin keeps what it once observed.
        self.addObserver(
            parameterNode.parameterNode,
            vtk.vtkCommand.ModifiedEvent,
            self.onParametersChanged,
            priority=AFTER_CONTROLS,
        )
        self.parametersShown()

    def _giveWayToImported(self):
        """A set that the panel made for an empty scene, and nobody changed, goes when a scene brings others."""
        if self._made is None or not slicer.mrmlScene.IsNodePresent(self._made[0]):
            return
        (own, before), self._made = self._made, None
        others = [node for node in self.logic.getAllParameterNodes() if node is not own]
        if others and contents(own) == before:
            self._chosen = others[0]
            slicer.mrmlScene.RemoveNode(own)

    # --- "Edit properties" ------------------------------------------------------------------------------------------

    def nodeEditable(self, node):
        """How well this module edits a node, 0 to 1; Slicer asks for the module's ``associatedNodeTypes`` only."""
        isSet = node.IsA("vtkMRMLScriptedModuleNode") and node.GetAttribute("ModuleName") == self.moduleName
        return 0.7 if isSet else 0.0

    def setEditedNode(self, node, role="", context=""):
        """Show a node of which ``nodeEditable`` is above 0. Slicer calls this first and enters the module then."""
        if not self.nodeEditable(node):
            return False
        self.showParameterSet(node)
        return True

    # --- scene ------------------------------------------------------------------------------------------------------

    def onSceneStartClose(self, caller, event):
        self.forget()
        self.setParameterNode(None)
        self._chosen = self._made = None

    def onSceneEndImport(self, caller, event):
        self._imported = True

    def onParameterSetsChanged(self, caller, event):
        # Closing and loading are batches; while a scene is loaded, its own parameter sets are still to come.
        scene = slicer.mrmlScene
        if scene.IsBatchProcessing():
            return
        if self._imported:
            self._imported = False
            self.logic.readAgain()
            self._giveWayToImported()
        shown = self._parameterNode
        if self.parent.isEntered and (
            shown is None or shown.parameterNode is not self._chosen or not scene.IsNodePresent(self._chosen)
        ):
            self.initializeParameterNode()

"""Parameter node and scene events of a module's panel."""

import sys

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from . import dependencies

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

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.setupPanels()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
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
        """Show the scene's parameter node."""
        if self.logic:
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        """Connect the controls to a parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._connection)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        if parameterNode is None:
            return
        self._connection = parameterNode.connectGui(self.ui)
        self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self.parametersShown()

    # --- scene ------------------------------------------------------------------------------------------------------

    def onSceneStartClose(self, caller, event):
        self.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

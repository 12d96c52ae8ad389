"""The panel of the module; each of its tabs has a file of its own."""

import sys

import slicer
import vtk
from SAMConvexLib import dependencies
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from .landmarkpanel import LandmarkPanel
from .livepanel import LivePanel
from .logic import SAMLandmarkLogic
from .trackingpanel import TrackingPanel


class SAMLandmarkWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: parameter node <-> controls; each tab has a file of its own."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._connection = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/SAMLandmark.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = SAMLandmarkLogic()
        self.landmarkPanel = LandmarkPanel(self.ui, self.logic, self.parameters)
        self.livePanel = LivePanel(self.ui, self.logic, self.parameters)
        self.trackingPanel = TrackingPanel(self.ui, self.logic, self.parameters)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartSaveEvent, self.onSceneStartSave)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onNodesChanged)
        self.initializeParameterNode()

    @property
    def panels(self):
        return self.landmarkPanel, self.livePanel, self.trackingPanel

    def cleanup(self):
        for panel in self.panels:
            panel.kill()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()
        if dependencies.isPending():
            dependencies.setPending(False)
            self.landmarkPanel.runPanel.installDependencies()

    def exit(self):
        # A running computation goes on; live matching would follow the mouse in another module.
        self.livePanel.stop()
        self.landmarkPanel.leaveViews()
        self.setParameterNode(None)

    def onReload(self):
        for name in [name for name in sys.modules if name.split(".")[0] in ("SAMLandmarkLib",)]:
            del sys.modules[name]
        super().onReload()

    def parameters(self):
        """The parameter node that the controls show, or None."""
        return self._parameterNode

    def initializeParameterNode(self):
        if self.logic:
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._connection)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        if parameterNode is None:
            return
        self._connection = parameterNode.connectGui(self.ui)
        self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self.onNodesChanged()

    def onParametersChanged(self, caller=None, event=None):
        for panel in self.panels:
            panel.parametersChanged()

    def onNodesChanged(self, caller=None, event=None):
        scene = slicer.mrmlScene
        if self._parameterNode is None or scene.IsClosing() or scene.IsBatchProcessing():
            return
        for panel in self.panels:
            panel.nodesChanged()
        self.onParametersChanged()

    def onSceneStartClose(self, caller, event):
        for panel in self.panels:
            panel.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartSave(self, caller, event):
        # The user's own layout belongs into the file.
        self.livePanel.stop()
        self.landmarkPanel.leaveViews()

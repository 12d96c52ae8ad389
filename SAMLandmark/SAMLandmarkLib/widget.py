"""The panel of the module; each of its tabs has a file of its own."""

import slicer
from SAMConvexLib.modulewidget import ModuleWidget

from .landmarkpanel import LandmarkPanel
from .livepanel import LivePanel
from .logic import SAMLandmarkLogic
from .trackingpanel import TrackingPanel


class SAMLandmarkWidget(ModuleWidget):
    """The panel: parameter node <-> controls; each tab has a file of its own."""

    def setupPanels(self):
        self.logic = SAMLandmarkLogic()
        self.landmarkPanel = LandmarkPanel(self.ui, self.logic, self.parameters)
        self.livePanel = LivePanel(self.ui, self.logic, self.parameters)
        self.trackingPanel = TrackingPanel(self.ui, self.logic, self.parameters)
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onNodesChanged)

    @property
    def panels(self):
        return self.landmarkPanel, self.livePanel, self.trackingPanel

    def kill(self):
        for panel in self.panels:
            panel.kill()

    def forget(self):
        for panel in self.panels:
            panel.forget()

    def leaveViews(self):
        """Put the views back as the user had them."""
        self.livePanel.stop()
        self.landmarkPanel.leaveViews()
        self.landmarkPanel.releasePoints()
        self.trackingPanel.placing.stop()

    def installDependencies(self):
        self.landmarkPanel.runPanel.installDependencies()

    def exit(self):
        # Live matching would follow the mouse in another module.
        self.leaveViews()
        super().exit()

    def parametersShown(self):
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

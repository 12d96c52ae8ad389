"""A small scripted module, written as for Slicer, that the harness itself is tested with."""

import enum
import logging
import pathlib
from typing import Annotated, Optional

import qt
import slicer
import vtk
from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class HarnessExample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Harness example")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Testing")]
        self.parent.contributors = ["Nobody (Nowhere)"]
        self.parent.helpText = _("Thresholds a volume.")
        self.parent.acknowledgementText = _("None.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="HarnessExample",
        sampleName="Ramp",
        uris=[],
        fileNames=[],
        nodeNames=[],
        customDownloader=lambda source: [makeRamp()],
    )


def makeRamp():
    import numpy as np

    values = np.broadcast_to(np.arange(20.0, dtype=np.float32), (10, 15, 20)).copy()
    return slicer.util.addVolumeFromArray(values, name="Ramp")


class Side(enum.Enum):
    ABOVE = "above"
    BELOW = "below"

    def label(self):
        return _("Keep what is above") if self is Side.ABOVE else _("Keep what is below")


@parameterPack
class Range:
    low: Annotated[int, WithinRange(0, 10), Default(2)]
    high: Annotated[int, WithinRange(0, 10)] = 8


@parameterNodeWrapper
class HarnessExampleParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    outputVolume: vtkMRMLLabelMapVolumeNode
    threshold: Annotated[float, WithinRange(0.0, 100.0), Default(10.0)]
    count: Annotated[int, WithinRange(1, 9)] = 3
    side: Side = Side.ABOVE
    method: Annotated[str, Choice(["fast", "exact"]), Default("exact")]
    verbose: bool = False
    title: str = "example"
    folder: pathlib.Path
    limit: Optional[int]  # noqa: UP045 - both spellings must work
    size: int | None
    names: list[str]
    extraVolumes: list[vtkMRMLScalarVolumeNode]
    range: Range


class HarnessExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/HarnessExample.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = HarnessExampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.nameButton.clicked.connect(self.onNameButton)
        self.timer = qt.QTimer()
        self.timer.setSingleShot(True)
        self.timer.setInterval(1)
        self.timer.connect("timeout()", self.onTimeout)
        self.initializeParameterNode()

    def cleanup(self):
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            firstVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if firstVolume:
                self._parameterNode.inputVolume = firstVolume

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
            self._checkCanApply()

    def _checkCanApply(self, caller=None, event=None):
        ready = bool(self._parameterNode and self._parameterNode.inputVolume)
        self.ui.applyButton.toolTip = _("Compute output volume") if ready else _("Select an input volume")
        self.ui.applyButton.enabled = ready

    def onApplyButton(self):
        with slicer.util.tryWithErrorDisplay(_("Failed to compute results."), waitCursor=True):
            node = self._parameterNode
            if node.outputVolume is None:
                node.outputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Result")
            self.logic.process(node.inputVolume, node.outputVolume, node.threshold, node.side)
            self.timer.start()

    def onTimeout(self):
        self.ui.statusLabel.text = _("Done")

    def onNameButton(self):
        name = qt.QInputDialog.getText(None, _("Name"), _("Name of the result:"))
        if name:
            self._parameterNode.title = name


class HarnessExampleLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return HarnessExampleParameterNode(super().getParameterNode())

    def process(self, inputVolume, outputVolume, threshold, side=Side.ABOVE):
        if not inputVolume or not outputVolume:
            raise ValueError("Input or output volume is invalid")
        values = slicer.util.arrayFromVolume(inputVolume)
        mask = values > threshold if side is Side.ABOVE else values <= threshold
        matrix = vtk.vtkMatrix4x4()
        inputVolume.GetIJKToRASMatrix(matrix)
        outputVolume.SetIJKToRASMatrix(matrix)
        slicer.util.updateVolumeFromArray(outputVolume, mask.astype("uint8"))
        logging.info("Threshold applied")


class HarnessExampleTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_threshold()

    def test_threshold(self):
        self.delayDisplay("Starting the test")
        volume = makeRamp()
        output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        HarnessExampleLogic().process(volume, output, 9.5)
        self.assertEqual(int(slicer.util.arrayFromVolume(output).sum()), 10 * 15 * 10)
        self.delayDisplay("Test passed")

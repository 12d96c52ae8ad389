"""Slicer module: one-shot landmarks, live matching and lesion tracking with self-supervised anatomical embeddings."""

# Slicer reads these annotations at run time; its parameter node wrapper knows Optional, not "| None".
# ruff: noqa: UP045

import sys
from typing import Annotated, Optional

import numpy as np
import slicer
import vtk
from SAMConvexLib import dependencies, nodes
from SAMConvexLib.choices import Device, Mode
from SAMConvexLib.job import EngineJob
from SAMConvexLib.process import engineCommand
from SAMLandmarkLib import library, matching, results, sampledata, tracking
from SAMLandmarkLib.landmarkpanel import LandmarkPanel
from SAMLandmarkLib.live import LiveMatching
from SAMLandmarkLib.livepanel import LivePanel
from SAMLandmarkLib.trackingpanel import TrackingPanel
from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class SAMLandmark(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SAM Landmarks")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = ["SAMConvexRegistration", "Markups", "Segmentations", "Tables", "Plots"]
        parent.contributors = ["SAMConvex contributors"]
        parent.helpText = _(
            "Finds landmarks that were placed once in any other CT, follows the mouse from one scan to another, and "
            "tracks lesions over time, with self-supervised anatomical embeddings (SAM; not Segment Anything). "
            'See the <a href="{url}">tutorial</a>.'
        ).format(url="https://github.com/samconvex/SlicerSAMConvex/blob/main/docs/tutorial-landmarks.md")
        parent.acknowledgementText = _(
            "Follows SAM (Yan et al., 2022), UAE (Bai et al., 2023) and RECIST 1.1 (Eisenhauer et al., 2009)."
        )
        slicer.app.connect("startupCompleted()", sampledata.register)


@parameterNodeWrapper
class SAMLandmarkParameterNode:
    """Inputs, settings and outputs of all three tabs; saved with the scene."""

    templateVolume: Optional[vtkMRMLScalarVolumeNode]
    templateMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    queryVolumes: list[vtkMRMLScalarVolumeNode]
    truthMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    minimumScore: Annotated[float, WithinRange(0, 1)] = 0.0
    mode: Mode = Mode.STABLE
    device: Device = Device.AUTO
    linkViews: bool = True

    liveFirst: Optional[vtkMRMLScalarVolumeNode]
    liveSecond: Optional[vtkMRMLScalarVolumeNode]
    liveHeat: bool = False
    liveFollow: bool = True

    baselineVolume: Optional[vtkMRMLScalarVolumeNode]
    courseTable: Optional[vtkMRMLTableNode]


class SAMLandmarkLogic(ScriptedLoadableModuleLogic):
    """Matching and tracking for the console and the widget, without Qt: whoever starts a job polls it."""

    def getParameterNode(self):
        return SAMLandmarkParameterNode(super().getParameterNode())

    # --- for the console --------------------------------------------------------------------------------------------

    def matchLandmarks(
        self,
        templateVolume,
        templateMarkups,
        queryVolume,
        outputMarkups=None,
        minimumScore=None,
        moreTemplates=(),
        mode=Mode.STABLE,
        device=Device.AUTO,
        progressCallback=None,
    ):
        """Find the template's points in other volumes and wait for the result.

        Args:
            templateVolume: the image the points were placed in; None for points loaded from a template of the library.
            templateMarkups: any number of control points; those without a position are left out.
            queryVolume: a volume, or a list of volumes.
            outputMarkups: filled, or created when None; a list of the same length for a list of volumes.
            minimumScore: a point counts as found from this score on, in [-1, 1]; None for the calibrated limit.
            moreTemplates: further (volume, markups) pairs that vote on points with the same labels.
            progressCallback: called as ``progressCallback(stage, fraction, message)``; returning False cancels.
        Returns:
            The markups node, or a list of them for a list of volumes. Points that were not found have no position;
            ``pointRows(node)`` gives score, cycle error and state of every point.
        Raises:
            NodeError: unusable input. JobFailed, JobCancelled. Each holds one sentence for the user.
        """
        several = isinstance(queryVolume, list | tuple)
        volumes = list(queryVolume) if several else [queryVolume]
        outputs = list(outputMarkups or [None] * len(volumes)) if several else [outputMarkups]
        templates = [matching.Template.of(templateMarkups, templateVolume)]
        templates += [matching.Template.of(markups, volume) for volume, markups in moreTemplates]
        request = matching.MatchRequest(templates, volumes, minimumScore, Mode(mode).value, Device(device).value)
        found = self.startMatching(request, outputs).wait(_callback(progressCallback))
        return found if several else found[0]

    def trackLesions(
        self,
        baselineVolume,
        lesions,
        followUpVolumes,
        outputTable=None,
        minimumScore=None,
        device=Device.AUTO,
        progressCallback=None,
    ):
        """Find a patient's lesions in later images and wait for the result.

        Args:
            lesions: a node, or a list of nodes: points, ROIs, lines (diameters) or segmentations on the baseline.
            followUpVolumes: a volume or sequence, or a list of them; ordered by acquisition date where all are known.
            outputTable: filled, or created when None.
            minimumScore, device, progressCallback: as for matchLandmarks.
        Returns:
            The table node. ``tracking.courseOf(table)`` holds all findings as plain values.
        Raises:
            NodeError: unusable input. JobFailed, JobCancelled. Each holds one sentence for the user.
        """
        lesions = list(lesions) if isinstance(lesions, list | tuple) else [lesions]
        followUps = list(followUpVolumes) if isinstance(followUpVolumes, list | tuple) else [followUpVolumes]
        request = tracking.TrackingRequest(
            baselineVolume, lesions, tracking.followUpsOf(followUps, baselineVolume), minimumScore, Device(device).value
        )
        return self.startTracking(request, outputTable).wait(_callback(progressCallback)).table

    def pointRows(self, markups, truthMarkups=None):
        """results.PointRows of a result: label, state, score, cycle error, confidence, error against true points."""
        return results.rows(markups, truthMarkups)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def startMatching(self, request, outputMarkups=None):
        """Start a MatchRequest and return its EngineJob at once; its result is the list of markups nodes.

        Raises:
            nodes.NodeError: an input that cannot be used, or an output that is also an input.
        """
        outputs = list(outputMarkups or [None] * len(request.queryVolumes))
        for node in outputs:
            if node is not None and node in request.inputNodes():
                raise nodes.NodeError(
                    _("'{name}' is an input; choose another node as output.").format(name=node.GetName())
                )
        run = matching.prepare(request)
        first = request.templates[0].markups

        def finish(answers):
            found = []
            for volume, node, frame, entries in zip(request.queryVolumes, outputs, run.frames, answers, strict=True):
                node = node or results.create(volume, first)
                results.fill(node, entries, run.points, frame, volume, first)
                found.append(node)
            return found

        return self._start(run, run.arguments, request.inputNodes() + outputs, finish)

    def startRematching(self, request, markups):
        """Start finding some points of a result again (``request.only`` names them); returns the EngineJob."""
        run = matching.prepare(request)

        def finish(answers):
            entries = {entry["label"]: entry for entry in answers[0]}
            for index in range(markups.GetNumberOfControlPoints()):
                entry = entries.get(markups.GetNthControlPointLabel(index))
                if entry is not None and entry["point"] is not None:
                    position = nodes.worldOfLps([entry["point"]], run.frames[0].worldFromFrame)[0]
                    results.replace(markups, index, entry, position)
            return [markups]

        return self._start(run, run.arguments, [*request.inputNodes(), markups], finish)

    def startSaving(self, directory, name, volume, markups, description="", reference=False):
        """Start saving a template into a library directory; the EngineJob's result is the new folder.

        Raises:
            library.LibraryError, nodes.NodeError: a name in use, unusable inputs.
        """
        run = library.prepareSaving(directory, name, volume, markups, description, reference)
        return self._start(run, run.arguments, [volume, markups], lambda _content: run.target)

    def startTracking(self, request, outputTable=None):
        """Start a TrackingRequest and return its EngineJob at once; its result is a tracking.TrackingOutput.

        Raises:
            nodes.NodeError: an input that cannot be used.
        """
        run = tracking.prepare(request)

        def finish(content):
            table = outputTable
            if table is None:
                name = tracking.patientOf(request.baselineVolume)[1] or request.baselineVolume.GetName()
                title = slicer.mrmlScene.GenerateUniqueName(_("Lesions of {name}").format(name=name))
                table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
            return tracking.fill(request, run, content, table)

        guards = [*request.inputNodes(), outputTable]
        return self._start(run, run.arguments, guards, finish)

    def _start(self, run, arguments, guards, finish):
        job = EngineJob(
            arguments,
            prepare=run.write,
            collect=getattr(run, "read", None),
            finish=finish,
            guards=guards,
            folder=run.folder,
            names=run.names,
            command=self.engineCommand(arguments),
        )
        job.start()
        return job

    def liveMatching(self, first, second):
        """A LiveMatching between two volumes, to be started and polled."""
        return LiveMatching(first, second)

    def engineCommand(self, arguments):
        """Command line that runs the engine; tests put another program here."""
        return engineCommand(arguments)


def _callback(progressCallback):
    if progressCallback is None:
        return None
    return lambda job: progressCallback(job.progress.stage, job.progress.fraction, job.progress.message)


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
            self.landmarkPanel.installDependencies()

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


class SAMLandmarkTest(ScriptedLoadableModuleTest):
    """Self test on a synthetic body; needs no network. What needs the engine is skipped where torch is absent."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()
        slicer.mrmlScene.Clear(0)

    def test_decisions_about_points(self):
        self.delayDisplay("Accepting, rejecting and correcting points")
        volume, template = self.makeBody("Query", 0.0), self.makePoints()
        markups = results.create(volume, template)
        entry = {"label": "a", "point": [-10.0, 5.0, 0.0], "score": 0.9, "cycle_mm": 1.0, "found": True}
        missed = {**entry, "label": "b", "score": 0.3, "found": False}
        frame = nodes.imageFromVolume(volume)
        results.fill(markups, [entry, missed], results.templatePoints(template), frame, volume, template)
        self.assertEqual([shown.state for shown in results.rows(markups)], [results.NEW, results.NOT_FOUND])
        results.decide(markups, 0, results.REJECTED)
        self.assertIsNone(results.positionOf(markups, 0))
        results.decide(markups, 0, "")
        self.assertLess(np.abs(results.positionOf(markups, 0) - [10.0, -5.0, 0.0]).max(), 1e-6)
        results.place(markups, 1, [1.0, 2.0, 3.0])
        self.assertEqual(results.rows(markups)[1].state, results.CORRECTED)

    def test_landmarks_are_found(self):
        reason = dependencies.missingReason()
        if reason:
            self.delayDisplay("Skipped: " + reason)
            return
        self.delayDisplay("Finding points in a shifted body")
        template, query, points = self.makeBody("Template", 0.0), self.makeBody("Query", 12.0), self.makePoints()
        found = SAMLandmarkLogic().matchLandmarks(template, points, query, minimumScore=0.2, device=Device.CPU)
        truth = np.array([point.position for point in results.templatePoints(points)]) + [0.0, 0.0, 12.0]
        errors = [
            np.linalg.norm(results.positionOf(found, n) - truth[n])
            for n in range(len(truth))
            if results.positionOf(found, n) is not None
        ]
        self.assertGreaterEqual(len(errors), 2)
        self.assertLess(np.median(errors), 8.0)

    def makePoints(self):
        """Points at organ borders of the body."""
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Points")
        for label, position in (("a", (-25, 20, 10)), ("b", (22, 5, -15)), ("c", (0, -30, 20))):
            markups.AddControlPointWorld(vtk.vtkVector3d(*position))
            markups.SetNthControlPointLabel(markups.GetNumberOfControlPoints() - 1, label)
        return markups

    def makeBody(self, name, shift):
        """A body of 14 cm with organs, ``shift`` mm higher, on a grid of 3 mm."""
        size, spacing = 64, 3.0
        matrix = np.diag([spacing, spacing, spacing, 1.0])
        matrix[:3, 3] = -spacing * (size - 1) / 2
        index = np.moveaxis(np.indices((size, size, size))[::-1], 0, -1)
        offset = index @ matrix[:3, :3].T + matrix[:3, 3] - [0.0, 0.0, shift]
        array = np.full((size, size, size), -1000, np.int16)
        for middle, radii, value in (
            ((0, 0, 0), (75, 60, 80), 40),
            ((-25, 5, 10), (22, 18, 25), 150),
            ((22, -8, -15), (15, 20, 22), -700),
            ((0, -30, 0), (10, 9, 70), 500),
            ((10, 25, 30), (14, 10, 12), 90),
        ):
            array[(((offset - middle) / radii) ** 2).sum(-1) < 1] = value
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        nodes.fillVolume(volume, array, matrix)
        return volume

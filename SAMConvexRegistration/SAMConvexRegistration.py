"""Slicer module: deformable registration of CT and MR images with self-supervised anatomical embeddings."""

# Slicer reads these annotations at run time; its parameter node wrapper knows Optional, not "| None".
# ruff: noqa: UP045

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import slicer
import vtk
from SAMConvexLib import dependencies, nodes, sampledata, status
from SAMConvexLib.choices import Device
from SAMConvexLib.job import EngineJob, JobState
from SAMConvexLib.polling import pollWithTimer
from SAMConvexLib.process import engineCommand
from SAMConvexRegistrationLib import batch, outputs, presets, request
from SAMConvexRegistrationLib.batchpanel import BatchPanel
from SAMConvexRegistrationLib.forecast import Forecaster
from SAMConvexRegistrationLib.presetmenu import PresetMenu, explainChoices
from SAMConvexRegistrationLib.presets import (
    Affine,
    Features,
    Protection,
    Quality,
    Refinement,
    RegistrationSettings,
    Strength,
)
from SAMConvexRegistrationLib.previewpanel import PreviewPanel
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
    vtkMRMLTransformNode,
)
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


class SAMConvexRegistration(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SAMConvex Registration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = ["Segmentations", "Transforms", "Volumes", "Markups"]
        parent.contributors = ["SAMConvex contributors"]
        parent.helpText = _(
            "Deforms a moving CT or MR image onto a fixed one with self-supervised anatomical embeddings and coupled "
            "convex optimization, and carries segmentations and landmarks along. "
            'See the <a href="{url}">tutorial</a>.'
        ).format(url="https://github.com/samconvex/SlicerSAMConvex/blob/main/docs/tutorial.md")
        parent.acknowledgementText = _(
            "Follows SAM (Yan et al., 2022), SAME (Liu et al., 2021), SAMConvex (Li et al., 2023) and ConvexAdam "
            "(Siebert et al., 2021)."
        )
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted():
    """Register sample data, and keep our transforms' interpolation when scenes are loaded."""
    sampledata.register()
    slicer.mrmlScene.AddObserver(
        slicer.vtkMRMLScene.EndImportEvent, lambda caller, event: nodes.restoreInterpolation(caller)
    )


@parameterNodeWrapper
class SAMConvexRegistrationParameterNode:
    """One set of inputs, settings and outputs; saved with the scene."""

    fixedVolume: Optional[vtkMRMLScalarVolumeNode]
    movingVolume: Optional[vtkMRMLScalarVolumeNode]
    movingSegmentation: Optional[vtkMRMLSegmentationNode]
    movingMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    fixedSegmentation: Optional[vtkMRMLSegmentationNode]
    fixedMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    fixedMask: Optional[vtkMRMLSegmentationNode]
    movingMask: Optional[vtkMRMLSegmentationNode]
    protectMask: Optional[vtkMRMLSegmentationNode]
    initialTransform: Optional[vtkMRMLTransformNode]

    chosenPreset: str = presets.BUILT_IN + presets.DEFAULT_PRESET
    preset: str = presets.DEFAULT_PRESET
    strength: Strength = Strength.NORMAL
    quality: Quality = Quality.STANDARD
    device: Device = Device.AUTO
    affine: Affine = Affine.PRESET
    refinement: Refinement = Refinement.PRESET
    threads: Annotated[int, WithinRange(0, 256)] = 0
    maximumMemoryGib: Annotated[float, WithinRange(0, 1024)] = 0.0
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    protection: Protection = Protection.RIGID
    symmetric: bool = False
    features: Features = Features.PRESET

    wantTransform: bool = True
    wantInverse: bool = False
    wantVolume: bool = True
    wantSegmentation: bool = True
    wantMarkups: bool = True
    wantJacobian: bool = False
    wantValidity: bool = False
    wantTable: bool = True
    outputTransform: Optional[vtkMRMLTransformNode]
    outputInverse: Optional[vtkMRMLTransformNode]
    outputVolume: Optional[vtkMRMLScalarVolumeNode]
    outputSegmentation: Optional[vtkMRMLSegmentationNode]
    outputMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    outputJacobian: Optional[vtkMRMLScalarVolumeNode]
    outputValidity: Optional[vtkMRMLLabelMapVolumeNode]
    outputTable: Optional[vtkMRMLTableNode]

    def settings(self):
        """The settings part, as presets hold it."""
        return RegistrationSettings(**{name: getattr(self, name) for name in RegistrationSettings.names()})

    def applySettings(self, settings):
        """Take over all settings of a preset."""
        for name, value in vars(settings).items():
            setattr(self, name, value)

    def request(self):
        """The inputs part as a registration request."""
        return request.RegistrationRequest(
            fixedVolume=self.fixedVolume,
            movingVolume=self.movingVolume,
            settings=self.settings(),
            fixedMask=self.fixedMask,
            movingMask=self.movingMask,
            protectMask=self.protectMask,
            fixedSegmentation=self.fixedSegmentation,
            movingSegmentation=self.movingSegmentation,
            fixedMarkups=self.fixedMarkups,
            movingMarkups=self.movingMarkups,
            initialTransform=self.initialTransform,
        )


class SAMConvexRegistrationLogic(ScriptedLoadableModuleLogic):
    """Registration for the console and the widget, without Qt: ``poller`` advances the jobs."""

    poller = None

    def __init__(self):
        super().__init__()
        # Several parameter sets may live in one scene.
        self.isSingletonParameterNode = False

    def getParameterNode(self):
        return SAMConvexRegistrationParameterNode(super().getParameterNode())

    def registerVolumes(
        self,
        fixedNode,
        movingNode,
        preset=presets.DEFAULT_PRESET,
        outputTransform=None,
        outputVolume=None,
        movingSegmentation=None,
        outputSegmentation=None,
        movingMarkups=None,
        progressCallback=None,
        **more,
    ):
        """Register and wait for the result.

        Args:
            fixedNode, movingNode: scalar volumes; they are not modified.
            preset: name of a built-in preset.
            outputTransform: filled, or created when None: displacement grid from parent, fixed to moving world.
            outputVolume: filled with the moving image on the fixed grid when given.
            movingSegmentation: carried along into outputSegmentation (created when None).
            movingMarkups: carried along into a new (or ``outputMarkups=``) node.
            progressCallback: called as ``progressCallback(stage, fraction, message)``; returning False cancels.
            more: fields of RegistrationRequest (fixedMask, protectMask, fixedSegmentation, initialTransform, ...), of
                OutputNodes as output... (outputInverse, outputJacobian, outputValidity, outputTable, outputMarkups), of
                RegistrationSettings (``features="sam+mind"``, ``refinement="diffusion"``, threads, ...), or all of
                these at once as ``settings``, which then replaces ``preset``.
        Returns:
            outputs.RegistrationResult: ``transformNode``, ``outputs`` and the engine's ``report``.
        Raises:
            NodeError: unusable input. ValueError: an unknown setting. JobFailed, JobCancelled. Each holds one sentence
                for the user.
        """
        job = self.startRegistration(
            fixedNode,
            movingNode,
            preset,
            outputTransform,
            outputVolume,
            movingSegmentation,
            outputSegmentation,
            movingMarkups,
            poller=None,
            **more,
        )
        callback = None
        if progressCallback is not None:

            def callback(running):
                return progressCallback(running.progress.stage, running.progress.fraction, running.progress.message)

        return job.wait(callback)

    def startRegistration(
        self,
        fixedNode,
        movingNode,
        preset=presets.DEFAULT_PRESET,
        outputTransform=None,
        outputVolume=None,
        movingSegmentation=None,
        outputSegmentation=None,
        movingMarkups=None,
        poller="default",
        **more,
    ):
        """Start a registration and return its job at once; arguments as registerVolumes.

        Args:
            poller: called as ``poller(job)`` to have ``job.poll()`` called until the end; None leaves it to the caller.
        """
        settings = more.pop("settings", None) or RegistrationSettings(preset=preset)
        settings = settings.changed({name: more.pop(name) for name in RegistrationSettings.names() if name in more})
        targets = outputs.OutputNodes(
            transform=outputTransform,
            volume=outputVolume,
            segmentation=outputSegmentation,
            **{name: more.pop(key, None) for key, name in outputs.MORE_OUTPUTS.items()},
        )
        wanted = request.RegistrationRequest(
            fixedNode, movingNode, settings, movingSegmentation=movingSegmentation, movingMarkups=movingMarkups, **more
        )
        missing = ["transform"] if targets.transform is None else []
        missing += ["segmentation"] if movingSegmentation is not None and targets.segmentation is None else []
        missing += ["markups"] if movingMarkups is not None and targets.markups is None else []
        job = self.startRequest(wanted, targets, missing)
        poller = self.poller if poller == "default" else poller
        if poller is not None:
            poller(job)
        return job

    def startRequest(self, wanted, targets, create=()):
        """Start the job of a request.

        Args:
            targets: OutputNodes to fill.
            create: names of OutputNodes fields that are created when the result is there.
        Raises:
            NodeError: an input that cannot be used, or an output that is also an input.
        """
        outputs.checkTargets(wanted, targets)
        run = request.prepare(wanted)

        def finish(files):
            outputs.create(wanted, targets, create)
            return outputs.fill(wanted, run, files, targets)

        job = EngineJob(
            run.arguments,
            prepare=run.write,
            collect=lambda: outputs.readFiles(run, {*create, *targets.names()}),
            finish=finish,
            guards=[*wanted.inputNodes(), *targets.nodes()],
            folder=run.folder,
            names=run.names,
            command=self.engineCommand(run.arguments),
        )
        job.start()
        return job

    def sceneBatchItems(self, fixedNode, movingNodes, settings):
        """Batch items that register every moving volume to the fixed one; each gives a transform and a volume."""

        def item(movingNode):
            wanted = request.RegistrationRequest(fixedNode, movingNode, settings)
            return batch.BatchItem(
                movingNode.GetName(),
                lambda: self.startRequest(wanted, outputs.OutputNodes(), ["transform", "volume"]),
            )

        return [item(node) for node in movingNodes]

    def fileBatchItems(self, pairs, folder, settings):
        """Batch items of image file pairs; each gets a result folder as the engine's command line writes it.

        Args:
            pairs: (name, fixed path, moving path) as batch.readPairs gives them.
        """

        def start(name, fixedPath, movingPath):
            target = Path(folder) / name
            arguments = ["register", fixedPath, movingPath, "-o", target, "--progress", "json"]
            arguments += settings.engineArguments()
            job = EngineJob(
                arguments,
                collect=lambda: json.loads((target / "report.json").read_text(encoding="utf-8")),
                command=self.engineCommand(arguments),
            )
            job.start()
            return job

        return [batch.BatchItem(pair[0], lambda pair=pair: start(*pair)) for pair in pairs]

    def engineCommand(self, arguments):
        """Command line that runs the engine; tests put another program here."""
        return engineCommand(arguments)


class SAMConvexRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: parameter node <-> controls, Apply and Cancel, progress; preview, presets and batch have own files."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.job = None
        self._parameterNode = None
        self._connection = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/SAMConvexRegistration.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = SAMConvexRegistrationLogic()
        self.ui.parameterSetSelector.addAttribute("vtkMRMLScriptedModuleNode", "ModuleName", self.moduleName)
        self.presetMenu = PresetMenu(self.ui, self.parameters)
        self.previewPanel = PreviewPanel(self.ui, self.parameters)
        self.batchPanel = BatchPanel(self.ui, self.logic, self.parameters)
        self.forecaster = Forecaster(
            pollWithTimer, lambda arguments: self.logic.engineCommand(arguments), self.updateButtons
        )

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartSaveEvent, self.onSceneStartSave)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.parameterSetSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onParameterSetChanged)
        self.initializeParameterNode()

    def cleanup(self):
        if self.job is not None:
            self.job.kill()
        self.batchPanel.kill()
        self.forecaster.kill()
        self.previewPanel.revert()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()
        if dependencies.isPending():
            dependencies.setPending(False)
            self.installDependencies()

    def exit(self):
        # A running registration goes on; only the controls are disconnected.
        self.setParameterNode(None)

    def onReload(self):
        for name in [name for name in sys.modules if name.split(".")[0] == "SAMConvexRegistrationLib"]:
            del sys.modules[name]
        super().onReload()

    # --- parameter node ---------------------------------------------------------------------------------------------

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
        # Connecting fills the lists anew.
        explainChoices(self.ui.featuresComboBox, Features)
        explainChoices(self.ui.refinementComboBox, Refinement)
        self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        wasBlocked = self.ui.parameterSetSelector.blockSignals(True)
        self.ui.parameterSetSelector.setCurrentNode(parameterNode.parameterNode)
        self.ui.parameterSetSelector.blockSignals(wasBlocked)
        self.presetMenu.update()
        self.previewPanel.update()
        self.batchPanel.update()
        self.onParametersChanged()

    def onParameterSetChanged(self, node):
        if node is not None and self._parameterNode is not None and node is not self._parameterNode.parameterNode:
            self.previewPanel.revert()
            self.setParameterNode(SAMConvexRegistrationParameterNode(node))

    def setEditedNode(self, node, role="", context=""):
        """ "Edit properties" on a result or a parameter set opens it here."""
        if node.IsA("vtkMRMLScriptedModuleNode"):
            self.setParameterNode(SAMConvexRegistrationParameterNode(node))
        elif node.IsA("vtkMRMLTransformNode") and self._parameterNode is not None:
            self._parameterNode.outputTransform = node
        return True

    def nodeEditable(self, node):
        if node.IsA("vtkMRMLScriptedModuleNode") and node.GetAttribute("ModuleName") == self.moduleName:
            return 0.7
        return 0.6 if outputs.reportOf(node) and node.IsA("vtkMRMLTransformNode") else 0.0

    # --- scene ------------------------------------------------------------------------------------------------------

    def onSceneStartClose(self, caller, event):
        self.previewPanel.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartSave(self, caller, event):
        # Stand-ins are not saved; the views must not refer to them in the file.
        self.previewPanel.revert()

    def onNodeRemoved(self, caller, event):
        self.previewPanel.nodeRemoved()
        if self._parameterNode is not None and not slicer.mrmlScene.IsClosing():
            self.onParametersChanged()

    # --- running ----------------------------------------------------------------------------------------------------

    @property
    def isRunning(self):
        return self.job is not None and not self.job.isFinished

    def onParametersChanged(self, caller=None, event=None):
        self.presetMenu.parametersChanged()
        self.previewPanel.parametersChanged()
        self.batchPanel.parametersChanged()
        self.updateButtons()

    def updateButtons(self):
        button, running = self.ui.applyButton, self.isRunning
        for section in ("inputsButton", "settingsButton", "outputsButton", "advancedButton"):
            getattr(self.ui, section).enabled = not running
        self.ui.parameterSetSelector.enabled = not running
        if running:
            cancelling = self.job.state is JobState.CANCELLING
            button.text = _("Cancelling...") if cancelling else _("Cancel")
            button.toolTip = _("Stop the registration; nothing will be changed.")
            button.enabled = not cancelling
            return
        button.text = _("Apply")
        parameters = self._parameterNode
        if parameters is None:
            button.enabled = False
            return
        sentence = request.checkInputs(parameters.request()) or (
            "" if self.wanted() else _("Check at least one output.")
        )
        button.toolTip = sentence or _("Register the moving volume to the fixed one.")
        button.enabled = not sentence
        self.ui.forecastLabel.text = "" if sentence else self.forecast()
        self.ui.strengthNumbersLabel.text = (
            ""
            if sentence
            else self.forecaster.numbers(parameters.fixedVolume, parameters.preset, parameters.strength.value)
        )

    def forecast(self):
        """What the preset will cost; other features or another refinement than its own are not forecast."""
        parameters = self._parameterNode
        text = self.forecaster.sentence(parameters.fixedVolume, parameters.preset)
        asPreset = parameters.features is Features.PRESET and parameters.refinement is Refinement.PRESET
        if not text or asPreset:
            return text
        return _("{forecast} That is for the preset's own features and refinement.").format(forecast=text)

    def wanted(self):
        """Names of the OutputNodes fields that are checked and possible with the inputs."""
        parameters = self._parameterNode
        names = {
            "transform": parameters.wantTransform,
            "inverse": parameters.wantInverse,
            "volume": parameters.wantVolume,
            "segmentation": parameters.wantSegmentation and parameters.movingSegmentation is not None,
            "markups": parameters.wantMarkups and parameters.movingMarkups is not None,
            "jacobian": parameters.wantJacobian,
            "validity": parameters.wantValidity,
            "table": parameters.wantTable,
        }
        return [name for name, chosen in names.items() if chosen]

    def targets(self):
        """OutputNodes of the checked outputs, from the selectors."""
        parameters, wanted = self._parameterNode, self.wanted()
        return outputs.OutputNodes(**{name: getattr(parameters, "output" + name.capitalize()) for name in wanted})

    def installDependencies(self):
        """Make the engine able to run; False, with the reason in the status line, where it cannot."""
        try:
            dependencies.ensure()
        except RuntimeError as error:
            self.ui.statusLabel.text = str(error)
            return False
        return True

    def onApplyButton(self, checked=False):
        if self.isRunning:
            self.job.cancel()
            return
        self.previewPanel.revert()
        if not self.installDependencies():
            return
        try:
            with slicer.util.WaitCursor():
                targets = self.targets()
                self.job = self.logic.startRequest(self._parameterNode.request(), targets, self.wanted())
        except nodes.NodeError as error:
            self.ui.statusLabel.text = str(error)
            return
        self._runningParameters = self._parameterNode.parameterNode
        self._targets = targets
        self.ui.logText.plainText = ""
        self.job.onChange = self.onJobChanged
        pollWithTimer(self.job)
        self.onJobChanged(self.job)

    def onJobChanged(self, job):
        if job is not self.job:
            return
        self.ui.progressBar.visible = not job.isFinished
        self.ui.progressBar.value = int(1000 * job.progress.fraction)
        self.ui.statusLabel.text = status.sentence(job)
        self.ui.logText.plainText = job.log
        if job.state is JobState.DONE:
            self.onDone(job)
        self.updateButtons()

    def onDone(self, job):
        """Select the created nodes and show the figures."""
        node = self._runningParameters
        if slicer.mrmlScene.IsNodePresent(node):
            current = self._parameterNode
            same = current is not None and current.parameterNode is node
            parameters = current if same else SAMConvexRegistrationParameterNode(node)
            for name, output in vars(self._targets).items():
                if output is not None:
                    setattr(parameters, "output" + name.capitalize(), output)
        self.ui.qualityButton.collapsed = False
        self.ui.previewButton.collapsed = False
        self.previewPanel.parametersChanged()


SAMConvexRegistrationLogic.poller = staticmethod(pollWithTimer)


class SAMConvexRegistrationTest(ScriptedLoadableModuleTest):
    """Self test on a small synthetic pair; needs no network. What needs the engine is skipped where torch is absent."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()
        slicer.mrmlScene.Clear(0)

    def test_geometry_round_trip(self):
        self.delayDisplay("Geometry of an oblique volume")
        volume = self.makeVolume("Volume", (0.0, 0.0, 0.0))
        exported = nodes.imageFromVolume(volume)
        difference = nodes.imageToRas(exported.image) - nodes.ijkToRas(volume)
        self.assertLess(np.abs(difference).max(), 1e-9)

    def test_transform_direction(self):
        self.delayDisplay("Direction of a displacement grid")
        transformNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        vectors = np.zeros((9, 9, 9, 3), np.float32)
        vectors[..., 0] = 10.0
        lattice = np.diag([20.0, 20.0, 20.0, 1.0])
        lattice[:3, 3] = -80.0
        nodes.fillGridTransform(transformNode, vectors, lattice)
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
        markups.AddControlPoint(vtk.vtkVector3d(0.0, 0.0, 0.0))
        markups.SetAndObserveTransformNodeID(transformNode.GetID())
        _labels, points = nodes.worldPoints(markups)
        # The fixed point at -10 looks up the moving point at 0.
        self.assertLess(np.abs(points[0] - [-10.0, 0.0, 0.0]).max(), 0.01)

    def test_registration_recovers_a_shift(self):
        reason = dependencies.missingReason()
        if reason:
            self.delayDisplay("Skipped: " + reason)
            return
        self.delayDisplay("Registration of a synthetic pair")
        shift = np.array([6.0, -4.0, 8.0])
        fixed, moving = self.makeVolume("Fixed", (0.0, 0.0, 0.0)), self.makeVolume("Moving", shift)
        logic = SAMConvexRegistrationLogic()
        settings = RegistrationSettings(preset="fast-preview", device=Device.CPU, affine=Affine.NONE)
        result = logic.registerVolumes(fixed, moving, settings=settings)
        center = np.array([[0.0, 0.0, 0.0]])
        moved = nodes.transformPoints(result.transformNode.GetTransformFromParent(), center)
        self.assertLess(np.abs(moved[0] - shift).max(), 4.0)

    def makeVolume(self, name, center):
        """A body of 12 cm with two organs around ``center`` (RAS mm) on an oblique grid of 4 mm."""
        size, spacing = 48, 4.0
        matrix = np.eye(4)
        angle = np.radians(10)
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[:3, :3] *= spacing
        matrix[:3, 3] = -matrix[:3, :3] @ np.full(3, (size - 1) / 2)
        index = np.moveaxis(np.indices((size, size, size))[::-1], 0, -1)
        offset = index @ matrix[:3, :3].T + matrix[:3, 3] - np.asarray(center)
        array = np.full((size, size, size), -1000, np.int16)
        for middle, radii, value in (
            ((0, 0, 0), (62, 50, 70), 40),
            ((-25, 5, 10), (22, 18, 25), 150),
            ((22, -8, -15), (15, 20, 22), -700),
            ((0, -30, 0), (10, 9, 60), 500),
        ):
            array[(((offset - middle) / radii) ** 2).sum(-1) < 1] = value
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        nodes.fillVolume(volume, array, matrix)
        return volume

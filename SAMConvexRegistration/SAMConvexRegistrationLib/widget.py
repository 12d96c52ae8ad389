"""The panel of the module."""

import slicer
from SAMConvexLib.modulewidget import ModuleWidget
from SAMConvexLib.parametersets import contents
from SAMConvexLib.polling import pollWithTimer
from SAMConvexLib.runpanel import RunPanel
from slicer.i18n import tr as _

from . import outputs, quality, request
from .batchpanel import BatchPanel
from .forecast import Forecaster
from .logic import SAMConvexRegistrationLogic
from .presetmenu import PresetMenu, explainChoices
from .previewpanel import PreviewPanel
from .settings import Features, Refinement


class SAMConvexRegistrationWidget(ModuleWidget):
    """The panel: parameter node <-> controls, Apply and Cancel, progress; preview, presets and batch have own files."""

    def setupPanels(self):
        self.logic = SAMConvexRegistrationLogic()
        self._seen = {}
        self.ui.parameterSetSelector.addAttribute("vtkMRMLScriptedModuleNode", "ModuleName", self.moduleName)
        self.runPanel = RunPanel(
            self.ui.applyButton,
            self.ui.progressBar,
            self.ui.statusLabel,
            self.ui.logText,
            title=_("Apply"),
            cancelTip=_("Stop the registration; nothing will be changed."),
            onChange=self.updateButtons,
        )
        self.presetMenu = PresetMenu(self.ui, self.parameters)
        self.previewPanel = PreviewPanel(self.ui, self.parameters, lambda: self.isRunning)
        self.batchPanel = BatchPanel(self.ui, self.logic, self.parameters)
        self.forecaster = Forecaster(
            pollWithTimer, lambda arguments: self.logic.engineCommand(arguments), self.updateButtons
        )

        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onSceneChanged)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.parameterSetSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onParameterSetChanged)

    def kill(self):
        self.runPanel.kill()
        self.batchPanel.kill()
        self.forecaster.kill()
        self.previewPanel.revert()

    def forget(self):
        self.previewPanel.forget()

    def exit(self):
        self.previewPanel.leave()
        super().exit()

    def installDependencies(self):
        self.runPanel.installDependencies()

    # --- parameter node ---------------------------------------------------------------------------------------------

    def parametersShown(self):
        # Connecting fills the lists anew.
        explainChoices(self.ui.featuresComboBox, Features)
        explainChoices(self.ui.refinementComboBox, Refinement)
        wasBlocked = self.ui.parameterSetSelector.blockSignals(True)
        self.ui.parameterSetSelector.setCurrentNode(self._parameterNode.parameterNode)
        self.ui.parameterSetSelector.blockSignals(wasBlocked)
        self.presetMenu.update()
        self.previewPanel.update()
        self.batchPanel.update()
        self.onParametersChanged()

    def onParameterSetChanged(self, node):
        if node is not None and self._parameterNode is not None and node is not self._parameterNode.parameterNode:
            self.previewPanel.revert()
            self.showParameterSet(node)

    def nodeEditable(self, node):
        if node.IsA("vtkMRMLTransformNode") and quality.reportOf(node):
            return 0.6
        return super().nodeEditable(node)

    def setEditedNode(self, node, role="", context=""):
        """ "Edit properties" on a result shows the parameter set that it belongs to; on a set, that set."""
        if not node.IsA("vtkMRMLTransformNode") or not self.nodeEditable(node):
            return super().setEditedNode(node, role, context)
        sets = [self.logic.parametersOf(each) for each in self.logic.getAllParameterNodes()]
        owner = next((each for each in sets if each.outputTransform is node), None)
        if owner is None:
            owner = self.chosenParameters()
            owner.outputTransform = node
        self.showParameterSet(owner.parameterNode)
        return True

    def onNodeRemoved(self, caller, event):
        self.previewPanel.nodeRemoved()
        if self._parameterNode is not None and not slicer.mrmlScene.IsClosing():
            self.onParametersChanged()

    def onSceneChanged(self, caller, event):
        if self._parameterNode is not None and not slicer.mrmlScene.IsBatchProcessing():
            self.batchPanel.update()
            hidden = [node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode") if outputs.isMap(node)]
            for selector in (self.ui.fixedSelector, self.ui.movingSelector, self.ui.batchFixedSelector):
                selector.sortFilterProxyModel().hiddenNodeIDs = hidden

    # --- running ----------------------------------------------------------------------------------------------------

    @property
    def job(self):
        """The running or last job, or None."""
        return self.runPanel.job

    @property
    def isRunning(self):
        return self.runPanel.isRunning

    def onParametersChanged(self, caller=None, event=None):
        self.forgetProblem()
        self.presetMenu.parametersChanged()
        self.previewPanel.parametersChanged()
        self.batchPanel.parametersChanged()
        self.updateButtons()

    def forgetProblem(self):
        """A sentence about a run goes when something was chosen anew; a node that is gone is no choice."""
        _name, values, references = contents(self._parameterNode.parameterNode)
        before, self._seen = self._seen, values | references
        if any(value and value != before.get(name) for name, value in self._seen.items()):
            self.runPanel.forget()

    def updateButtons(self):
        running = self.isRunning
        self.previewPanel.update()
        for section in ("inputsButton", "settingsButton", "outputsButton", "advancedButton"):
            getattr(self.ui, section).enabled = not running
        self.ui.parameterSetSelector.enabled = not running
        parameters = self._parameterNode
        if running or parameters is None:
            self.runPanel.updateButton(enabled=False)
            self.sayReason("")
            return
        unusable = request.checkInputs(parameters.request())
        sentence = unusable or ("" if self.wanted() else _("Check at least one output."))
        self.runPanel.updateButton(not sentence, sentence or _("Register the moving volume to the fixed one."))
        self.sayReason(sentence)
        self.presetMenu.showHint(usable=not unusable)
        fixed, settings = parameters.fixedVolume, parameters.settings()
        self.ui.forecastLabel.text = "" if sentence else self.forecaster.sentence(fixed, settings)
        self.ui.strengthNumbersLabel.text = "" if sentence else self.forecaster.numbers(fixed, settings)

    def sayReason(self, sentence):
        """Beside Apply, why it cannot be pressed."""
        self.ui.reasonLabel.text = sentence
        self.ui.reasonLabel.visible = bool(sentence)

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
            "error": parameters.wantError,
            "table": parameters.wantTable,
        }
        return [name for name, chosen in names.items() if chosen]

    def targets(self):
        """OutputNodes of the checked outputs, from the selectors."""
        parameters, wanted = self._parameterNode, self.wanted()
        return outputs.OutputNodes(**{name: getattr(parameters, "output" + name.capitalize()) for name in wanted})

    def onApplyButton(self, checked=False):
        if self.runPanel.cancel():
            return
        self.previewPanel.onRevertButton()
        node, targets = self._parameterNode.parameterNode, self.targets()
        self.runPanel.start(
            lambda: self.logic.startRequest(self._parameterNode.request(), targets, self.wanted()),
            lambda result: self.onDone(node, targets),
        )

    def onDone(self, node, targets):
        """Select the created nodes in the parameter node of the run, and show the figures."""
        if slicer.mrmlScene.IsNodePresent(node):
            parameters = self.logic.parametersOf(node)
            for name, output in vars(targets).items():
                if output is not None:
                    setattr(parameters, "output" + name.capitalize(), output)
        self.ui.qualityButton.collapsed = False
        self.ui.previewButton.collapsed = False
        self.previewPanel.parametersChanged()
        self.previewPanel.showResult()

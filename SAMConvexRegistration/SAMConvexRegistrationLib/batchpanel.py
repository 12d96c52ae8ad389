"""The Batch tab: a list of pairs, run one after the other."""

from pathlib import Path

import qt
import slicer
from SAMConvexLib import dependencies, nodes, status, verdicts
from SAMConvexLib.files import chosenFolder
from SAMConvexLib.job import JobState
from SAMConvexLib.runpanel import RunPanel
from SAMConvexLib.tablewidgets import fillTableWidget
from slicer.i18n import tr as _

from . import batch, quality, sequences

MESSAGE_WIDTH = 260


class BatchPanel:
    """Connects the tab to a BatchRun of volumes or a CohortRun of files.

    Args:
        logic: the module's logic, which starts the jobs.
        parameters: callable that gives the current parameter node, or None; its settings are used.
    """

    def __init__(self, ui, logic, parameters):
        self.ui = ui
        self._logic = logic
        self._parameters = parameters
        self.runPanel = RunPanel(
            ui.batchApplyButton,
            ui.batchProgressBar,
            ui.batchStatusLabel,
            title=_("Apply to all"),
            cancelTip=_("Stop the running pair and leave out the rest."),
            onChange=self.showRun,
            sentence=self.sentence,
            level=self.level,
        )
        ui.batchSourceComboBox.addItem(_("Volumes of the scene"), "scene")
        ui.batchSourceComboBox.addItem(_("CSV of image files"), "csv")
        ui.batchSourceComboBox.connect("currentIndexChanged(int)", self.onSourceChanged)
        ui.batchFixedSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onFixedChanged)
        ui.batchMovingList.connect("itemChanged(QListWidgetItem*)", self.onListChanged)
        ui.batchCsvPathEdit.connect("currentPathChanged(QString)", self.onListChanged)
        ui.batchFolderButton.connect("directoryChanged(QString)", self.onListChanged)
        ui.batchApplyButton.connect("clicked(bool)", self.onApplyButton)
        ui.batchPageButton.connect("clicked(bool)", self.onPageButton)
        self.update()

    # --- list -------------------------------------------------------------------------------------------------------

    def update(self):
        """Show the scene's volumes, keeping the checked ones."""
        checked = set(self.checkedIds())
        movingList = self.ui.batchMovingList
        current = movingList.item(movingList.currentRow)
        currentId = current.data(qt.Qt.UserRole) if current is not None else None
        wasBlocked = movingList.blockSignals(True)
        movingList.clear()
        fixed = self.ui.batchFixedSelector.currentNode()
        for node in self.movable(fixed):
            title = node.GetName()
            if node.IsA("vtkMRMLSequenceNode"):
                title = _("{name} ({count} volumes)").format(name=title, count=node.GetNumberOfDataNodes())
            item = qt.QListWidgetItem(title)
            item.setData(qt.Qt.UserRole, node.GetID())
            item.setCheckState(qt.Qt.Checked if node.GetID() in checked else qt.Qt.Unchecked)
            movingList.addItem(item)
            if node.GetID() == currentId:
                # The keyboard stays on its row.
                movingList.setCurrentRow(movingList.count - 1)
        movingList.blockSignals(wasBlocked)
        self.onSourceChanged()

    @staticmethod
    def movable(fixed):
        """Volumes and sequences of volumes that can be registered to the fixed one."""
        volumes = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if node is not fixed and not node.GetHideFromEditors() and not quality.isResult(node)
        ]
        volumes = [node for node in volumes if not node.IsA("vtkMRMLLabelMapVolumeNode")]
        return volumes + [
            node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if sequences.holdsVolumes(node)
        ]

    def checkedIds(self):
        movingList = self.ui.batchMovingList
        items = [movingList.item(row) for row in range(movingList.count)]
        return [item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked]

    def parametersChanged(self):
        self.updateButtons()

    def onSourceChanged(self, index=0):
        fromScene = self.fromScene()
        for name in ("batchFixedSelector", "batchMovingList"):
            self._setRowVisible(name, fromScene)
        for name in ("batchCsvPathEdit", "batchFolderButton", "batchWorkersSpinBox", "batchSchedulerEdit"):
            self._setRowVisible(name, not fromScene)
        self.ui.batchResumeCheckBox.visible = not fromScene
        self.ui.batchPageButton.visible = not fromScene
        self.updateButtons()

    def _setRowVisible(self, name, visible):
        getattr(self.ui, name).visible = visible
        getattr(self.ui, name + "Label").visible = visible

    def fromScene(self):
        return self.ui.batchSourceComboBox.currentIndex == 0

    def onFixedChanged(self, node):
        self.runPanel.forget()
        self.update()

    def onListChanged(self, *changed):
        self.runPanel.forget()
        self.updateButtons()

    # --- running ----------------------------------------------------------------------------------------------------

    @property
    def run(self):
        """The running or last BatchRun or CohortRun, or None."""
        return self.runPanel.job

    @property
    def isRunning(self):
        return self.runPanel.isRunning

    def updateButtons(self):
        if self.fromScene():
            ready = self.ui.batchFixedSelector.currentNode() is not None and bool(self.checkedIds())
            missing = _("Choose the fixed volume and check at least one moving volume.")
        else:
            ready = bool(self.ui.batchCsvPathEdit.currentPath) and bool(self.folder())
            missing = _("Choose the CSV file and the output folder.")
        toolTip = _("Register every pair of the list.") if ready else missing
        self.ui.batchPageButton.enabled = self.page() is not None
        self.runPanel.updateButton(ready and self._parameters() is not None, toolTip)

    def onApplyButton(self, checked=False):
        if self.runPanel.cancel():
            return
        self.runPanel.say("")
        self.runPanel.start(self.startBatch, refusals=(batch.BatchError, nodes.NodeError, RuntimeError))

    def startBatch(self):
        """A started run of the chosen list."""
        settings = self._parameters().settings()
        if self.fromScene():
            fixed = self.ui.batchFixedSelector.currentNode()
            moving = [slicer.mrmlScene.GetNodeByID(nodeId) for nodeId in self.checkedIds()]
            run = batch.BatchRun(self._logic.sceneBatchItems(fixed, moving, settings))
        else:
            dependencies.ensureCluster()
            run = self._logic.cohort(
                self.ui.batchCsvPathEdit.currentPath,
                self.folder(),
                settings,
                workers=self.ui.batchWorkersSpinBox.value,
                scheduler=self.ui.batchSchedulerEdit.text.strip(),
                resume=self.ui.batchResumeCheckBox.checked,
            )
        run.start()
        return run

    def folder(self):
        """Where results of files go, "" as long as none was chosen."""
        return chosenFolder(self.ui.batchFolderButton)

    def page(self):
        """The page of the results in the chosen folder, or None."""
        folder = self.folder()
        page = Path(folder) / batch.PAGE if folder else None
        return page if page is not None and page.is_file() else None

    def onPageButton(self, checked=False):
        """Show the page in the system's browser."""
        page = self.page()
        if page is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page)))

    def kill(self):
        self.runPanel.kill()

    def sentence(self, run):
        """What the running pair does; at the end how many succeeded."""
        if run.currentJob is not None:
            return status.sentence(run.currentJob)
        if problem := getattr(run, "problem", ""):
            return problem
        done = sum(item.state is JobState.DONE for item in run.items)
        return _("{done} of {count} pairs registered.").format(done=done, count=len(run.items))

    def level(self, run):
        """A list with pairs that failed is no plain success, and a command that could not begin none at all."""
        if run.state is JobState.FAILED:
            return verdicts.DO_NOT_USE
        failed = any(item.state is JobState.FAILED for item in run.items)
        return verdicts.CHECK if failed or getattr(run, "problem", "") else ""

    def showRun(self):
        """Fill the table with the pairs, or with what is wrong with their list."""
        faults = getattr(self.run, "faults", [])
        if faults:
            fillTableWidget(self.ui.batchTable, [_("Row"), _("Column"), _("What is wrong")], faults)
            self.ui.batchTable.resizeColumnsToContents()
            self.updateButtons()
            return
        lines = [
            (
                item.name,
                status.stateLabel(item.state),
                verdicts.levelLabel(verdicts.levelOf(item.report)) if item.report else "",
                status.duration(item.seconds) if item.seconds else "",
                " ".join(filter(None, [verdicts.reasonsOf(item.report), item.message])),
                quality.figures(item.report),
            )
            for item in self.run.items
        ]
        titles = [_("Pair"), _("State"), _("Verdict"), _("Time"), _("Message"), _("Figures")]
        table = self.ui.batchTable
        fillTableWidget(table, titles, lines)
        for row, line in enumerate(lines):
            for column, text in enumerate(line):
                table.item(row, column).setToolTip(text)
        # A message is read whole, not cut off.
        table.resizeColumnsToContents()
        table.setColumnWidth(titles.index(_("Message")), MESSAGE_WIDTH)
        table.resizeRowsToContents()
        for row, item in enumerate(self.run.items):
            if item.report:
                cell = self.ui.batchTable.item(row, titles.index(_("Verdict")))
                cell.setBackground(qt.QBrush(qt.QColor(verdicts.color(verdicts.levelOf(item.report)))))
                cell.setForeground(qt.QBrush(qt.QColor(20, 20, 20)))
        self.updateButtons()

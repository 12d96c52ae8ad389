"""The Batch tab: a list of pairs, run one after the other."""

import qt
import slicer
from SAMConvexLib import nodes, status, verdicts
from SAMConvexLib.files import chosenFolder
from SAMConvexLib.job import JobState
from SAMConvexLib.runpanel import RunPanel
from SAMConvexLib.tablewidgets import fillTableWidget
from slicer.i18n import tr as _

from . import batch, quality

MESSAGE_WIDTH = 260


class BatchPanel:
    """Connects the tab to a BatchRun.

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
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if node is fixed or node.GetHideFromEditors() or node.IsA("vtkMRMLLabelMapVolumeNode"):
                continue
            if quality.isResult(node):
                continue
            item = qt.QListWidgetItem(node.GetName())
            item.setData(qt.Qt.UserRole, node.GetID())
            item.setCheckState(qt.Qt.Checked if node.GetID() in checked else qt.Qt.Unchecked)
            movingList.addItem(item)
            if node.GetID() == currentId:
                # The keyboard stays on its row.
                movingList.setCurrentRow(movingList.count - 1)
        movingList.blockSignals(wasBlocked)
        self.onSourceChanged()

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
        for name in ("batchCsvPathEdit", "batchFolderButton"):
            self._setRowVisible(name, not fromScene)
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
        """The running or last BatchRun, or None."""
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
        self.runPanel.updateButton(ready and self._parameters() is not None, toolTip)

    def onApplyButton(self, checked=False):
        if self.runPanel.cancel():
            return
        self.runPanel.say("")
        self.runPanel.start(self.startBatch, refusals=(batch.BatchError, nodes.NodeError, RuntimeError))

    def startBatch(self):
        """A started BatchRun of the chosen list."""
        settings = self._parameters().settings()
        if self.fromScene():
            fixed = self.ui.batchFixedSelector.currentNode()
            moving = [slicer.mrmlScene.GetNodeByID(nodeId) for nodeId in self.checkedIds()]
            run = batch.BatchRun(self._logic.sceneBatchItems(fixed, moving, settings))
        else:
            folder = self.folder()
            pairs = batch.readPairs(self.ui.batchCsvPathEdit.currentPath)
            run = batch.BatchRun(self._logic.fileBatchItems(pairs, folder, settings), folder)
        run.start()
        return run

    def folder(self):
        """Where results of files go, "" as long as none was chosen."""
        return chosenFolder(self.ui.batchFolderButton)

    def kill(self):
        self.runPanel.kill()

    def sentence(self, run):
        """What the running pair does; at the end how many succeeded."""
        if run.currentJob is not None:
            return status.sentence(run.currentJob)
        done = sum(item.state is JobState.DONE for item in run.items)
        text = _("{done} of {count} pairs registered.").format(done=done, count=len(run.items))
        return " ".join(filter(None, [text, run.problem]))

    def level(self, run):
        """A list with pairs that failed, or with a manifest that could not be written, is no plain success."""
        failed = any(item.state is JobState.FAILED for item in run.items)
        return verdicts.CHECK if failed or run.problem else ""

    def showRun(self):
        """Fill the table with the pairs."""
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

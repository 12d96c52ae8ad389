"""The Lesions tab: baseline, lesions and follow-ups, run, and the course that the user confirms."""

import qt
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.runpanel import RunPanel
from SAMConvexLib.tables import formatted
from SAMConvexLib.tablewidgets import fillTableWidget
from slicer.i18n import tr as _

from . import courseplot, results, tracking
from .checklist import CheckList, scalarVolumes
from .course import (
    FOUND,
    UNCERTAIN,
    changesOf,
    confirm,
    courseOf,
    exportCsv,
    exportJson,
    response,
    setLymphNode,
    setNewLesion,
    stateLabel,
    withdraw,
)
from .hints import tell
from .placing import Placing
from .views import showPlace, showVolume

LESION_CLASSES = (
    "vtkMRMLMarkupsFiducialNode",
    "vtkMRMLMarkupsROINode",
    "vtkMRMLMarkupsLineNode",
    "vtkMRMLSegmentationNode",
)
LESION_ROLE, FOLLOW_UP_ROLE = "lesions", "followUps"
CONFIRMED_COLUMN = 6


class TrackingPanel:
    """Connects the controls of the tab."""

    def __init__(self, ui, logic, parameters):
        self.ui, self.logic, self._parameters = ui, logic, parameters
        self.runPanel = RunPanel(
            ui.trackButton,
            ui.trackProgressBar,
            ui.trackStatusLabel,
            ui.logText,
            title=_("Track lesions"),
            cancelTip=_("Stop the computation; nothing will be changed."),
            onChange=self.onRunChanged,
        )
        self._rows = []
        self._updating = False
        self.lesions = CheckList(
            ui.lesionList,
            lambda chosen: self._keep(LESION_ROLE, chosen),
            hint=_("Press 'Place points', or mark the lesions in Markups or Segment Editor; they are listed here."),
        )
        self.followUps = CheckList(
            ui.followUpList,
            lambda chosen: self._keep(FOLLOW_UP_ROLE, chosen),
            hint=_("Load a later image of the patient (File > Add Data); it is listed here."),
        )
        self.placing = Placing(
            ui.placeLesionsButton,
            lambda: self._parameters().baselineVolume if self._parameters() is not None else None,
            self.lesionPoints,
            missing=_("Choose the baseline volume first."),
        )
        ui.trackButton.connect("clicked(bool)", self.onTrack)
        ui.courseTable.connect("itemSelectionChanged()", self.onRowSelected)
        ui.courseTable.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        ui.confirmButton.connect("clicked(bool)", self.onConfirm)
        ui.withdrawButton.connect("clicked(bool)", self.onWithdraw)
        ui.lymphNodeCheckBox.connect("toggled(bool)", self.onLymphNode)
        ui.newLesionCheckBox.connect("toggled(bool)", self.onNewLesion)
        ui.plotButton.connect("clicked(bool)", self.onPlot)
        ui.csvButton.connect("clicked(bool)", lambda checked=False: self.export("csv"))
        ui.jsonButton.connect("clicked(bool)", lambda checked=False: self.export("json"))

    # --- inputs -----------------------------------------------------------------------------------------------------

    @property
    def isRunning(self):
        return self.runPanel.isRunning

    def kill(self):
        self.runPanel.kill()
        self.forget()

    def forget(self):
        """The scene goes; a running job notices by itself."""
        self.placing.stop()

    def lesionPoints(self):
        """A checked point list of lesions, made where there is none."""
        for node in self._kept(LESION_ROLE):
            if node.IsA("vtkMRMLMarkupsFiducialNode"):
                return node
        name = slicer.mrmlScene.GenerateUniqueName(_("Lesions"))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        self._keep(LESION_ROLE, [*self._kept(LESION_ROLE), node])
        return node

    def _keep(self, role, chosen):
        """Checked nodes are node references of the parameter node, saved with the scene."""
        parameters = self._parameters()
        if parameters is None:
            return
        node = parameters.parameterNode
        node.RemoveNodeReferenceIDs(role)
        for entry in chosen:
            node.AddNodeReferenceID(role, entry.GetID())
        self.parametersChanged()

    def _kept(self, role):
        node = self._parameters().parameterNode
        found = [node.GetNthNodeReference(role, number) for number in range(node.GetNumberOfNodeReferences(role))]
        return [entry for entry in found if entry is not None]

    def nodesChanged(self):
        baseline = self._parameters().baselineVolume
        marked = [
            node
            for name in LESION_CLASSES
            for node in slicer.util.getNodesByClass(name)
            if not node.GetHideFromEditors() and not results.isResult(node)
        ]
        self.lesions.show(marked, self._kept(LESION_ROLE))
        later = [node for node in scalarVolumes() if node is not baseline]
        later += slicer.util.getNodesByClass("vtkMRMLSequenceNode")
        self.followUps.show(later, self._kept(FOLLOW_UP_ROLE))

    def request(self):
        """The TrackingRequest of the current choices."""
        parameters = self._parameters()
        chosen = [node for node in self._kept(FOLLOW_UP_ROLE) if node is not parameters.baselineVolume]
        return tracking.TrackingRequest(
            parameters.baselineVolume,
            self._kept(LESION_ROLE),
            tracking.followUpsOf(chosen, parameters.baselineVolume),
            parameters.trackMinimumScore or None,
            parameters.device.value,
        )

    def parametersChanged(self):
        if self._parameters() is None:
            return
        self.nodesChanged()
        entries = self.request().followUps
        dated = all(entry.date for entry in entries) and bool(entries)
        names = ", ".join(entry.name for entry in entries)
        self.ui.followUpOrderLabel.text = (
            ""
            if len(entries) < 2
            else (
                _("In the order of acquisition: {names}") if dated else _("In the order of the list: {names}")
            ).format(names=names)
        )
        self.updateButtons()
        self.showCourse()

    def updateButtons(self):
        running = self.isRunning
        self.ui.trackInputsButton.enabled = not running
        self.placing.update()
        sentence = "" if running else tracking.checkRequest(self.request())
        self.runPanel.updateButton(not sentence, sentence or _("Find every lesion in every follow-up."))

    # --- run --------------------------------------------------------------------------------------------------------

    def onTrack(self, checked=False):
        if self.runPanel.cancel():
            return
        self.runPanel.start(
            lambda: self.logic.startTracking(self.request()), self.onTracked, refusals=(nodes.NodeError, RuntimeError)
        )

    def onTracked(self, output):
        # A panel that was left meanwhile shows nothing.
        if self._parameters() is not None:
            self._parameters().courseTable = output.table
            self.ui.courseButton.collapsed = False

    def onRunChanged(self):
        if self._parameters() is None:
            return
        self.updateButtons()
        if not self.isRunning:
            self.showCourse()

    # --- course -----------------------------------------------------------------------------------------------------

    def table(self):
        """The table node with a course that is shown, or None."""
        node = self._parameters().courseTable if self._parameters() is not None else None
        return node if courseOf(node) is not None else None

    def showCourse(self):
        """Fill both tables from the course."""
        node, ui = self.table(), self.ui
        course = courseOf(node)
        self._updating = True
        self._rows = []
        titles = [
            _("Lesion"),
            _("Time point"),
            _("State"),
            _("Score"),
            _("Longest (mm)"),
            _("Short axis (mm)"),
            _("Confirmed (mm)"),
            _("Volume (ml)"),
            _("Since baseline (%)"),
            _("Since smallest (%)"),
            _("Note"),
        ]
        lines = []
        for lesion in course["lesions"] if course else []:
            changes = changesOf(lesion)
            for number, finding in enumerate(lesion["findings"]):
                self._rows.append((lesion["name"], number))
                figures = [
                    finding["score"],
                    finding["longest_mm"],
                    finding["short_axis_mm"],
                    finding["confirmed_mm"],
                    finding["volume_ml"],
                    *changes[number],
                ]
                texts = ["" if value is None else formatted(float(value)) for value in figures]
                state = stateLabel(finding["state"])
                start = [lesion["name"], course["timepoints"][number]["name"], state]
                lines.append((finding, [*start, *texts, finding.get("reason", "")]))
        ui.courseTable.setVisible(bool(lines))
        tell(ui.courseHintLabel, "" if lines else self.firstSteps())
        fillTableWidget(ui.courseTable, titles, [texts for _finding, texts in lines])
        for row, (finding, _texts) in enumerate(lines):
            color = stateColor(finding["state"])
            for column in range(len(titles)):
                item = ui.courseTable.item(row, column)
                item.setToolTip(finding.get("reason", ""))
                item.setForeground(qt.QBrush(qt.QColor(20, 20, 20)))
                item.setBackground(qt.QBrush(color))
                if column != CONFIRMED_COLUMN:
                    item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
        self.showResponse(course)
        self._updating = False
        for name in ("confirmButton", "withdrawButton", "plotButton", "csvButton", "jsonButton"):
            getattr(ui, name).enabled = course is not None
        self.updateChecks()

    def firstSteps(self):
        """What to do while there is no course."""
        return _(
            "First steps: 1. choose the baseline volume; 2. mark the lesions in it and check them; "
            "3. check the follow-ups; 4. press 'Track lesions'. The course is listed here."
        )

    def showResponse(self, course):
        entries = response(course) if course else []
        titles = [
            _("Time point"),
            _("Sum (mm)"),
            _("Since baseline (%)"),
            _("Since smallest (%)"),
            _("Category"),
            _("Reason"),
        ]
        lines = []
        for point, entry in zip(course["timepoints"] if entries else [], entries, strict=True):
            figures = (entry.sum_mm, entry.change_since_baseline_percent, entry.change_since_nadir_percent)
            texts = ["" if value is None else formatted(float(value)) for value in figures]
            lines.append([point["name"], *texts, entry.category, entry.reason])
        fillTableWidget(self.ui.responseTable, titles, lines)

    def selected(self):
        """[(lesion name, time point)] of the selected rows."""
        rows = sorted({item.row() for item in self.ui.courseTable.selectedItems()})
        return [self._rows[row] for row in rows if row < len(self._rows)]

    def updateChecks(self):
        """The check boxes show the selected row."""
        chosen, course = self.selected(), courseOf(self.table())
        boxes = self.ui.lymphNodeCheckBox, self.ui.newLesionCheckBox
        for box in boxes:
            box.enabled = bool(chosen) and course is not None
        if not chosen or course is None:
            return
        name, number = chosen[0]
        lesion = next(lesion for lesion in course["lesions"] if lesion["name"] == name)
        for box, checked in zip(boxes, (lesion["node"], course["new"][number]), strict=True):
            wasBlocked = box.blockSignals(True)
            box.checked = checked
            box.blockSignals(wasBlocked)

    def onRowSelected(self):
        if self._updating:
            return
        self.updateChecks()
        chosen, course = self.selected(), courseOf(self.table())
        if len(chosen) != 1 or course is None:
            return
        name, number = chosen[0]
        lesion = next(lesion for lesion in course["lesions"] if lesion["name"] == name)
        place, visit = lesion["findings"][number]["place"], course["timepoints"][number]["name"]
        # By the whole name: an image of another patient or visit would show a place that is not its own.
        volumes = [node for node in scalarVolumes() if node.GetName() == visit]
        said = ""
        if len(volumes) != 1:
            said = _("The views stay: {count} volumes of the scene are called '{visit}'; exactly one must be.").format(
                count=len(volumes), visit=visit
            )
        elif place is None:
            showVolume(volumes[0])
        else:
            showPlace(volumes[0], place)
        tell(self.ui.shownLesionLabel, said)

    def onItemChanged(self, item):
        """A typed diameter is a confirmed one; an empty cell takes it back."""
        if self._updating or item.column() != CONFIRMED_COLUMN:
            return
        name, number = self._rows[item.row()]
        text = item.text().strip().replace(",", ".")
        try:
            if text:
                confirm(self.table(), name, number, float(text))
            else:
                withdraw(self.table(), name, number)
        except (nodes.NodeError, ValueError):
            self.ui.trackStatusLabel.text = _("'{text}' is no diameter; type millimeters, 0 or more.").format(text=text)
        self.showCourse()

    def onConfirm(self, checked=False):
        self.ui.trackStatusLabel.text = ""
        for name, number in self.selected():
            try:
                confirm(self.table(), name, number)
            except nodes.NodeError as error:
                self.ui.trackStatusLabel.text = str(error)
        self._refresh()

    def onWithdraw(self, checked=False):
        for name, number in self.selected():
            withdraw(self.table(), name, number)
        self._refresh()

    def onLymphNode(self, checked):
        for name in dict.fromkeys(name for name, _number in self.selected()):
            setLymphNode(self.table(), name, checked)
        self._refresh()

    def onNewLesion(self, checked):
        for number in {number for _name, number in self.selected()}:
            setNewLesion(self.table(), number, checked)
        self._refresh()

    def _refresh(self):
        """Show the course anew, the selection kept."""
        rows = sorted({item.row() for item in self.ui.courseTable.selectedItems()})
        self.showCourse()
        self._updating = True
        for row in rows:
            for column in range(self.ui.courseTable.columnCount):
                self.ui.courseTable.item(row, column).setSelected(True)
        self._updating = False
        self.updateChecks()

    # --- plot and export --------------------------------------------------------------------------------------------

    def onPlot(self, checked=False):
        chart = courseplot.plot(self.table())
        logic = slicer.modules.plots.logic()
        if hasattr(logic, "ShowChartInLayout"):
            logic.ShowChartInLayout(chart)
        self.ui.trackStatusLabel.text = _("The diameters are in the chart '{name}'.").format(name=chart.GetName())

    def export(self, kind):
        """Ask for a file and write it."""
        titles = {"csv": _("Export the course as CSV"), "json": _("Export the course as JSON")}
        path = qt.QFileDialog.getSaveFileName(
            self.ui.courseTable, titles[kind], self.table().GetName() + "." + kind, "*." + kind
        )
        if not path:
            return
        try:
            {"csv": exportCsv, "json": exportJson}[kind](self.table(), path)
        except OSError as error:
            self.ui.trackStatusLabel.text = _("{file} could not be written: {reason}").format(
                file=path, reason=error.strerror
            )
            return
        self.ui.trackStatusLabel.text = _("Written: {file}").format(file=path)


def stateColor(state):
    """Green found, yellow uncertain, gray not in the field of view."""
    return {
        FOUND: qt.QColor(200, 240, 205),
        UNCERTAIN: qt.QColor(255, 235, 170),
    }.get(state, qt.QColor(215, 215, 215))

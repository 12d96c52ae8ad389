"""The Lesions tab: baseline, lesions and follow-ups, and the run; the course has a panel of its own."""

import slicer
from SAMConvexLib import nodes
from SAMConvexLib.runpanel import RunPanel
from slicer.i18n import tr as _

from . import results, tracking
from .checklist import CheckList, scalarVolumes
from .course import VOLUME, courseOf, courseTables, linkImages, nodeOf, visitOf
from .coursepanel import CoursePanel
from .placing import Placing

LESION_CLASSES = (
    "vtkMRMLMarkupsFiducialNode",
    "vtkMRMLMarkupsROINode",
    "vtkMRMLMarkupsLineNode",
    "vtkMRMLSegmentationNode",
)
LESION_ROLE, FOLLOW_UP_ROLE = "lesions", "followUps"


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
        self._notes = []
        self.course = CoursePanel(ui, self.table, self._chooseTable, self.firstSteps)
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
        ui.rerunButton.connect("clicked(bool)", self.onRerun)

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
        self.course.views.forget()

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
        for table in courseTables():
            course = courseOf(table)
            if course is not None:
                linkImages(table, course)
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
        self.course.views.update()

    def request(self, only=None):
        """The TrackingRequest of the current choices.

        Follow-ups that the chosen course has already are left out, unless all are in it: then they are read again.

        Args:
            only: a volume to read again instead of the checked ones.
        """
        parameters, table = self._parameters(), self.table()
        chosen = [node for node in self._kept(FOLLOW_UP_ROLE) if node is not parameters.baselineVolume]
        entries = tracking.followUpsOf(chosen if only is None else [only], parameters.baselineVolume)
        if table is not None and only is None:
            course = courseOf(table)
            entries = [entry for entry in entries if visitOf(table, course, entry.volume) is None] or entries
        return tracking.TrackingRequest(
            parameters.baselineVolume,
            self._kept(LESION_ROLE),
            entries,
            parameters.trackMinimumScore or None,
            parameters.device.value,
            table,
            parameters.findNewLesions,
        )

    def parametersChanged(self):
        if self._parameters() is None:
            return
        self.nodesChanged()
        self.ui.followUpOrderLabel.text = self.whatRuns()
        self.updateButtons()
        self.course.show()

    def whatRuns(self):
        """One sentence on the follow-ups of the next run; "" where there is nothing to say."""
        entries, table = self.request().followUps, self.table()
        names = ", ".join(entry.name for entry in entries)
        if table is not None and entries:
            known = visitOf(table, courseOf(table), entries[0].volume) is not None
            sentence = _("Read again, confirmations stay: {names}") if known else _("Added to the course: {names}")
            return sentence.format(names=names)
        if len(entries) < 2:
            return ""
        dated = all(entry.date for entry in entries)
        sentence = _("In the order of acquisition: {names}") if dated else _("In the order of the list: {names}")
        return sentence.format(names=names)

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

    def onRerun(self, checked=False):
        """Find the lesions of the selected visit again; the other visits stay as they are."""
        course = courseOf(self.table())
        volume = nodeOf(self.table(), course.visit(self.course.selectedVisits()[0]), VOLUME)
        if volume is None:
            self.ui.trackStatusLabel.text = _(
                "The image of this visit is not in the scene; load it and check it above."
            )
            return
        self.runPanel.start(
            lambda: self.logic.startTracking(self.request(only=volume)),
            self.onTracked,
            refusals=(nodes.NodeError, RuntimeError),
        )

    def onTracked(self, output):
        # A panel that was left meanwhile shows nothing.
        if self._parameters() is not None:
            self._parameters().courseTable = output.table
            self.ui.courseButton.collapsed = False
            self._notes = output.notes

    def onRunChanged(self):
        if self._parameters() is None:
            return
        self.updateButtons()
        if not self.isRunning:
            self.course.show()
            self.ui.trackStatusLabel.text = " ".join([self.ui.trackStatusLabel.text, *self._notes])
            self._notes = []

    def table(self):
        """The table node with a course that is shown, or None."""
        node = self._parameters().courseTable if self._parameters() is not None else None
        return node if courseOf(node) is not None else None

    def _chooseTable(self, table):
        self._parameters().courseTable = table
        volume = nodeOf(table, courseOf(table).visits[0], VOLUME)
        if volume is not None:
            self._parameters().baselineVolume = volume
        self.parametersChanged()

    def firstSteps(self):
        """What to do while there is no course."""
        return _(
            "First steps: 1. choose the baseline volume; 2. mark the lesions in it and check them; "
            "3. check the follow-ups; 4. press 'Track lesions'. The course is listed here."
        )

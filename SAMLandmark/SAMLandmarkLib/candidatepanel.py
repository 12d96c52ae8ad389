"""Candidates of new lesions in the Lesions tab: a list of what the program proposes, to be accepted or rejected."""

import qt
from SAMConvexLib.tablewidgets import fillTableWidget
from slicer.i18n import tr as _

from . import course as courses
from .course import courseOf
from .hints import tell


class CandidatePanel:
    """Connects the list of candidates.

    Args:
        table: callable that gives the table node with the course, or None.
        change: callable that changes the course with an action and shows it, see CoursePanel.
        views: the LesionViews that show a candidate.
    """

    def __init__(self, ui, table, change, views):
        self.ui, self.table, self._change, self._views = ui, table, change, views
        self._rows = []
        self._updating = False
        ui.candidateTable.verticalHeader().setVisible(False)
        ui.candidateTable.connect("itemSelectionChanged()", self.onSelected)
        ui.acceptCandidateButton.connect("clicked(bool)", lambda checked=False: self.decide(accept=True))
        ui.rejectCandidateButton.connect("clicked(bool)", lambda checked=False: self.decide(accept=False))

    def show(self):
        """List what nobody has decided on yet; without any, the list takes no room."""
        course, ui = courseOf(self.table()), self.ui
        self._rows, lines = [], []
        for visit in course.visits if course is not None else []:
            for number, entry in enumerate(courses.proposals().candidates_of(visit)):
                if entry["decision"] == courses.proposals().OPEN:
                    self._rows.append((visit.name, number))
                    lines.append(_texts(visit, entry))
        self._updating = True
        ui.candidateTable.clearSelection()
        fillTableWidget(ui.candidateTable, [_("Visit"), _("Size (mm)"), _("Score"), _("Reason")], lines)
        for row in range(len(lines)):
            for column in range(4):
                item = ui.candidateTable.item(row, column)
                item.setToolTip(lines[row][3])
                item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
        ui.candidateTable.resizeColumnsToContents()
        self._updating = False
        ui.candidateBox.setVisible(bool(lines))
        self._updateButtons()

    def selected(self):
        """[(visit name, number of the candidate)] of the selected rows."""
        rows = sorted({item.row() for item in self.ui.candidateTable.selectedItems()})
        return [self._rows[row] for row in rows if row < len(self._rows)]

    def onSelected(self):
        if self._updating:
            return
        self._updateButtons()
        chosen, course = self.selected(), courseOf(self.table())
        if len(chosen) == 1 and course is not None:
            visit = course.visit(chosen[0][0])
            position = courses.proposals().candidates_of(visit)[chosen[0][1]]["position"]
            tell(self.ui.shownLesionLabel, self._views.showPosition(self.table(), visit, position))

    def decide(self, accept):
        """Accept the selected candidates as new lesions, still to be confirmed, or reject them."""
        chosen, proposals = self.selected(), courses.proposals()

        def action(course):
            for visit, number in chosen:
                (proposals.accept_candidate if accept else proposals.reject_candidate)(course, visit, number)
            if accept:
                courses.decisions().open_new_lesions(course)
                return [_("Listed as new lesions; measure and confirm them.")]
            return []

        self._change(action)

    def _updateButtons(self):
        for name in ("acceptCandidateButton", "rejectCandidateButton"):
            getattr(self.ui, name).enabled = bool(self.selected())


def _texts(visit, entry):
    size = entry.get("measurement", {})
    return [
        visit.name,
        courses.sizeText(size.get("longest_mm", entry.get("diameter_mm")), size.get("short_axis_mm")),
        "" if entry.get("score") is None else f"{entry['score']:.2f}",
        entry.get("reason", ""),
    ]

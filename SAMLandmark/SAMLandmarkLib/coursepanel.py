"""The course in the Lesions tab: readings confirmed and measured, visits in order, sums and categories."""

import qt
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.tablewidgets import fillTableWidget
from slicer.i18n import tr as _

from . import course as courses
from . import courseplot, coursetexts, measuring
from .candidatepanel import CandidatePanel
from .course import courseOf
from .hints import tell
from .lesionviews import LesionViews

CONFIRMED = 3
VISIT_NAME, DATE = 0, 1
JUDGEMENT_BOXES = {
    "newLesionCheckBox": "new_lesion",
    "nonTargetProgressCheckBox": "non_targets_progress",
    "nonTargetGrewCheckBox": "non_targets_grew",
    "newGrewCheckBox": "new_lesions_grew",
}


class CoursePanel:
    """Connects the controls of the course.

    Args:
        table: callable that gives the table node with the course, or None.
        choose: callable that makes a table node the chosen one.
        firstSteps: callable that says what to do while there is no course.
    """

    def __init__(self, ui, table, choose, firstSteps):
        self.ui, self.table, self._choose, self._firstSteps = ui, table, choose, firstSteps
        self._rows = []
        self._updating = False
        self.views = LesionViews(self.onDragged)
        self.candidates = CandidatePanel(ui, table, self.change, self.views)
        ui.courseTable.verticalHeader().setVisible(False)
        ui.responseTable.verticalHeader().setVisible(False)
        for state in ("unchanged", "grown", "shrunk", "gone", "new", "merged", "split", "not found", "outside"):
            ui.stateComboBox.addItem(courses.stateLabel(state), state)
        for form, delimiter in ((_("1.5 ,"), ","), (_("1,5 ;"), ";")):
            ui.csvFormatComboBox.addItem(form, delimiter)
        for role in ("target", "non-target", "new", "unclassified"):
            ui.roleComboBox.addItem(courses.roleLabel(role), role)
        ui.courseTable.connect("itemSelectionChanged()", self.onRowSelected)
        ui.courseTable.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        ui.responseTable.connect("itemSelectionChanged()", self.updateVisit)
        ui.responseTable.connect("itemChanged(QTableWidgetItem*)", self.onVisitChanged)
        kinds = {"confirmButton": "measured", "goneButton": "disappeared"}
        kinds.update(tooSmallButton="too small", notEvaluableButton="not evaluable")
        for name, kind in kinds.items():
            getattr(ui, name).connect("clicked(bool)", lambda checked=False, kind=kind: self.confirm(kind))
        ui.withdrawButton.connect("clicked(bool)", self.onWithdraw)
        ui.measureButton.connect("clicked(bool)", self.onMeasure)
        ui.lesionSideBySideCheckBox.connect("toggled(bool)", self.onSideBySide)
        ui.lymphNodeCheckBox.connect("toggled(bool)", self.onLymphNode)
        ui.roleComboBox.connect("activated(int)", self.onRole)
        ui.stateComboBox.connect("activated(int)", self.onState)
        ui.addLesionButton.connect("clicked(bool)", self.onNewLesion)
        ui.organLineEdit.connect("editingFinished()", self.onOrgan)
        ui.proposeRolesButton.connect("clicked(bool)", self.onProposeRoles)
        for name, judgement in JUDGEMENT_BOXES.items():
            getattr(ui, name).connect("toggled(bool)", lambda checked, name=judgement: self.onJudgement(name, checked))
        ui.earlierButton.connect("clicked(bool)", lambda checked=False: self.move(-1))
        ui.laterButton.connect("clicked(bool)", lambda checked=False: self.move(1))
        ui.plotKindComboBox.addItem(_("Diameters"), courseplot.DIAMETERS)
        ui.plotKindComboBox.addItem(_("Change"), courseplot.CHANGE)
        ui.plotButton.connect("clicked(bool)", self.onPlot)
        ui.csvButton.connect("clicked(bool)", lambda checked=False: self.export("csv"))
        ui.jsonButton.connect("clicked(bool)", lambda checked=False: self.export("json"))
        ui.importButton.connect("clicked(bool)", self.onImport)

    # --- shown ------------------------------------------------------------------------------------------------------

    def show(self):
        """Fill both tables from the course; the selection stays."""
        course, ui = courseOf(self.table()), self.ui
        chosen, visits = self.selected(), self.selectedVisits()
        self._updating = True
        self._rows = []
        lines = []
        for lesion in course.lesions if course else []:
            changes = courses.rules().changes_of(course, lesion)
            for visit, since in zip(course.visits, changes, strict=True):
                if visit.name in lesion.readings:
                    self._rows.append((lesion.name, visit.name))
                    lines.append((lesion.readings[visit.name], coursetexts.readingTexts(lesion, visit, since)))
        ui.courseTable.setVisible(bool(lines))
        tell(ui.courseHintLabel, "" if lines else self._firstSteps())
        fillTableWidget(ui.courseTable, coursetexts.readingTitles(), [texts for _reading, texts in lines])
        for row, (reading, _texts) in enumerate(lines):
            self._paint(row, reading)
        self._select(ui.courseTable, [row for row, key in enumerate(self._rows) if key in chosen])
        self._showResponse(course, visits)
        for table in (ui.courseTable, ui.responseTable):
            table.resizeColumnsToContents()
        self._updating = False
        for name in ("plotButton", "csvButton", "jsonButton", "proposeRolesButton"):
            getattr(ui, name).enabled = course is not None
        self.candidates.show()
        self.updateChecks()
        self.updateVisit()

    def _paint(self, row, reading):
        for column in range(self.ui.courseTable.columnCount):
            item = self.ui.courseTable.item(row, column)
            item.setToolTip(coursetexts.readingTip(reading))
            item.setForeground(qt.QBrush(qt.QColor(20, 20, 20)))
            item.setBackground(qt.QBrush(qt.QColor(*coursetexts.stateColor(reading))))
            if column != CONFIRMED:
                item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)

    def _showResponse(self, course, chosen):
        """Every visit with its sums, both categories and the rules that decided."""
        assessed = courses.rules().assess_course(course) if course else None
        entries = assessed.visits if assessed else ()
        titles = coursetexts.visitTitles()
        lines, tips = [], []
        for number, visit in enumerate(course.visits if course else []):
            cells = [visit.name, visit.date or ""]
            if entries:
                entry = entries[number]
                cells += coursetexts.visitTexts(entry)
                tips.append(f"RECIST 1.1: {entry.recist.reason}\niRECIST: {entry.immune.reason}")
            lines.append(cells + [""] * (len(titles) - len(cells)))
        self.ui.responseTable.setVisible(bool(lines))
        fillTableWidget(self.ui.responseTable, titles, lines)
        for row in range(len(lines)):
            for column in range(len(titles)):
                item = self.ui.responseTable.item(row, column)
                item.setToolTip(tips[row] if tips else "")
                if column not in (VISIT_NAME, DATE):
                    item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
        names = [visit.name for visit in course.visits] if course else []
        self._select(self.ui.responseTable, [row for row, name in enumerate(names) if name in chosen])
        tell(self.ui.notesLabel, "\n".join(assessed.notes) if assessed else "")

    @staticmethod
    def _select(table, rows):
        # Cells that are filled anew keep a selection by place, and places change.
        table.clearSelection()
        for row in rows:
            for column in range(table.columnCount):
                table.item(row, column).setSelected(True)

    # --- selection --------------------------------------------------------------------------------------------------

    def selected(self):
        """[(lesion name, visit name)] of the selected rows."""
        rows = sorted({item.row() for item in self.ui.courseTable.selectedItems()})
        return [self._rows[row] for row in rows if row < len(self._rows)]

    def selectedVisits(self):
        """Names of the visits that are selected, or whose readings are."""
        table = self.ui.responseTable
        rows = sorted({item.row() for item in table.selectedItems()})
        return [table.item(row, VISIT_NAME).text() for row in rows]

    def onRowSelected(self):
        if self._updating:
            return
        self.updateChecks()
        course = courseOf(self.table())
        names = {visit for _lesion, visit in self.selected()}
        self._updating = True
        every = [visit.name for visit in course.visits] if course is not None else []
        self._select(self.ui.responseTable, [row for row, name in enumerate(every) if name in names])
        self._updating = False
        self.updateVisit()
        self.goTo()

    def goTo(self):
        """The views show the one selected reading."""
        chosen, course = self.selected(), courseOf(self.table())
        if len(chosen) == 1 and course is not None:
            lesion, visit = course.lesion(chosen[0][0]), course.visit(chosen[0][1])
            tell(self.ui.shownLesionLabel, self.views.show(self.table(), lesion, visit))

    def updateChecks(self):
        """The controls of a lesion show the selected one."""
        chosen, course, ui = self.selected(), courseOf(self.table()), self.ui
        on = bool(chosen) and course is not None
        for name in ("confirm", "gone", "tooSmall", "notEvaluable", "withdraw", "measure"):
            getattr(ui, f"{name}Button").enabled = on
        for control in (ui.lymphNodeCheckBox, ui.roleComboBox, ui.organLineEdit, ui.stateComboBox):
            control.enabled = on
        ui.lesionSideBySideCheckBox.enabled = on or self.views.isSideBySide
        if not on:
            return
        lesion = course.lesion(chosen[0][0])
        self._updating = True
        ui.lymphNodeCheckBox.checked = lesion.node
        ui.roleComboBox.setCurrentIndex(ui.roleComboBox.findData(lesion.role))
        ui.organLineEdit.text = lesion.organ
        ui.stateComboBox.setCurrentIndex(ui.stateComboBox.findData(lesion.readings[chosen[0][1]].state))
        self._updating = False

    def updateVisit(self):
        """The controls of a visit show the selected one."""
        if self._updating:
            return
        course, names = courseOf(self.table()), self.selectedVisits()
        follow = course is not None and len(names) == 1 and names[0] != course.visits[0].name
        judged = course.visit(names[0]).extra.get(courses.rules().JUDGEMENT, {}) if follow else {}
        self._updating = True
        for name, judgement in JUDGEMENT_BOXES.items():
            getattr(self.ui, name).enabled = follow
            getattr(self.ui, name).checked = bool(judged.get(judgement))
        self._updating = False
        for button in (self.ui.earlierButton, self.ui.laterButton, self.ui.rerunButton, self.ui.addLesionButton):
            button.enabled = follow

    # --- decisions --------------------------------------------------------------------------------------------------

    def change(self, action):
        """Change the course and show it; a refusal is told and nothing changes."""
        try:
            said = courses.change(self.table(), action)
        except nodes.NodeError as error:
            said = [str(error)]
        self.ui.trackStatusLabel.text = " ".join(said) if isinstance(said, list) else ""
        self.show()

    def confirm(self, kind):
        """Confirm the selected readings."""
        chosen = self.selected()
        self.change(lambda course: measuring.confirm(course, chosen, kind))
        self.goTo()

    def onItemChanged(self, item):
        """Typed diameters are confirmed ones, "26" or "26 x 14"; an empty cell takes them back."""
        if self._updating or item.column() != CONFIRMED:
            return
        place, text = self._rows[item.row()], item.text()
        if text.strip():
            self.change(lambda course: measuring.confirmTyped(course, *place, text))
        else:
            self.change(lambda course: measuring.withdraw(course, [place]))
        self.goTo()

    def onDragged(self, drawn):
        """A line in the views was dragged: its length is the diameter, confirmed."""
        chosen = self.selected()
        if len(chosen) == 1 and self.table() is not None:
            self.change(lambda course: measuring.confirmDrawn(course, *chosen[0], drawn))

    def onMeasure(self, checked=False):
        """Lines to drag, where the program suggested none."""
        chosen = self.selected()
        if chosen:
            place = self.crosshair(chosen[0][1])
            self.change(lambda course: measuring.begin(course, *chosen[0], place))
            self.goTo()

    def crosshair(self, visit):
        """LPS mm of the crosshair in the image of a visit."""
        place = slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0].GetCrosshairRAS()
        return courses.lpsOf(self.table(), courseOf(self.table()).visit(visit), place)

    def onNewLesion(self, checked=False):
        """A lesion that only the selected follow-up shows, at the crosshair."""
        names = self.selectedVisits()[:1]
        if not names:
            return
        place, course = self.crosshair(names[0]), courseOf(self.table())
        known, number = {lesion.name for lesion in course.lesions}, 1
        while (name := _("New lesion {number}").format(number=number)) in known:
            number += 1
        self.change(lambda course: self._added(course, name, names[0], place))
        if (name, names[0]) in self._rows:
            self._select(self.ui.courseTable, [self._rows.index((name, names[0]))])

    @staticmethod
    def _added(course, name, visit, place):
        courses.decisions().add_new_lesion(course, name, visit, place)
        return [_("Added at the crosshair; measure and confirm it.")]

    def onState(self, index):
        """What the selected lesions are at their visit; those that have merged are selected together."""
        state, chosen = self.ui.stateComboBox.itemData(index), self.selected()
        if self._updating or not chosen:
            return
        visits = list(dict.fromkeys(visit for _lesion, visit in chosen))

        def action(course):
            said = []
            for visit in visits:
                names = [lesion for lesion, other in chosen if other == visit]
                said += courses.decisions().set_state(course, names, visit, state, by=measuring.reader())
            return said

        self.change(action)

    def onWithdraw(self, checked=False):
        chosen = self.selected()
        self.change(lambda course: measuring.withdraw(course, chosen))
        self.goTo()

    def onLymphNode(self, checked):
        self._forLesions(lambda course, name: courses.decisions().set_node(course, name, checked))

    def onRole(self, index):
        role = self.ui.roleComboBox.itemData(index)
        self._forLesions(lambda course, name: courses.decisions().set_role(course, name, role))

    def onOrgan(self):
        organ = self.ui.organLineEdit.text
        self._forLesions(lambda course, name: courses.decisions().set_organ(course, name, organ))

    def _forLesions(self, action):
        if self._updating or self.table() is None:
            return
        names = dict.fromkeys(name for name, _visit in self.selected())

        def everyOne(course):
            for name in names:
                action(course, name)

        if names:
            self.change(everyOne)

    def onProposeRoles(self, checked=False):
        self.change(courses.decisions().apply_proposed_roles)

    def onJudgement(self, judgement, checked):
        if self._updating or self.table() is None:
            return
        names = self.selectedVisits()[:1]
        if names:
            self.change(lambda course: courses.decisions().set_judgement(course, names[0], judgement, checked))

    # --- visits -----------------------------------------------------------------------------------------------------

    def onVisitChanged(self, item):
        """A typed name or date of a visit."""
        if self._updating or item.column() not in (VISIT_NAME, DATE):
            return
        course = courseOf(self.table())
        name, text = course.visits[item.row()].name, item.text().strip()
        changes = courses.changes()
        if item.column() == VISIT_NAME:
            self.change(lambda course: changes.rename_visit(course, name, text))
        else:
            self.change(lambda course: changes.set_date(course, name, text or None))

    def move(self, step):
        """Put the selected visit earlier or later."""
        course, names = courseOf(self.table()), self.selectedVisits()
        place = [visit.name for visit in course.visits].index(names[0]) + step
        self.change(lambda course: courses.changes().move_visit(course, names[0], place))

    # --- views, plot and files --------------------------------------------------------------------------------------

    def onSideBySide(self, checked):
        if self._updating:
            return
        course, chosen = courseOf(self.table()), self.selected()
        place = () if course is None or not chosen else (course.lesion(chosen[0][0]), course.visit(chosen[0][1]))
        said = self.views.setSideBySide(checked and bool(place), *((self.table(), *place) if place else ()))
        tell(self.ui.shownLesionLabel, said)
        if checked and not self.views.isSideBySide:
            self._uncheckSideBySide()

    def _uncheckSideBySide(self):
        self._updating = True
        self.ui.lesionSideBySideCheckBox.checked = False
        self._updating = False

    def leaveViews(self):
        """The views as the user had them."""
        self.views.leave()
        self._uncheckSideBySide()

    def onPlot(self, checked=False):
        kind = self.ui.plotKindComboBox.itemData(self.ui.plotKindComboBox.currentIndex)
        chart = courseplot.plot(self.table(), kind)
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
            if kind == "csv":
                box = self.ui.csvFormatComboBox
                courses.exportCsv(self.table(), path, box.itemData(box.currentIndex))
            else:
                courses.exportJson(self.table(), path)
        except nodes.NodeError as error:
            self.ui.trackStatusLabel.text = str(error)
            return
        self.ui.trackStatusLabel.text = _("Written: {file}").format(file=path)

    def onImport(self, checked=False):
        """Ask for a course that another station wrote."""
        path = qt.QFileDialog.getOpenFileName(self.ui.courseTable, _("Import a course"), "", "*.json")
        if not path:
            return
        try:
            self._choose(courses.importJson(path))
        except nodes.NodeError as error:
            self.ui.trackStatusLabel.text = str(error)
            return
        self.ui.trackStatusLabel.text = _("Read: {file}").format(file=path)

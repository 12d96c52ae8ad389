"""The Landmarks tab: template, library, target scans, run, and the table in which results are checked."""

import qt
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.choices import Device, Mode
from SAMConvexLib.files import chosenFolder
from SAMConvexLib.runpanel import RunPanel
from SAMConvexLib.tables import formatted
from slicer.i18n import tr as _

from . import library, matching, results
from .checklist import CheckList, scalarVolumes
from .hints import tell
from .ownviews import OwnViews
from .placing import Placing
from .views import SideBySide, showPlace

LIBRARY_SETTING = "SAMLandmark/LibraryDirectory"
MINIMUM_SURE = 0.8


class LandmarkPanel:
    """Connects the controls of the tab.

    Args:
        parameters: callable that gives the current parameter node, or None.
    """

    def __init__(self, ui, logic, parameters):
        self.ui, self.logic, self._parameters = ui, logic, parameters
        self.runPanel = RunPanel(
            ui.applyButton,
            ui.progressBar,
            ui.statusLabel,
            ui.logText,
            title=_("Find points"),
            cancelTip=_("Stop the computation; nothing will be changed."),
            onChange=self.onRunChanged,
        )
        self.views = None
        self.pointViews = OwnViews(self.belonging)
        self.placing = Placing(
            ui.placePointsButton,
            lambda: self._parameters().templateVolume if self._parameters() is not None else None,
            self.templatePoints,
            missing=_("Choose the template volume first."),
        )
        self._updating = False
        self._observed = None
        self._observation = None
        self._template = None
        self._templateObservations = []
        for choice in Mode:
            ui.modeComboBox.addItem(choice.label(), choice.value)
        for choice in Device:
            ui.deviceComboBox.addItem(choice.label(), choice.value)
        self.queries = CheckList(
            ui.queryList, self.onQueriesChecked, hint=_("Load a second image (File > Add Data); it is listed here.")
        )
        if slicer.app.userSettings().value(LIBRARY_SETTING):
            ui.libraryDirectoryButton.directory = str(slicer.app.userSettings().value(LIBRARY_SETTING))
        ui.libraryDirectoryButton.connect("directoryChanged(QString)", self.onDirectoryChanged)
        ui.libraryComboBox.connect("currentIndexChanged(int)", self.onTemplateChosen)
        ui.libraryLoadButton.connect("clicked(bool)", self.onLoad)
        ui.librarySaveButton.connect("clicked(bool)", self.onSave)
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.resultSelector.connect("currentIndexChanged(int)", self.onResultChosen)
        ui.pointTable.connect("itemSelectionChanged()", self.onPointSelected)
        ui.acceptButton.connect("clicked(bool)", lambda checked=False: self.decide(results.ACCEPTED))
        ui.rejectButton.connect("clicked(bool)", lambda checked=False: self.decide(results.REJECTED))
        ui.restoreButton.connect("clicked(bool)", self.onRestore)
        ui.rematchButton.connect("clicked(bool)", self.onRematch)
        ui.placeButton.connect("clicked(bool)", self.onPlace)
        ui.acceptAllButton.connect("clicked(bool)", self.onAcceptSure)
        ui.tableButton.connect("clicked(bool)", self.onTable)
        ui.sideBySideCheckBox.connect("toggled(bool)", self.onSideBySide)
        ui.linkCheckBox.connect("toggled(bool)", self.onLink)
        ui.votesCheckBox.connect("toggled(bool)", self.onVotes)
        # Dragging sends many changes; the table follows when they pause.
        self._rest = qt.QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(60)
        self._rest.connect("timeout()", self.onPointsRest)
        self.listLibrary()

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def job(self):
        """The running or last job, or None."""
        return self.runPanel.job

    @property
    def isRunning(self):
        return self.runPanel.isRunning

    def kill(self):
        self.runPanel.kill()
        self.forget()

    def forget(self):
        """The scene goes: nothing of it may be held."""
        self._rest.stop()
        self._observe(None)
        self._observeTemplate(None)
        self.placing.stop()
        self.pointViews.release()
        self.views = None
        self._uncheck(self.ui.sideBySideCheckBox)

    def _uncheck(self, box):
        wasBlocked = box.blockSignals(True)
        box.checked = False
        box.blockSignals(wasBlocked)

    def nodesChanged(self):
        """Volumes or results came or went."""
        self.listVolumes()
        if self.views is not None and not all(
            node is None or slicer.mrmlScene.IsNodePresent(node)
            for node in (self.views.templateVolume, self.views.queryVolume)
        ):
            self.leaveViews()
        self.listResults()
        self.pointViews.follow()

    def listVolumes(self):
        """Offer every volume but the template."""
        parameters = self._parameters()
        offered = [node for node in scalarVolumes() if node is not parameters.templateVolume]
        self.queries.show(offered, [node for node in parameters.queryVolumes if node is not None])

    def parametersChanged(self):
        parameters = self._parameters()
        if parameters is None:
            return
        if parameters.templateVolume is not None and parameters.templateVolume in list(parameters.queryVolumes):
            parameters.queryVolumes = [v for v in parameters.queryVolumes if v is not parameters.templateVolume]
        self._observeTemplate(parameters.templateMarkups)
        self.listVolumes()
        self.updateButtons()
        self.showPoints()
        self.pointViews.update()

    def _observeTemplate(self, markups):
        """What can be found depends on where the template's points are."""
        if markups is self._template:
            return
        for node, tag in self._templateObservations:
            node.RemoveObserver(tag)
        self._template, self._templateObservations = markups, []
        if markups is not None:
            events = slicer.vtkMRMLMarkupsNode
            self._templateObservations = [
                (markups, markups.AddObserver(event, lambda caller, event: self._rest.start()))
                for event in (events.PointModifiedEvent, events.PointPositionDefinedEvent, events.PointRemovedEvent)
            ]

    # --- library ----------------------------------------------------------------------------------------------------

    def onDirectoryChanged(self, directory):
        slicer.app.userSettings().setValue(LIBRARY_SETTING, directory)
        self.listLibrary()

    def listLibrary(self):
        entries, problems = library.listTemplates(chosenFolder(self.ui.libraryDirectoryButton))
        combo = self.ui.libraryComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for entry in entries:
            combo.addItem(entry.name, str(entry.folder))
        combo.blockSignals(wasBlocked)
        hint = (
            "" if entries else _("No template yet: choose the folder of a library, or save the points above into it.")
        )
        self.ui.libraryDescriptionLabel.text = "\n".join(problems) or hint
        self.onTemplateChosen()

    def onTemplateChosen(self, index=0):
        combo = self.ui.libraryComboBox
        folder = combo.itemData(combo.currentIndex) if combo.count else None
        self.ui.libraryLoadButton.enabled = bool(folder)
        if not folder:
            return
        try:
            entry = library.readEntry(folder)
        except library.LibraryError as error:
            self.ui.libraryDescriptionLabel.text = str(error)
            return
        self.ui.libraryImageCheckBox.enabled = entry.image is not None
        self.ui.libraryDescriptionLabel.text = _("{count} points. {description}").format(
            count=len(entry.points), description=entry.description
        )

    def onLoad(self, checked=False):
        combo, box = self.ui.libraryComboBox, self.ui.libraryImageCheckBox
        try:
            markups, volume = library.load(combo.itemData(combo.currentIndex), box.enabled and box.checked)
        except (library.LibraryError, RuntimeError, OSError) as error:
            self.ui.libraryDescriptionLabel.text = str(error)
            return
        parameters = self._parameters()
        parameters.templateVolume = volume
        parameters.templateMarkups = markups

    def onSave(self, checked=False):
        parameters, ui = self._parameters(), self.ui
        if parameters.templateVolume is None or parameters.templateMarkups is None:
            ui.libraryDescriptionLabel.text = _("Choose the template volume and its points first.")
            return
        if self.isRunning:
            return

        def tell(sentence):
            ui.libraryDescriptionLabel.text = sentence

        self._start(
            lambda: self.logic.startSaving(
                chosenFolder(ui.libraryDirectoryButton),
                ui.libraryNameEdit.text,
                parameters.templateVolume,
                parameters.templateMarkups,
                ui.libraryDescriptionEdit.text,
                ui.libraryReferenceCheckBox.checked,
            ),
            lambda folder: self.listLibrary(),
            refusals=(library.LibraryError, nodes.NodeError),
            tell=tell,
        )

    # --- run --------------------------------------------------------------------------------------------------------

    def request(self):
        """The MatchRequest of the current choices."""
        parameters = self._parameters()
        templates = []
        if parameters.templateMarkups is not None:
            templates.append(matching.Template.of(parameters.templateMarkups, parameters.templateVolume))
        templates += [matching.Template.of(node) for node in self.voters() if node is not parameters.templateMarkups]
        return matching.MatchRequest(
            templates,
            [node for node in parameters.queryVolumes if node is not None],
            parameters.minimumScore or None,
            parameters.mode.value,
            parameters.device.value,
        )

    def voters(self):
        """Results that the user made templates."""
        found = [node for node in results.resultNodes() if node.GetAttribute(matching.VOTES_ATTRIBUTE)]
        return [node for node in found if results.templatePoints(node)]

    def onQueriesChecked(self, chosen):
        parameters = self._parameters()
        if parameters is not None:
            parameters.queryVolumes = chosen

    def updateButtons(self):
        ui, running = self.ui, self.isRunning
        for section in ("templateButton", "queryButton"):
            getattr(ui, section).enabled = not running
        sentence = "" if running else matching.checkRequest(self.request())
        self.runPanel.updateButton(not sentence, sentence or _("Find the template's points in every checked scan."))
        tell(ui.leftOutLabel, "" if sentence or running else matching.noteOn(self.request()))
        self.placing.update()
        chosen = bool(self.selectedRows())
        for name in ("acceptButton", "rejectButton", "restoreButton"):
            getattr(ui, name).enabled = chosen
        ui.rematchButton.enabled = chosen and not running
        ui.placeButton.enabled = len(self.selectedRows()) == 1
        hasResult = self.result() is not None
        for name in ("acceptAllButton", "tableButton", "votesCheckBox"):
            getattr(ui, name).enabled = hasResult
        ui.sideBySideCheckBox.enabled = hasResult or self.views is not None

    def onApply(self, checked=False):
        if self.runPanel.cancel():
            return
        request = self.request()
        first = request.templates[0].markups
        # A second run with the same template fills the same nodes.
        known = {
            results.queryVolume(node): node
            for node in results.resultNodes()
            if node.GetNodeReference(results.TEMPLATE_ROLE) is first
            and node not in [template.markups for template in request.templates]
        }
        filled = [known.get(volume) for volume in request.queryVolumes]
        self._start(lambda: self.logic.startMatching(request, filled), self.onMatched)

    def onMatched(self, found):
        self.ui.resultsButton.collapsed = False
        self.listResults(found[0])

    def _start(self, makeJob, after, **options):
        def shown(result):
            # A panel that was left meanwhile shows nothing.
            if self._parameters() is not None:
                after(result)

        self.runPanel.start(makeJob, shown, **options)

    def onRunChanged(self):
        if self._parameters() is not None:
            self.updateButtons()

    # --- results ----------------------------------------------------------------------------------------------------

    def result(self):
        """The result markups that the table shows, or None."""
        combo = self.ui.resultSelector
        identifier = combo.itemData(combo.currentIndex) if combo.count else None
        node = slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
        return node if results.isResult(node) else None

    def listResults(self, choose=None):
        """Fill the list of results, keeping the choice."""
        combo = self.ui.resultSelector
        wanted = choose or self.result()
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for node in results.resultNodes():
            title = _("{volume}: {points}").format(volume=results.queryVolume(node).GetName(), points=node.GetName())
            combo.addItem(title, node.GetID())
        index = combo.findData(wanted.GetID()) if wanted is not None else 0
        combo.setCurrentIndex(max(index, 0) if combo.count else -1)
        combo.blockSignals(wasBlocked)
        self.onResultChosen()

    def onResultChosen(self, index=0):
        node = self.result()
        self._observe(node)
        self.showPoints()
        box = self.ui.votesCheckBox
        wasBlocked = box.blockSignals(True)
        box.checked = node is not None and bool(node.GetAttribute(matching.VOTES_ATTRIBUTE))
        box.blockSignals(wasBlocked)
        if self.views is not None and node is not None:
            self.views.setVolumes(self.templateVolume(node), results.queryVolume(node), self.pairs(node))
        self.pointViews.update()
        if self._parameters() is not None:
            self.updateButtons()

    def _observe(self, node):
        if self._observed is not None:
            self._observed.RemoveObserver(self._observation)
        self._observed, self._observation = node, None
        if node is not None:
            event = slicer.vtkMRMLMarkupsNode.PointModifiedEvent
            self._observation = node.AddObserver(event, lambda caller, event: self._rest.start())

    def onPointsRest(self):
        node = self.result()
        if self._parameters() is None:
            return
        self.updateButtons()
        if node is None:
            return
        results.update(node)
        self.showPoints()
        if self.views is not None:
            self.views.setPairs(self.pairs(node))

    def showPoints(self):
        """Fill the table from the chosen result."""
        table, node = self.ui.pointTable, self.result()
        parameters = self._parameters()
        truth = parameters.truthMarkups if parameters is not None else None
        shown = results.rows(node, truth) if node is not None else []
        titles = [_("Point"), _("State"), _("90 % within (mm)"), _("Score")]
        titles += [_("Return error (mm)"), _("Templates agreeing"), _("Error (mm)")]
        table.setVisible(bool(shown))
        tell(self.ui.firstStepsLabel, "" if shown else self.firstSteps())
        self._updating = True
        table.setRowCount(len(shown))
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        for row, point in enumerate(shown):
            texts = [point.label, results.stateLabel(point.state)]
            texts += ["" if point.error90 is None else str(round(point.error90))]
            texts += ["" if value is None else formatted(float(value)) for value in (point.score, point.cycle)]
            texts += ["" if point.votes is None else str(point.votes)]
            texts += ["" if point.error is None else formatted(point.error)]
            for column, text in enumerate(texts):
                item = table.item(row, column)
                if item is None or item.text() != text:
                    item = qt.QTableWidgetItem(text)
                    table.setItem(row, column, item)
                item.setBackground(qt.QBrush(stateColor(point)))
                item.setForeground(qt.QBrush(qt.QColor(20, 20, 20)))
        table.resizeColumnsToContents()
        self._updating = False
        summary = results.errorSummary(node, truth) if node is not None else None
        self.ui.errorLabel.text = (
            ""
            if summary is None
            else _("Error of {count} points: mean {mean:.1f} mm, largest {largest:.1f} mm").format(
                count=summary[2], mean=summary[0], largest=summary[1]
            )
        )

    def selectedRows(self):
        table = self.ui.pointTable
        return sorted({item.row() for item in table.selectedItems()} & set(range(table.rowCount)))

    def onPointSelected(self):
        if self._updating or self._parameters() is None:
            return
        self.updateButtons()
        rows = self.selectedRows()
        if len(rows) == 1:
            self.jumpTo(rows[0])

    def jumpTo(self, row):
        """Show a point in both views (side by side), else in all views; these change to the image that it lies in."""
        node = self.result()
        label, position = node.GetNthControlPointLabel(row), results.positionOf(node, row)
        query, template = results.queryVolume(node), self.templateVolume(node)
        known = results.templateIndex(node, row)
        inTemplate = results.positionOf(*known) if known is not None else None
        said = ""
        if self.views is not None:
            if inTemplate is not None:
                self.views.jump(inTemplate, position)
            elif position is not None:
                self.views.jump(self.views.opposite(position, toQuery=False), position)
        elif position is not None:
            showPlace(query, position)
            said = _("The views show '{label}' in '{volume}'.").format(label=label, volume=query.GetName())
        elif inTemplate is not None and template is not None:
            showPlace(template, inTemplate)
            said = _("'{label}' has no place in '{volume}'; the views show it in the template '{template}'.").format(
                label=label, volume=query.GetName(), template=template.GetName()
            )
        tell(self.ui.shownLabel, said)

    def decide(self, decision):
        node = self.result()
        for row in self.selectedRows():
            results.decide(node, row, decision)
        self.onPointsRest()

    def onRestore(self, checked=False):
        """Back to the engine's answer: decision and correction are undone."""
        node = self.result()
        known = results.records(node)
        for row in self.selectedRows():
            results.decide(node, row, "")
            record = known.get(node.GetNthControlPointID(row), {})
            if record.get("found") and record.get("place"):
                results.place(node, row, record["place"])
            elif record.get("place") and not record.get("found"):
                node.UnsetNthControlPointPosition(row)
        self.onPointsRest()

    def onAcceptSure(self, checked=False):
        node = self.result()
        for row, point in enumerate(results.rows(node)):
            if point.state == results.NEW and point.confidence >= MINIMUM_SURE:
                results.decide(node, row, results.ACCEPTED)
        self.onPointsRest()

    def onRematch(self, checked=False):
        node, request = self.result(), self.request()
        request.queryVolumes = [results.queryVolume(node)]
        request.templates = [t for t in request.templates if t.markups is not node]
        request.only = frozenset(node.GetNthControlPointLabel(row) for row in self.selectedRows())
        request.templates = [t for t in request.templates if request.points(t.markups)]
        self._start(lambda: self.logic.startRematching(request, node), lambda found: self.listResults(found[0]))

    def onPlace(self, checked=False):
        crosshair = slicer.util.getNodesByClass("vtkMRMLCrosshairNode")[0]
        for row in self.selectedRows():
            results.place(self.result(), row, crosshair.GetCrosshairRAS())
        self.onPointsRest()

    def onTable(self, checked=False):
        title = slicer.mrmlScene.GenerateUniqueName(_("Found landmarks"))
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
        parameters, node = self._parameters(), self.result()
        truth = {node.GetID(): parameters.truthMarkups} if parameters.truthMarkups is not None else {}
        results.fillTable(table, results.resultNodes(), truth)
        self.ui.statusLabel.text = _("The results are in the table '{name}'.").format(name=table.GetName())

    # --- views ------------------------------------------------------------------------------------------------------

    def pairs(self, node):
        """(template, query) positions of the points that both have."""
        found = []
        for row in range(node.GetNumberOfControlPoints()):
            position, known = results.positionOf(node, row), results.templateIndex(node, row)
            if position is not None and known is not None:
                found.append((results.positionOf(*known), position))
        return found

    def onSideBySide(self, checked):
        if not checked:
            self.leaveViews()
            return
        node = self.result()
        self.views = SideBySide(self.templateVolume(node), results.queryVolume(node), self.pairs(node))
        self.views.linked = self.ui.linkCheckBox.checked
        self.views.enter()
        self.pointViews.update()
        if self.selectedRows():
            self.jumpTo(self.selectedRows()[0])

    def templateVolume(self, node):
        """The image that a result's template points lie in; for results of earlier versions the one that is chosen."""
        parameters, markups = self._parameters(), node.GetNodeReference(results.TEMPLATE_ROLE)
        volume = results.templateVolume(node)
        if volume is None and markups is not None and not markups.GetAttribute(matching.TEMPLATE_FOLDER_ATTRIBUTE):
            volume = parameters.templateVolume if markups is parameters.templateMarkups else None
        return volume

    def belonging(self):
        """[(markups, volume)]: which image every point list belongs to, the shown result first."""
        parameters, chosen = self._parameters(), self.result()
        if parameters is None:
            return []
        pairs = [(node, results.queryVolume(node)) for node in results.resultNodes()]
        pairs.sort(key=lambda pair: pair[0] is not chosen)
        pairs += [(pair[0].GetNodeReference(results.TEMPLATE_ROLE), self.templateVolume(pair[0])) for pair in pairs]
        markups = parameters.templateMarkups
        if markups is not None:
            pairs.append((markups, matching.Template.of(markups, parameters.templateVolume).volume))
        return pairs

    def releasePoints(self):
        """Points are drawn as the user had them; placing ends."""
        self.placing.stop()
        self.pointViews.release()

    def templatePoints(self):
        """The template's point list, made where there is none."""
        parameters = self._parameters()
        if parameters.templateMarkups is None:
            name = slicer.mrmlScene.GenerateUniqueName(_("Landmarks"))
            parameters.templateMarkups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
        return parameters.templateMarkups

    def firstSteps(self):
        """What to do while there is no result."""
        return _(
            "First steps: 1. choose the template volume and press 'Place points' to mark landmarks in it; "
            "2. check the target scans; 3. press 'Find points'. The points found are listed here."
        )

    def leaveViews(self):
        """The user's own layout again."""
        if self.views is not None:
            ended, self.views = self.views, None
            ended.leave()
        self._uncheck(self.ui.sideBySideCheckBox)

    def onLink(self, checked):
        if self.views is not None:
            self.views.linked = checked

    def onVotes(self, checked):
        node = self.result()
        if node is not None:
            node.SetAttribute(matching.VOTES_ATTRIBUTE, "1" if checked else None)
            self.updateButtons()


def stateColor(point):
    """Green for sure, yellow between, red for not found; blue where the scan or the template ends, gray if rejected."""
    if point.state == results.REJECTED:
        return qt.QColor(200, 200, 200)
    if point.state in (results.OUTSIDE, results.OUTSIDE_TEMPLATE):
        return qt.QColor(190, 215, 245)
    if point.state == results.NOT_FOUND:
        return qt.QColor.fromHsv(0, 90, 250)
    hue = int(120 * min(max(point.confidence, 0.0), 1.0))
    return qt.QColor.fromHsv(hue, 90, 250)

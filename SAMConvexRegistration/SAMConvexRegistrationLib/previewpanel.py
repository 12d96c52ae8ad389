"""The Preview section: controls of a RegistrationPreview."""

import qt
import slicer
from SAMConvexLib import nodes, verdicts
from SAMConvexLib.tablewidgets import fillTableWidget
from slicer.i18n import tr as _

from . import attachment, quality
from .preview import PreviewMode, RegistrationPreview

FLICKER_MILLISECONDS = 500
# Comparisons that must be computed wait until the slider rests.
SLIDER_REST_MILLISECONDS = 200
# The panel lays itself out anew before anything in it can be scrolled to.
LAYOUT_MILLISECONDS = 100


class PreviewPanel:
    """Connects the controls to a preview that exists only while one of its modes is shown.

    Args:
        parameters: callable that gives the current parameter node, or None.
        isRunning: callable; nodes are not moved while a registration of them runs.
    """

    def __init__(self, ui, parameters, isRunning):
        self.ui = ui
        self._parameters, self._isRunning = parameters, isRunning
        self.preview = None
        self._placeIndex = -1
        self._placeMode = None
        self._updating = False
        ui.previewModeComboBox.addItem(_("Off"), "")
        for mode in PreviewMode:
            ui.previewModeComboBox.addItem(mode.label(), mode.value)
        self._flickerTimer = qt.QTimer()
        self._flickerTimer.setInterval(FLICKER_MILLISECONDS)
        self._flickerTimer.connect("timeout()", self.onFlicker)
        self._restTimer = qt.QTimer()
        self._restTimer.setSingleShot(True)
        self._restTimer.setInterval(SLIDER_REST_MILLISECONDS)
        self._restTimer.connect("timeout()", self.onSliderRests)
        self._layoutTimer = qt.QTimer()
        self._layoutTimer.setSingleShot(True)
        self._layoutTimer.setInterval(LAYOUT_MILLISECONDS)
        self._layoutTimer.connect("timeout()", self.onLaidOut)
        self._resultTimer = qt.QTimer()
        self._resultTimer.setSingleShot(True)
        self._resultTimer.setInterval(0)
        self._resultTimer.connect("timeout()", self.onResult)
        ui.previewModeComboBox.connect("currentIndexChanged(int)", self.onModeChanged)
        ui.blendSlider.connect("valueChanged(double)", self.onBlendChanged)
        ui.deformationSlider.connect("valueChanged(double)", self.onDeformationChanged)
        ui.outlinesCheckBox.connect("toggled(bool)", self.onOutlinesToggled)
        ui.gridCheckBox.connect("toggled(bool)", self.onGridToggled)
        ui.worstButton.connect("clicked(bool)", self.onWorstButton)
        ui.leastCertainButton.connect("clicked(bool)", self.onLeastCertainButton)
        ui.attachCheckBox.connect("toggled(bool)", self.onAttachToggled)
        ui.revertButton.connect("clicked(bool)", self.onRevertButton)
        self.update()

    # --- what is looked at ------------------------------------------------------------------------------------------

    def subject(self):
        """(fixed volume, moving volume, transform, moving segmentation, expected error) of the result, or None."""
        parameters = self._parameters()
        transform = parameters.outputTransform if parameters is not None else None
        if transform is None or nodes.gridOfTransform(transform) is None:
            return None
        role = slicer.vtkMRMLTransformNode
        fixed = transform.GetNodeReference(role.GetFixedNodeReferenceRole()) or parameters.fixedVolume
        moving = transform.GetNodeReference(role.GetMovingNodeReferenceRole()) or parameters.movingVolume
        if fixed is None or moving is None:
            return None
        return fixed, moving, transform, parameters.movingSegmentation, parameters.outputError

    def hidden(self):
        """Nodes that would lie over a preview: what is not registered yet, and the filled copy of its outlines."""
        parameters = self._parameters()
        every = (parameters.movingSegmentation, parameters.movingMarkups, parameters.outputSegmentation)
        return [node for node in every if node is not None]

    def attachable(self):
        """The user's moving nodes that can be placed under the result."""
        subject, parameters = self.subject(), self._parameters()
        if subject is None:
            return []
        return [node for node in (subject[1], subject[3], parameters.movingMarkups) if node is not None]

    def update(self):
        """Show the current state in the controls."""
        self._updating = True
        mode = self.preview.mode if self.preview else None
        self.ui.previewModeComboBox.setCurrentIndex(self.ui.previewModeComboBox.findData(mode.value if mode else ""))
        blending = mode is PreviewMode.BLEND
        active = self.preview is not None
        self.ui.blendSlider.enabled = blending
        self.ui.deformationSlider.enabled = active and mode is not PreviewMode.JACOBIAN
        self.ui.outlinesCheckBox.enabled = active
        self.ui.gridCheckBox.enabled = active
        attachable = self.attachable()
        self.ui.attachCheckBox.enabled = bool(attachable) and not self._isRunning()
        self.ui.attachCheckBox.checked = any(attachment.isAttached(node) for node in attachable)
        subject = self.subject()
        self.ui.leastCertainButton.enabled = subject is not None and subject[4] is not None
        self.ui.revertButton.enabled = active or self.ui.attachCheckBox.checked
        self._updating = False

    def parametersChanged(self):
        subject = self.subject()
        self.ui.previewButton.enabled = subject is not None
        if self.preview is None:
            self.ui.worstLabel.text = ""
        parameters = self._parameters()
        hasResult = parameters is not None and parameters.outputTransform is not None
        showReport(self.ui, quality.reportOf(parameters.outputTransform) if hasResult else {})
        self.update()

    # --- starting and leaving ---------------------------------------------------------------------------------------

    def show(self, mode):
        """Show a mode; starts the preview when it is the first one."""
        subject = self.subject()
        if mode is PreviewMode.ERROR and (subject is None or subject[4] is None):
            self.ui.worstLabel.text = _("Check 'Expected error' among the outputs and apply again.")
            self.update()
            return
        if self.preview is None:
            if subject is None:
                return
            try:
                self.preview = RegistrationPreview(*subject, hidden=self.hidden())
            except nodes.NodeError as error:
                self.ui.worstLabel.text = str(error)
                self.update()
                return
            self._placeIndex = -1
            self.preview.setBlend(self.ui.blendSlider.value / 100)
            self.preview.setDeformation(self.ui.deformationSlider.value)
            self.preview.setOutlinesVisible(self.ui.outlinesCheckBox.checked)
            self.preview.setGridVisible(self.ui.gridCheckBox.checked)
        self.preview.show(mode)
        if mode is PreviewMode.ERROR:
            self.ui.worstLabel.text = _("green: up to 1 mm, yellow: 5 mm, red: 10 mm, purple: 20 mm and more")
        self._flickerTimer.start() if mode is PreviewMode.FLICKER else self._flickerTimer.stop()
        self.update()

    def showResult(self):
        """A run has finished: show it as soon as the application has drawn what was imported, unless reverted first."""
        self._resultTimer.start()

    def onResult(self):
        """The registered image over the fixed one, in every slice view."""
        self.show(PreviewMode.BLEND)
        if self.preview is not None:
            self.preview.bringIntoView()
        self._layoutTimer.start()

    def leave(self):
        """Another module is shown: nothing moves by itself any more."""
        if self.preview is not None and self.preview.mode is PreviewMode.FLICKER:
            self.show(PreviewMode.BLEND)

    def revert(self):
        """End the preview: everything as before."""
        self._flickerTimer.stop()
        self._restTimer.stop()
        self._layoutTimer.stop()
        self._resultTimer.stop()
        if self.preview is not None:
            ended, self.preview = self.preview, None
            ended.revert()
        self.ui.worstLabel.text = ""
        self.update()

    def forget(self):
        """The scene is being closed: its nodes go by themselves."""
        self._flickerTimer.stop()
        self._restTimer.stop()
        self._layoutTimer.stop()
        self._resultTimer.stop()
        self.preview = None

    def nodeRemoved(self):
        """End the preview when one of its nodes was removed."""
        if self.preview is not None and not self.preview.isComplete():
            self.revert()

    # --- controls ---------------------------------------------------------------------------------------------------

    def onModeChanged(self, index):
        if self._updating:
            return
        value = self.ui.previewModeComboBox.itemData(index)
        if value:
            self.show(PreviewMode(value))
        else:
            self.revert()

    def onBlendChanged(self, value):
        if self.preview is not None:
            self.preview.setBlend(value / 100)

    def onDeformationChanged(self, value):
        if self.preview is None:
            return
        if self.preview.mode in (PreviewMode.CHECKERBOARD, PreviewMode.DIFFERENCE):
            self._restTimer.start()
        else:
            self.preview.setDeformation(value)

    def onSliderRests(self):
        if self.preview is not None:
            self.preview.setDeformation(self.ui.deformationSlider.value)

    def onLaidOut(self):
        # Several passes, each asked for by the one before.
        for _pass in range(3):
            slicer.app.processEvents()
        scrollTo(self.ui.verdictLabel)

    def onFlicker(self):
        if self.preview is not None:
            self.preview.flick()

    def onOutlinesToggled(self, checked):
        if self.preview is not None:
            self.preview.setOutlinesVisible(checked)

    def onGridToggled(self, checked):
        if self.preview is not None:
            self.preview.setGridVisible(checked)

    def onWorstButton(self, checked=False):
        # How far off the result may be comes first; a deformation that is right may well change volumes.
        self._jump(PreviewMode.BLEND, lambda preview: self._uncertain(preview) + self._changed(preview))

    def onLeastCertainButton(self, checked=False):
        self._jump(PreviewMode.ERROR, self._uncertain)

    @staticmethod
    def _uncertain(preview):
        text, label = _("nine of ten errors are below {millimeters} mm"), _("{millimeters} mm")
        figures = [(position, f"{value:.1f}") for position, value in preview.leastCertainPlaces()]
        return [(position, text.format(millimeters=v), label.format(millimeters=v)) for position, v in figures]

    @staticmethod
    def _changed(preview):
        return [(position, changeSentence(value), changeLabel(value)) for position, value in preview.worstPlaces()]

    def _jump(self, mode, placesOf):
        """Go to the next of some (position, text, label of the marker) places; ``mode`` starts the preview."""
        if self.preview is None or (mode is PreviewMode.ERROR and self.preview.mode is not mode):
            self.show(mode)
        if mode is not self._placeMode:
            self._placeMode, self._placeIndex = mode, -1
        places = placesOf(self.preview) if self.preview is not None else []
        if not places:
            return
        self._placeIndex = (self._placeIndex + 1) % len(places)
        position, text, label = places[self._placeIndex]
        self.preview.jumpTo(position)
        self.preview.mark(position, label)
        self.ui.worstLabel.text = _("{number} of {count}: {kind}").format(
            number=self._placeIndex + 1, count=len(places), kind=text
        )

    def onAttachToggled(self, checked):
        if self._updating:
            return
        subject = self.subject()
        if subject is None:
            return
        try:
            for node in self.attachable():
                if checked:
                    attachment.attach(node, subject[2])
                else:
                    attachment.detach(node)
        except nodes.NodeError as error:
            self.ui.worstLabel.text = str(error)
        self.update()

    def onRevertButton(self, checked=False):
        for node in self.attachable():
            attachment.detach(node)
        self.revert()


def scrollTo(widget):
    """Move the panel that a widget lies in until all of the widget is seen."""
    area = widget.parent()
    while area is not None and not hasattr(area, "ensureWidgetVisible"):
        area = area.parent()
    if area is not None:
        area.ensureWidgetVisible(widget, 0, 8)


def changeSentence(determinant):
    """What a Jacobian determinant from fixed to moving means for the tissue that is registered."""
    if determinant <= 0:
        return _("folded: two places lie on one")
    percent = round(100 / determinant)
    text = _("shrunk to {percent} % of its volume") if percent < 100 else _("grown to {percent} % of its volume")
    return text.format(percent=percent)


def changeLabel(determinant):
    """The same in a word, for a marker in the views."""
    return _("folded") if determinant <= 0 else _("{percent} %").format(percent=round(100 / determinant))


def showReport(ui, report):
    """Show a result's verdict and fill the quality table of the panel."""
    verdicts.showBanner(ui.verdictLabel, report)
    fillTableWidget(ui.qualityTable, quality.titles(), quality.tableTexts(report))
    header = ui.qualityTable.horizontalHeader()
    header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    # Long names wrap; the figures are what is looked for.
    header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
    ui.qualityTable.resizeRowsToContents()

"""The Live tab: two volumes, start and stop, what the matching says."""

import numpy as np
import qt
from SAMConvexLib import nodes
from SAMConvexLib.runpanel import installDependencies
from slicer.i18n import tr as _

from .live import LiveState
from .views import SideBySide

# Short against the 50 ms a user may wait; an idle poll costs some microseconds.
POLL_MILLISECONDS = 5


class LivePanel:
    """Connects the controls of the tab to a LiveMatching that exists only while it is on."""

    def __init__(self, ui, logic, parameters):
        self.ui, self.logic, self._parameters = ui, logic, parameters
        self.live = None
        self.views = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.connect("timeout()", self.onTimeout)
        ui.liveStartButton.connect("toggled(bool)", self.onStartToggled)
        ui.liveSideBySideCheckBox.connect("toggled(bool)", self.onSideBySide)

    @property
    def isOn(self):
        return self.live is not None and self.live.isOn

    def kill(self):
        self.stop()

    def forget(self):
        """The scene goes."""
        self.views = None
        self._setChecked(self.ui.liveSideBySideCheckBox, False)
        self.stop()

    def nodesChanged(self):
        pass

    def parametersChanged(self):
        parameters = self._parameters()
        if self.live is not None:
            self.live.follow = parameters.liveFollow
            self.live.minimumScore = parameters.liveMinimumScore or None
            if self.live.heatWanted != parameters.liveHeat:
                self.live.setHeatWanted(parameters.liveHeat)
        self.update()

    def update(self):
        parameters, ui = self._parameters(), self.ui
        if parameters is None:
            return
        chosen = parameters.liveFirst is not None and parameters.liveSecond is not None
        different = chosen and parameters.liveFirst is not parameters.liveSecond
        ui.liveStartButton.enabled = different or self.isOn
        ui.liveStartButton.text = _("Stop") if self.isOn else _("Start")
        ui.liveStartButton.toolTip = (
            _("Stop following the mouse.")
            if self.isOn
            else _("Follow the mouse; both volumes are prepared once.")
            if different
            else _("Choose two different volumes.")
        )
        for selector in (ui.liveFirstSelector, ui.liveSecondSelector):
            selector.enabled = not self.isOn
        ui.liveSideBySideCheckBox.enabled = different or self.views is not None
        progress = self.live.progress if self.isOn else 1.0
        ui.liveProgressBar.visible = progress != 1.0
        # A bar without a length moves by itself.
        ui.liveProgressBar.maximum = 0 if progress is None else 1000
        ui.liveProgressBar.value = int(1000 * (progress or 0.0))

    def onStartToggled(self, checked):
        self.start() if checked else self.stop()

    def start(self):
        """Prepare both volumes and follow the mouse."""
        parameters = self._parameters()
        if not installDependencies(self.ui.liveStartButton, self._say):
            self._setChecked(self.ui.liveStartButton, False)
            return
        try:
            self.live = self.logic.liveMatching(parameters.liveFirst, parameters.liveSecond)
            self.live.onChange = self.onLiveChanged
            self.live.follow = parameters.liveFollow
            self.live.heatWanted = parameters.liveHeat
            self.live.minimumScore = parameters.liveMinimumScore or None
            self.live.start()
        except (nodes.NodeError, RuntimeError, OSError) as error:
            self.live = None
            self._say(str(error))
            self._setChecked(self.ui.liveStartButton, False)
            return
        self._timer.start()
        self.update()

    def stop(self):
        """End the process; the views stay."""
        self._timer.stop()
        if self.live is not None:
            ended, self.live = self.live, None
            ended.onChange = None
            ended.stop()
            self.ui.liveStatusLabel.text = ""
        self._setChecked(self.ui.liveStartButton, False)
        if self.views is not None:
            ended, self.views = self.views, None
            ended.leave()
            self._setChecked(self.ui.liveSideBySideCheckBox, False)
        self.update()

    def onTimeout(self):
        if self.live is not None:
            self.live.poll()

    def onLiveChanged(self, live):
        if live is not self.live:
            return
        ui = self.ui
        ui.liveStatusLabel.text = live.message
        if live.latencies:
            ui.liveLatencyLabel.text = _("Answered in {milliseconds} ms (median)").format(
                milliseconds=round(1000 * float(np.median(live.latencies)))
            )
        if live.state is LiveState.FAILED:
            self._timer.stop()
            self.live = None
            self._setChecked(ui.liveStartButton, False)
        self.update()

    def onSideBySide(self, checked):
        parameters = self._parameters()
        if checked:
            self.views = SideBySide(parameters.liveFirst, parameters.liveSecond)
            # The matched point moves the other view, not the position.
            self.views.linked = False
            self.views.enter()
        elif self.views is not None:
            ended, self.views = self.views, None
            ended.leave()

    def _say(self, sentence):
        self.ui.liveStatusLabel.text = sentence

    def _setChecked(self, box, checked):
        wasBlocked = box.blockSignals(True)
        box.checked = checked
        box.blockSignals(wasBlocked)

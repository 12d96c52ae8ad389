"""The controls of one run at a time: Apply that becomes Cancel, progress bar, status line, log."""

import slicer
from slicer.i18n import tr as _

from . import dependencies, status, verdicts
from .job import JobState
from .nodes import NodeError
from .polling import pollWithTimer, stopPolling


def installDependencies(button, say, refuse=None):
    """Make the engine able to run; False, with the reason told by ``refuse(sentence)`` (else ``say``), where it cannot.

    Args:
        button: what started it; it cannot be pressed again meanwhile.
    """
    enabled = button.enabled
    if dependencies.missingReason():
        button.enabled = False
        say(_("Installing PyTorch; that can take some minutes..."))
        slicer.app.processEvents()
    try:
        dependencies.ensure()
    except dependencies.DependencyError as error:
        (refuse or say)(str(error))
        return False
    finally:
        button.enabled = enabled
    say("")
    return True


class RunPanel:
    """Starts jobs, shows the running one, cancels it.

    Whatever has ``state``, ``isFinished``, ``fraction``, ``poll``, ``cancel``, ``kill``, ``result`` and ``onChange`` as
    an EngineJob has them can be run.

    Args:
        button, progressBar, statusLabel, logText: the widgets; a panel may be without a log.
        title: the button's text while nothing runs.
        cancelTip: its tool tip while something does.
        onChange: called without arguments after every change, to update other controls.
        sentence, level: give the status line of a job and the verdicts level whose color it has.
    """

    def __init__(
        self,
        button,
        progressBar,
        statusLabel,
        logText=None,
        *,
        title,
        cancelTip,
        onChange,
        sentence=status.sentence,
        level=status.level,
    ):
        self._button, self._progressBar, self._statusLabel, self._logText = button, progressBar, statusLabel, logText
        self._title, self._cancelTip = title, cancelTip
        self._onChange, self._sentence, self._level = onChange, sentence, level
        self._after = None
        self._refused = False
        self.job = None

    @property
    def isRunning(self):
        return self.job is not None and not self.job.isFinished

    def say(self, text, level=""):
        """Put a sentence into the status line, on the color of a verdicts level where it is a warning or an error."""
        self._refused = False
        self._statusLabel.text = text
        self._statusLabel.setStyleSheet(verdicts.style(level) if text and level else "")

    def refuse(self, text):
        """Say why something was not done."""
        self.say(text, verdicts.DO_NOT_USE)
        self._refused = True

    def forget(self):
        """What a run could not use was changed: take the sentence about it away."""
        failed = self.job is not None and self.job.state in (JobState.FAILED, JobState.CANCELLED)
        if not self.isRunning and (self._refused or failed):
            self.say("")

    def installDependencies(self):
        """Make the engine able to run; False, with the reason in the status line, where it cannot."""
        return installDependencies(self._button, self.say, self.refuse)

    def start(self, makeJob, after=None, refusals=(NodeError,), tell=None):
        """Start a job where the engine can run and the inputs allow it.

        Args:
            makeJob: called to make and start the job.
            after: called with the job's result once it is done.
            refusals: exceptions of ``makeJob`` that are sentences for the user; those of files and folders always are.
            tell: where such a sentence goes, if not into the status line.
        """
        if not self.installDependencies():
            return
        try:
            with slicer.util.WaitCursor():
                job = makeJob()
        except (*refusals, OSError) as error:
            (tell or self.refuse)(str(error))
            return
        self.job, self._after = job, after
        if self._logText is not None:
            self._logText.plainText = ""
        job.onChange = self._onJobChanged
        pollWithTimer(job)
        self._onJobChanged(job)

    def cancel(self):
        """Cancel what is running; False where nothing is."""
        if not self.isRunning:
            return False
        self.job.cancel()
        return True

    def kill(self):
        """End everything at once (the panel is being removed)."""
        if self.isRunning:
            stopPolling(self.job)
            self.job.kill()

    def updateButton(self, enabled, toolTip=None):
        """Show Cancel while something runs, else the title; ``enabled`` and ``toolTip`` are for the latter."""
        button = self._button
        if self.isRunning:
            cancelling = self.job.state is JobState.CANCELLING
            button.text = _("Cancelling...") if cancelling else _("Cancel")
            button.toolTip = self._cancelTip
            button.enabled = not cancelling
            return
        button.text = self._title
        button.enabled = enabled
        if toolTip is not None:
            button.toolTip = toolTip

    def _onJobChanged(self, job):
        if job is not self.job:
            return
        self._progressBar.visible = not job.isFinished
        self._progressBar.value = int(1000 * job.fraction)
        self.say(self._sentence(job), self._level(job))
        if self._logText is not None:
            self._logText.plainText = job.log
        if job.state is JobState.DONE and self._after is not None:
            self._after(job.result)
        self._onChange()

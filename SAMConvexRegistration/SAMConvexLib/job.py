"""One run of the engine in its own process: states, progress, cancellation. No Qt: somebody calls ``poll()``.

    idle -> preparing -> running -> importing -> done
                 \\          \\          \\
                  +----------+----------+--> cancelling -> cancelled      (and -> failed from any of them)

A separate process keeps the application alive while the engine computes, and makes a crash, a kill or a full memory
cost nothing but the run. Files are written and read in a worker thread; nodes are only touched inside ``poll()``.
"""

import json
import logging
import queue
import re
import shutil
import threading
import time
from enum import Enum

import slicer
import vtk
from slicer.i18n import tr as _

from .process import EngineProcess, crashSentence, engineCommand

LOG_LIMIT = 256_000
GRACE_SECONDS = 0.2
TICK_SECONDS = 1.0


class JobState(Enum):
    IDLE = "idle"
    PREPARING = "preparing"
    RUNNING = "running"
    CANCELLING = "cancelling"
    IMPORTING = "importing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


FINAL_STATES = (JobState.DONE, JobState.CANCELLED, JobState.FAILED)


class JobFailed(RuntimeError):
    """The run ended without a result; the message is one sentence for the user."""


class JobCancelled(RuntimeError):
    """The run was cancelled; neither a success nor an error."""


class JobProgress:
    """What is known of a run: stage, overall fraction, seconds left, memory. Unknown values are None."""

    def __init__(self):
        self.stage = ""
        self.fraction = 0.0
        self.message = ""
        self.secondsLeft = None
        self.memoryMib = None
        self.reportTime = time.monotonic()

    def remaining(self):
        """Seconds left as of now: what was reported last, less the time since; below 0 it takes longer than that."""
        return None if self.secondsLeft is None else self.secondsLeft - (time.monotonic() - self.reportTime)


def startRun(run, command, finish, guards=(), collect=None):
    """Start the EngineJob of a files.PreparedRun; ``collect`` replaces the run's own reading."""
    job = EngineJob(
        run.arguments,
        prepare=run.write,
        collect=collect or run.read,
        finish=finish,
        guards=guards,
        folder=run.folder,
        names=run.names,
        command=command,
    )
    job.start()
    return job


class EngineJob:
    """Runs prepare (thread) -> engine (process) -> collect (thread) -> finish (caller of poll).

    Args:
        arguments: engine arguments after ``samconvex``.
        prepare: writes the input files; touches no node.
        collect: reads the result files; its value goes to ``finish``.
        finish: puts results into nodes; its value becomes ``result``.
        guards: nodes whose removal cancels the run.
        folder: temporary folder, removed at the end.
        names: text replacements (file path -> node name) for messages.
        command: replaces the engine's command line (tests).
    Attributes:
        onChange: called as ``onChange(job)`` after every change of state or progress.
    """

    def __init__(
        self, arguments, prepare=None, collect=None, finish=None, guards=(), folder=None, names=None, command=None
    ):
        self._command = command or engineCommand(arguments)
        self._prepare, self._collect, self._finish = prepare, collect, finish
        self._guards = [node for node in guards if node is not None]
        self._folder = folder
        self._names = dict(names or {})
        self._process = None
        self._worker = None
        self._workerOutcome = None
        self._killTime = None
        self._observations = []
        self._logSize = 0
        self._log = []
        self._lastErrorLines = []
        self._startTime = None
        self._changeTime = 0.0
        self._polling = False
        self.state = JobState.IDLE
        self.progress = JobProgress()
        self.result = None
        self.message = ""
        self.seconds = 0.0
        self.onChange = None

    # --- what users of the job call ---------------------------------------------------------------------------------

    @property
    def isFinished(self):
        return self.state in FINAL_STATES

    @property
    def fraction(self):
        """Share of the run that is done."""
        return self.progress.fraction

    @property
    def log(self):
        """Everything the engine printed, the oldest lines dropped beyond 256 kB."""
        return "\n".join(self._log)

    def start(self):
        """Begin; returns at once. ``poll()`` must be called several times a second from now on."""
        if self.state is not JobState.IDLE:
            raise RuntimeError("a job runs once")
        self._startTime = time.monotonic()
        self._observe()
        self._setState(JobState.PREPARING)
        self._startWorker(self._prepare)

    def cancel(self, reason=""):
        """Stop as soon as possible; the state changes at once and is final within a second of polling."""
        if self.isFinished or self.state in (JobState.IDLE, JobState.CANCELLING):
            return
        self.message = reason or _("Cancelled; nothing was changed.")
        if self._process is not None:
            self._process.end(force=False)
            self._killTime = time.monotonic() + GRACE_SECONDS
        self._setState(JobState.CANCELLING)

    def kill(self):
        """End everything at once, without waiting; for an application that is closing."""
        if self.isFinished or self.state is JobState.IDLE:
            return
        if self._process is not None:
            self._process.end(force=True)
        self.message = self.message or _("Cancelled; nothing was changed.")
        self._end(JobState.CANCELLED)

    def poll(self):
        """Advance: read progress, notice the end, import results. Call it from the thread that owns the scene."""
        if self._polling or self.isFinished or self.state is JobState.IDLE:
            return
        self._polling = True
        try:
            self._advance()
        except Exception as error:  # a defect here must end the run visibly, not leave it running
            logging.exception("SAMConvex job failed")
            self._fail(str(error) or type(error).__name__)
        finally:
            self._polling = False

    def wait(self, callback=None, interval=0.05):
        """Poll until the end (blocking) and return the result.

        Args:
            callback: called as ``callback(job)``; returning False cancels.
        Raises:
            JobCancelled, JobFailed.
        """
        while not self.isFinished:
            self.poll()
            if callback is not None and not self.isFinished and callback(self) is False:
                self.cancel()
            if not self.isFinished:
                time.sleep(interval)
        if self.state is JobState.CANCELLED:
            raise JobCancelled(self.message)
        if self.state is JobState.FAILED:
            raise JobFailed(self.message)
        return self.result

    # --- states -----------------------------------------------------------------------------------------------------

    def _advance(self):
        if self._process is not None:
            self._readLines()
        if self.state is JobState.CANCELLING:
            self._advanceCancelling()
        elif self.state is JobState.PREPARING and self._workerEnded():
            self._process = EngineProcess(self._command)
            self._setState(JobState.RUNNING)
        elif self.state is JobState.RUNNING:
            status = self._process.exitStatus
            if status is not None:
                self._readLines()
                self._processEnded(status)
            elif time.monotonic() - self._changeTime >= TICK_SECONDS:
                # The engine may be silent for long; the time left goes on.
                self._changed()
        elif self.state is JobState.IMPORTING and self._workerEnded():
            self.result = self._finish(self._workerOutcome) if self._finish else self._workerOutcome
            self.progress.fraction, self.progress.secondsLeft = 1.0, 0.0
            self._end(JobState.DONE)

    def _advanceCancelling(self):
        if self._process is None or self._process.isGone:
            if self._process is not None:
                # Children of the engine that outlived it.
                self._process.end(force=True)
            self._end(JobState.CANCELLED)
        elif time.monotonic() >= self._killTime:
            self._process.end(force=True)

    def _processEnded(self, status):
        if status == 0:
            self._setState(JobState.IMPORTING)
            self._startWorker(self._collect)
        elif status == 3:
            self.message = _("Cancelled; nothing was changed.")
            self._end(JobState.CANCELLED)
        elif status in (2, 4):
            self._fail(self._errorSentence())
        else:
            self._fail(
                crashSentence(status, self._lastErrorLines)
                or _("The computation stopped unexpectedly: {error} The log has the details.").format(
                    error=self._errorSentence()
                )
            )

    def _fail(self, sentence):
        if self._process is not None and self._process.exitStatus is None:
            self._process.end(force=True)
        self.message = sentence
        self._end(JobState.FAILED)

    def _errorSentence(self):
        lines = [line for line in self._lastErrorLines if line.strip()]
        sentence = re.sub(r"^(samconvex[^:]*: )?(error: )?", "", lines[-1].strip()) if lines else ""
        for path, name in self._names.items():
            sentence = sentence.replace(str(path), f"'{name}'")
        return sentence or _("no message.")

    def _end(self, state):
        for subject, tag in self._observations:
            subject.RemoveObserver(tag)
        self._observations = []
        self.seconds = time.monotonic() - self._startTime
        if self._folder is not None and (self._worker is None or not self._worker.is_alive()):
            shutil.rmtree(self._folder, ignore_errors=True)
        self._setState(state)

    def _setState(self, state):
        self.state = state
        self._changed()

    def _changed(self):
        self._changeTime = time.monotonic()
        if self.onChange is not None:
            self.onChange(self)

    # --- worker thread ----------------------------------------------------------------------------------------------

    def _startWorker(self, function):
        self._workerOutcome = None
        folder = self._folder

        def run():
            try:
                self._workerOutcome = function() if function else None
            except Exception as error:
                self._workerOutcome = error
            if self.isFinished and folder is not None:
                # Cancelled meanwhile: the folder could not be removed while it was being written.
                shutil.rmtree(folder, ignore_errors=True)

        self._worker = threading.Thread(target=run, daemon=True)
        self._worker.start()

    def _workerEnded(self):
        if self._worker.is_alive():
            return False
        if isinstance(self._workerOutcome, Exception):
            raise self._workerOutcome
        return True

    # --- engine output ----------------------------------------------------------------------------------------------

    def _readLines(self):
        changed = False
        for _count in range(2000):
            try:
                name, line = self._process.lines.get_nowait()
            except queue.Empty:
                break
            if name == "out" and line.startswith("{") and self._readProgress(line):
                changed = True
                continue
            if name == "err":
                self._lastErrorLines = [*self._lastErrorLines[-20:], line]
            self._addToLog(line)
        if changed:
            self._changed()

    def _addToLog(self, line):
        self._log.append(line)
        self._logSize += len(line) + 1
        while self._logSize > LOG_LIMIT and len(self._log) > 1:
            self._logSize -= len(self._log.pop(0)) + 1

    def _readProgress(self, line):
        try:
            values = json.loads(line)
        except ValueError:
            return False
        if "stage" not in values:
            return False
        progress = self.progress
        progress.stage = str(values["stage"])
        progress.message = str(values.get("message") or "")
        if isinstance(values.get("percent"), int | float):
            # Progress that runs backwards looks broken to a user.
            progress.fraction = max(progress.fraction, min(values["percent"] / 100.0, 1.0))
        progress.memoryMib = values.get("memory_mib", progress.memoryMib)
        progress.secondsLeft = values.get("seconds_left")
        progress.reportTime = time.monotonic()
        return True

    # --- scene ------------------------------------------------------------------------------------------------------

    def _observe(self):
        scene = slicer.mrmlScene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def onNodeRemoved(_caller, _event, node):
            if node in self._guards:
                self.cancel(_("'{name}' was removed; the computation was cancelled.").format(name=node.GetName()))

        def onSceneClose(_caller, _event):
            self.cancel(_("The scene was closed; the computation was cancelled."))

        self._observations = [
            (scene, scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, onNodeRemoved)),
            (scene, scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, onSceneClose)),
        ]

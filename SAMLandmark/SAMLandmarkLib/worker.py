"""The persistent process behind live matching: keeps embeddings, answers one request after the other. No Qt.

A process of its own keeps the application alive while it embeds, and a crash costs a restart of that process only.
"""

import json
import logging

from SAMConvexLib.process import EngineProcess, crashSentence, engineCommand
from slicer.i18n import tr as _


def workerCommand():
    """Command line of the process."""
    return engineCommand([], "samconvex.landmarks.live")


class LiveWorker:
    """Sends requests and hands the answers to whoever asked; somebody calls ``poll()``.

    Args:
        command: replaces the process's command line (tests).
    Attributes:
        onEnd: called as ``onEnd(sentence)`` when the process has ended by itself.
    """

    def __init__(self, command=None):
        self._command = command or workerCommand()
        self._process = None
        self._number = 0
        self._waiting = {}
        self._lastErrorLines = []
        self.onEnd = None

    @property
    def isRunning(self):
        return self._process is not None

    @property
    def isBusy(self):
        """True while an answer is owed."""
        return bool(self._waiting)

    def start(self):
        """Start the process; it answers as soon as it can."""
        if self._process is None:
            self._process = EngineProcess(self._command, interactive=True)

    def stop(self):
        """End the process at once; open requests are never answered."""
        process, self._process = self._process, None
        self._waiting = {}
        if process is not None:
            process.end(force=True)

    def request(self, callback, **values):
        """Send a request; ``callback(answer)`` gets its answer, and for loading also the progress before."""
        self.start()
        self._number += 1
        self._waiting[self._number] = callback
        self._process.send(json.dumps({"id": self._number, **values}))
        return self._number

    def poll(self):
        """Hand out what has been answered; call it from the thread that owns the scene."""
        process = self._process
        if process is None:
            return
        # Its last words count too: they name the reason.
        status = process.exitStatus if process.isGone else None
        while process is self._process and not process.lines.empty():
            name, line = process.lines.get_nowait()
            if name == "err":
                self._lastErrorLines = [*self._lastErrorLines[-20:], *filter(None, [line.strip()])]
            else:
                self._handOut(line)
        if status is not None and process is self._process:
            self.stop()
            if self.onEnd is not None:
                lines = self._lastErrorLines
                reason = lines[-1] if lines else status
                self.onEnd(
                    crashSentence(status, lines) or _("The matching process ended: {error}").format(error=reason)
                )

    def _handOut(self, line):
        try:
            answer = json.loads(line)
        except ValueError:
            logging.debug("SAMLandmark worker: %s", line)
            return
        final = any(name in answer for name in ("done", "skipped", "error"))
        callback = self._waiting.pop(answer.get("id"), None) if final else self._waiting.get(answer.get("id"))
        if callback is not None:
            callback(answer)

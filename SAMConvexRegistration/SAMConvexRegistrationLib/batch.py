"""Many pairs in a row with the same settings: volumes of the scene, or file pairs of a CSV."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from SAMConvexLib.job import FINAL_STATES, JobState
from slicer.i18n import tr as _

MANIFEST = "manifest.json"


class BatchError(ValueError):
    """An unusable list; the message says what to do."""


@dataclass
class BatchItem:
    """One pair of the list.

    Attributes:
        name: shown in the list and used for folders and nodes.
        start: called to make and start the job of this pair.
        state, message, seconds, report: filled when it has run; the message of a success is the engine's warnings.
    """

    name: str
    start: object
    state: JobState = JobState.IDLE
    message: str = ""
    seconds: float = 0.0
    report: object = None


class BatchRun:
    """Runs items one after the other; a failed pair does not stop the others. ``poll()`` advances it.

    Args:
        manifestFolder: where manifest.json is kept up to date, or None.
    Attributes:
        problem: one sentence where the manifest could not be kept up to date, else "".
    """

    def __init__(self, items, manifestFolder=None):
        if not items:
            raise BatchError(_("The list is empty; add at least one pair."))
        self.items = items
        self.onChange = None
        self.problem = ""
        self._manifestFolder = Path(manifestFolder) if manifestFolder else None
        self._job = None
        self._position = -1
        self._cancelled = False

    @property
    def isFinished(self):
        return self._position >= len(self.items) or (self._cancelled and self._job is None)

    @property
    def fraction(self):
        """Share of the whole list that is done."""
        done = sum(item.state in FINAL_STATES for item in self.items)
        running = self._job.progress.fraction if self._job is not None else 0.0
        return min(1.0, (done + running) / len(self.items))

    @property
    def state(self):
        """DONE at the end, whatever became of the pairs: each has a state of its own."""
        return JobState.DONE if self.isFinished else JobState.RUNNING

    @property
    def currentJob(self):
        return self._job

    def start(self):
        """Begin with the first pair.

        Raises:
            BatchError: the folder cannot be written.
        """
        self._writeManifest()
        if self.problem:
            raise BatchError(self.problem)
        self._next()

    def cancel(self):
        """Stop the running pair and leave out the rest."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()

    def kill(self):
        """End the running pair at once, without waiting; for an application that is closing."""
        if self._job is not None:
            self._job.kill()

    def poll(self):
        """Advance; call it from the thread that owns the scene."""
        if self._job is None:
            return
        self._job.poll()
        item = self.items[self._position]
        item.state = self._job.state
        if self._job.isFinished:
            item.report = getattr(self._job.result, "report", self._job.result)
            item.message = self._job.message or " ".join((item.report or {}).get("warnings", []))
            item.seconds = self._job.seconds
            self._job = None
            self._writeManifest()
            if not self._cancelled:
                self._next()
        self._changed()

    def wait(self, interval=0.05):
        """Blocking form of start and poll."""
        import time

        if self._position < 0:
            self.start()
        while not self.isFinished:
            self.poll()
            time.sleep(interval)
        return self.items

    def _next(self):
        while True:
            self._position += 1
            if self._position >= len(self.items):
                break
            item = self.items[self._position]
            try:
                self._job = item.start()
                item.state = self._job.state
                break
            except Exception as error:
                item.state, item.message = JobState.FAILED, str(error)
                self._writeManifest()
        self._changed()

    def _changed(self):
        if self.onChange is not None:
            self.onChange(self)

    def _writeManifest(self):
        """Bring the manifest up to date; where that fails ``problem`` says so and the pairs go on."""
        if self._manifestFolder is None:
            return
        content = [
            {"name": item.name, "state": item.state.value, "message": item.message, "seconds": round(item.seconds, 2)}
            | ({"report": item.report} if isinstance(item.report, dict) else {})
            for item in self.items
        ]
        try:
            self._manifestFolder.mkdir(parents=True, exist_ok=True)
            (self._manifestFolder / MANIFEST).write_text(json.dumps(content, indent=2), encoding="utf-8")
            self.problem = ""
        except OSError as error:
            self.problem = _("{folder} could not be written ({reason}); choose another output folder.").format(
                folder=self._manifestFolder, reason=error.strerror or error
            )


def readPairs(csvPath):
    """[(name, fixed path, moving path)] of a CSV with the columns fixed, moving and optionally name.

    Relative paths are relative to the CSV's folder.

    Raises:
        BatchError: missing file or columns, an empty list, a path that does not exist, a name that occurs twice.
    """
    path = Path(csvPath)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BatchError(_("{path} could not be read as a CSV file.").format(path=path)) from error
    if not rows:
        raise BatchError(_("{path} lists no pair; it needs the columns fixed and moving.").format(path=path))
    if not {"fixed", "moving"} <= set(rows[0]):
        raise BatchError(_("{path} needs the columns fixed and moving (and, if wanted, name).").format(path=path))
    pairs = []
    for number, row in enumerate(rows, start=1):
        files = []
        for side in ("fixed", "moving"):
            file = path.parent / (row[side] or "").strip()
            if not (row[side] or "").strip() or not file.exists():
                raise BatchError(
                    _("{path}, pair {number}: the {side} image '{file}' does not exist.").format(
                        path=path, number=number, side=side, file=row[side]
                    )
                )
            files.append(file)
        name = (row.get("name") or "").strip() or f"pair{number:03d}"
        pairs.append((name, *files))
    names = [pair[0] for pair in pairs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BatchError(_("{path} has the name '{name}' more than once.").format(path=path, name=repeated[0]))
    return pairs

"""Many pairs with the same settings: volumes of the scene one after the other, or the engine's cohort of files."""

import csv
import re
import time
from dataclasses import dataclass
from pathlib import Path

from SAMConvexLib import verdicts
from SAMConvexLib.job import FINAL_STATES, EngineJob, JobState
from slicer.i18n import tr as _

# The cohort's files, the text between several sentences of a cell, and the exit status where some rows failed.
RESULTS, PROVENANCE, PAGE = "results.csv", "cohort.json", "index.html"
BETWEEN = " | "
# The first line of the table of faults, and what separates its cells.
_FAULTS = re.compile(r"row\s+column\s+what is wrong")
_GAP = re.compile(r"\s{2,}")
SOME_FAILED = 5
# Where the figures of results.csv stand in a report.
FIGURES = {
    "expected_error_median_mm": ("expected_error_mm", "median"),
    "tre_final_mm": ("tre_mm", "final", "mean"),
    "dice_final": ("dice", "final_mean"),
    "folding_percent": ("folding_percent",),
}


class BatchError(ValueError):
    """An unusable list; the message says what to do."""


@dataclass
class BatchItem:
    """One pair of the list.

    Attributes:
        name: shown in the list.
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
    """Runs items one after the other; a failed pair does not stop the others. ``poll()`` advances it."""

    def __init__(self, items):
        if not items:
            raise BatchError(_("The list is empty; add at least one pair."))
        self.items = items
        self.onChange = None
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
        """Begin with the first pair."""
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
            if not self._cancelled:
                self._next()
        self._changed()

    def wait(self, interval=0.05):
        """Blocking form of start and poll."""
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
        self._changed()

    def _changed(self):
        if self.onChange is not None:
            self.onChange(self)


class CohortRun:
    """``samconvex cohort`` on a table of image files: an EngineJob whose rows are read as they end, the worst first.

    Args:
        csvPath: the table. folder: of all results.
        settings: RegistrationSettings of rows that say nothing else.
        workers: processes; 0 lets memory and cores decide. scheduler: address of a running dask scheduler, or "".
        resume: go on with what ``folder`` holds; False runs every row again.
        engineCommand: gives the command line of the engine for its arguments.
    Attributes:
        items: a CohortRow each, the worst first.
    """

    def __init__(self, csvPath, folder, settings, engineCommand, workers=0, scheduler="", resume=True):
        self.folder = Path(folder)
        arguments = ["cohort", csvPath, "-o", folder, "--progress", "json", *settingsOfRows(settings)]
        if (self.folder / PROVENANCE).is_file():
            arguments.append("--resume" if resume else "--overwrite")
        if scheduler:
            arguments += ["--scheduler", scheduler]
        elif workers > 0:
            arguments += ["--workers", workers]
        self.items = []
        self.onChange = None
        self._job = EngineJob(arguments, command=engineCommand(arguments), done=(0, SOME_FAILED))
        self._job.onChange = self._jobChanged
        self._read = None

    @property
    def state(self):
        return self._job.state

    @property
    def isFinished(self):
        return self._job.isFinished

    @property
    def fraction(self):
        return self._job.fraction

    @property
    def currentJob(self):
        """The command while it runs, and after it has failed; None once its rows say more."""
        return None if self.state is JobState.DONE else self._job

    @property
    def log(self):
        return self._job.log

    @property
    def problem(self):
        """One sentence where the command has ended well and its table is not there, else ""."""
        if self.state is not JobState.DONE or (self.folder / RESULTS).is_file():
            return ""
        return _("{path} could not be read; check the output folder and run the list again.").format(
            path=self.folder / RESULTS
        )

    @property
    def faults(self):
        """(row, column, what is wrong) of every cell that cannot run, where nothing was started for them."""
        lines = self.log.splitlines() if self.state is JobState.FAILED else []
        start = next((number for number, line in enumerate(lines) if _FAULTS.fullmatch(line.strip())), len(lines))
        cells = [_GAP.split(line.strip(), maxsplit=2) for line in lines[start + 1 :]]
        return [tuple(line) for line in cells if len(line) == 3]

    @property
    def result(self):
        return self.items

    def start(self):
        self._job.start()

    def cancel(self):
        """Stop; rows that are done stay so, and the next run goes on from there."""
        self._job.cancel(_("Cancelled; what is done stays, the next run goes on from there."))

    def kill(self):
        self._job.kill()

    def poll(self):
        """Advance; call it from the thread that owns the scene."""
        self._job.poll()

    def wait(self, interval=0.05):
        """Blocking form of start and poll; returns the rows."""
        if self.state is JobState.IDLE:
            self.start()
        while not self.isFinished:
            self.poll()
            time.sleep(interval)
        return self.items

    def _jobChanged(self, job):
        self._readRows()
        if self.onChange is not None:
            self.onChange(self)

    def _readRows(self):
        """The rows anew where the engine has written them since."""
        path = self.folder / RESULTS
        # A row of an earlier run says nothing of this one before the engine has looked.
        if self.state is JobState.PREPARING or not self._job.progress.stage:
            return
        try:
            stamp = path.stat().st_mtime_ns
            if stamp == self._read:
                return
            with open(path, newline="", encoding="utf-8") as file:
                rows = [CohortRow(row) for row in csv.DictReader(file)]
        except (OSError, ValueError):
            return
        self._read = stamp
        self.items = sorted(rows, key=CohortRow.rank)


class CohortRow:
    """A row of results.csv as the list shows it: the attributes of a BatchItem."""

    _STATES = {"done": JobState.DONE, "failed": JobState.FAILED, "waiting": JobState.IDLE}
    _WORST_FIRST = (verdicts.DO_NOT_USE, verdicts.CHECK)

    def __init__(self, row):
        self.name = row.get("name") or ""
        self.state = self._STATES.get(row.get("status"), JobState.IDLE)
        self.seconds = number(row.get("seconds")) or 0.0
        texts = [text for column in ("sentence", "warnings") for text in (row.get(column) or "").split(BETWEEN)]
        self.message = " ".join(filter(None, texts))
        self.report = None
        if self.state is JobState.DONE:
            self.report = {"verdict": {"level": row.get("verdict") or ""}}
            self.report["verdict"]["reasons"] = [text for text in (row.get("reasons") or "").split(BETWEEN) if text]
            for column, (group, *names) in FIGURES.items():
                value = number(row.get(column))
                if value is not None:
                    place = self.report
                    for name in [group, *names][:-1]:
                        place = place.setdefault(name, {})
                    place[[group, *names][-1]] = value

    def rank(self):
        """Failed, do not use, check, the others by their expected error, and what waits."""
        level = verdicts.levelOf(self.report)
        kind = self._WORST_FIRST.index(level) + 1 if level in self._WORST_FIRST else 3
        kind = {JobState.FAILED: 0, JobState.IDLE: 4}.get(self.state, kind)
        return kind, -(self.report or {}).get("expected_error_mm", {}).get("median", 0.0)


def number(text):
    """A float, or None where a cell holds none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def settingsOfRows(settings):
    """Arguments of the cohort that give every row the settings which it does not name itself."""
    words, arguments = settings.engineArguments(), []
    while words:
        name = words.pop(0).removeprefix("--")
        value = words.pop(0) if words and not words[0].startswith("--") else "yes"
        # The cores are divided among the workers.
        if name != "threads":
            arguments += ["--set", f"{name}={value}"]
    return arguments

"""A child process of the engine: its command line, its folder, its output lines. No Qt."""

import contextlib
import importlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import slicer
from slicer.i18n import tr as _

ENGINE = "samconvex"
ENGINE_FOLDER = str(Path(__file__).resolve().parents[1])
# What Slicer's launcher prints when the program that it started did not end by itself.
LAUNCHER_CRASH = "exit abnormally"
# Windows takes paths of 260 characters; the folder of a run and the longest file name in it need some 70.
LONGEST_PARENT = 190 if os.name == "nt" else 4000
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def pythonExecutable():
    """Slicer's own Python interpreter, or the running one outside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def engineCommand(arguments, module=ENGINE):
    """Command line of the engine, or of another of its modules that can be run."""
    start = str(Path(__file__).with_name("startengine.py"))
    return [pythonExecutable(), start, module, *[str(argument) for argument in arguments]]


def engineModule(name):
    """A module of the bundled engine for use in this process; one that loads no torch.

    What pip installed as samconvex comes first on Slicer's path and may be of another version.
    """

    def isEngine(loaded):
        return loaded.split(".")[0] == ENGINE

    foreign = {}
    if ENGINE in sys.modules and not (sys.modules[ENGINE].__file__ or "").startswith(ENGINE_FOLDER + os.sep):
        foreign = {loaded: sys.modules.pop(loaded) for loaded in list(sys.modules) if isEngine(loaded)}
    sys.path.insert(0, ENGINE_FOLDER)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(ENGINE_FOLDER)
        if foreign:
            # Whoever imported it goes on with it.
            for loaded in [loaded for loaded in sys.modules if isEngine(loaded)]:
                del sys.modules[loaded]
            sys.modules.update(foreign)


def crashSentence(status, errorLines):
    """One sentence about a process that was killed or crashed; "" for one that ended by itself.

    Args:
        status: exit status. Slicer's interpreter is started by a launcher: that turns the signal into status 1 and a
            line of its own.
        errorLines: the last lines of the process's error output.
    """
    if status == 1 and any(LAUNCHER_CRASH in line for line in errorLines):
        return _(
            "The computation was ended by the system, most often for lack of memory; choose a faster quality or close "
            "other programs."
        )
    if 0 <= status <= 128:
        return ""
    return _(
        "The computation was ended from outside (signal {number}), often for lack of memory; choose a faster quality "
        "or close other programs."
    ).format(number=-status if status < 0 else status - 128)


def temporaryFolder():
    """A new folder for one run, inside the application's temporary folder where there is one."""
    parent = str(getattr(getattr(slicer, "app", None), "temporaryPath", None) or "")
    usable = os.path.isdir(parent) and len(os.path.abspath(parent)) <= LONGEST_PARENT
    return Path(tempfile.mkdtemp(prefix="samconvex-", dir=parent if usable else None))


class EngineProcess:
    """A child process whose output lines are collected by threads; the whole process tree can be ended.

    Args:
        interactive: keep its standard input open for ``send()``.
    """

    def __init__(self, command, interactive=False):
        environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8")
        options = {"start_new_session": True}
        if os.name == "nt":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        self.lines = queue.Queue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
            **options,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("out", self._process.stdout), ("err", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name, stream):
        with contextlib.suppress(ValueError):
            for line in stream:
                self.lines.put((name, ANSI.sub("", line.rstrip("\r\n"))))

    def send(self, line):
        """Write one line to the process; a process that has ended takes none."""
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    @property
    def exitStatus(self):
        """None while running, or while lines are still being read (a moment after the end)."""
        status = self._process.poll()
        if status is not None and any(reader.is_alive() for reader in self._readers):
            for reader in self._readers:
                reader.join(0.02)
        return status

    @property
    def isGone(self):
        """Whether the program itself has ended. A launcher ends first and leaves it behind, its output still open."""
        return self._process.poll() is not None and not any(reader.is_alive() for reader in self._readers)

    def end(self, force):
        """Ask the process tree to stop, or kill it."""
        if self._process.poll() is not None and not force:
            return
        if os.name == "nt":
            # Killing the launcher alone would leave the real interpreter running.
            command = ["taskkill", "/PID", str(self._process.pid), "/T", "/F"]
            subprocess.run(command, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL if force else signal.SIGTERM)

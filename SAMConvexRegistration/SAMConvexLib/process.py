"""A child process of the engine: its command line, its folder, its output lines. No Qt."""

import contextlib
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

ENGINE_FOLDER = str(Path(__file__).resolve().parents[1])
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def pythonExecutable():
    """Slicer's own Python interpreter, or the running one outside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def engineCommand(arguments):
    """Command line of the engine."""
    return [pythonExecutable(), "-m", "samconvex", *[str(argument) for argument in arguments]]


def temporaryFolder():
    """A new folder for one run, inside the application's temporary folder where there is one."""
    parent = getattr(getattr(slicer, "app", None), "temporaryPath", None)
    return Path(tempfile.mkdtemp(prefix="samconvex-", dir=parent if parent and os.path.isdir(str(parent)) else None))


class EngineProcess:
    """A child process whose output lines are collected by threads; the whole process tree can be ended.

    Args:
        interactive: keep its standard input open for ``send()``.
    """

    def __init__(self, command, interactive=False):
        environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [ENGINE_FOLDER, environment.get("PYTHONPATH")]))
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

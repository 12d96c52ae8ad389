"""Ctrl-C and SIGTERM end the work within a second, whatever it is doing, with status 3 and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine.cli.bad_input import make_files
from samconvex.cli.console import ConsoleProgress
from samconvex.cli.main import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")

ENGINE = Path(__file__).resolve().parents[3] / "SAMConvexRegistration"

# Every program writes into OUT and says when it has started; none imports torch, so that each takes milliseconds.
PREAMBLE = """
import signal, sys, time, threading
# A shell that puts the tests in the background leaves Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from samconvex.cli.cancellation import raise_if, run_cancellable
from samconvex.errors import Cancelled
from samconvex.io.outputs import output_folder
out = sys.argv[2]
def started():
    print("started", flush=True)
"""
POLITE = (
    PREAMBLE
    + """
def work(cancelled):
    with output_folder(out) as staging:
        (staging / "a.txt").write_text("a")
        started()
        while True:
            raise_if(cancelled)
            time.sleep(0.01)
"""
)
DEAF = (
    PREAMBLE
    + """
def work(cancelled):
    with output_folder(out) as staging:
        (staging / "a.txt").write_text("a")
        started()
        time.sleep(30)
    return 0
"""
)
COMPUTING = (
    PREAMBLE
    + """
import numpy as np
def work(cancelled):
    started()
    with output_folder(out) as staging:
        matrix = np.ones((6000, 6000))
        while True:
            matrix @ matrix
"""
)
QUICK = (
    PREAMBLE
    + """
def work(cancelled):
    started()
    with output_folder(out) as staging:
        (staging / "a.txt").write_text("a")
    return 0
"""
)
FAILING = (
    PREAMBLE
    + """
def work(cancelled):
    raise ValueError("a defect of ours")
"""
)
ENDING = """
try:
    status = run_cancellable(work, *map(float, sys.argv[3:]))
except Cancelled as error:
    print(error, file=sys.stderr)
    status = error.exit_status
sys.exit(status)
"""

BEFORE = (
    PREAMBLE
    + """
import samconvex.cli.main
program = sys.modules["samconvex.cli.main"]
def work(cancelled):
    return 0
def reading(words):
    started()
    time.sleep(30)
program._parse = reading
sys.exit(program.main())
"""
)
BETWEEN = BEFORE.replace("def reading(words):", "def reading(work, *words, **names):").replace(
    "program._parse = reading", "program.run_cancellable = reading\nsys.argv = ['samconvex', 'presets']"
)
AFTER = (
    PREAMBLE
    + """
def work(cancelled):
    return 0
status = run_cancellable(work, then_ends=True)
started()
time.sleep(0.3)
sys.exit(status)
"""
)


def _second() -> float:
    """One second, or more where other programs keep the processors busy."""
    return max(1.0, 1.5 * os.getloadavg()[0] / (os.cpu_count() or 1))


def _start(program: str, out: Path, *patience: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", program + ENDING, str(ENGINE), str(out), *patience],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("program", [POLITE, DEAF, COMPUTING], ids=["polite", "deaf", "computing"])
def test_a_signal_ends_the_work_within_a_second(tmp_path: Path, program: str, number: int) -> None:
    process = _start(program, tmp_path / "out")
    time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - begin < _second()
    assert process.returncode == 3
    assert errors.strip() == "Cancelled; nothing was written."
    assert list(tmp_path.iterdir()) == []


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    process = _start(DEAF, tmp_path / "out", "20")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert time.monotonic() - begin < 0.5 * _second()
    assert process.returncode == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [(BEFORE, 3, "Cancelled; nothing was written."), (BETWEEN, 3, "Cancelled; nothing was written."), (AFTER, 0, "")],
)
def test_ctrl_c_beside_the_work_is_answered_too(tmp_path: Path, program: str, status: int, said: str) -> None:
    """While the words are read it cancels; once the work is done it changes nothing."""
    process = _start(program, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.strip()) == (status, said)


def test_work_that_is_not_disturbed_ends_with_its_own_status(tmp_path: Path) -> None:
    process = _start(QUICK, tmp_path / "out")
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


def test_a_defect_keeps_its_traceback_and_status_1(tmp_path: Path) -> None:
    program = FAILING.replace("raise ValueError", "started(); raise ValueError")
    process = _start(program, tmp_path / "out")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a defect of ours" in errors and "Traceback" in errors


@pytest.mark.slow
def test_a_cancellation_at_every_stage_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    words = ["register", "ct.nii.gz", "ct.nii.gz", "-o", "out", "--preset", "fast-preview", "--affine", "none"]
    words += ["--refine", "adam", "--moving-labels", "labels.nii.gz", "--fixed-labels", "labels.nii.gz"]
    seen: list[str] = []

    class Stopping(ConsoleProgress):
        """Behaves as if Ctrl-C came right before the first report of the next stage not yet seen."""

        def __call__(self, stage: str, fraction: float, message: str = "") -> None:
            if stage not in seen and not self._cancelled.is_set():
                seen.append(stage)
                self._cancelled.set()
            super().__call__(stage, fraction, message)

    monkeypatch.setattr("samconvex.cli.register.ConsoleProgress", Stopping)
    for _ in range(20):
        status = main(words)
        if status == 0:
            break
        assert status == 3
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert [name for name in seen if name != "done"] == [
        "read",
        "prepare",
        "convex",
        "refine",
        "finish",
        "error",
        "measure",
        "warp",
        "write",
    ]
    assert (tmp_path / "out" / "report.json").is_file()

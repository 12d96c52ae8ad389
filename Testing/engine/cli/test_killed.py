"""Real `samconvex register` commands, killed at random moments; the campaign "kill" does the same 200 times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from campaigns.kill import CANCELLED, DONE, JOBS, SLOWEST_S, checksums, cpu_seconds, prepare, unfinished, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="moments are measured in /proc"),
]

ENGINE = Path(__file__).resolve().parents[3] / "SAMConvexRegistration"
REGISTER = JOBS[0]
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)


def _start(folder: Path, out: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ENGINE), "SAMCONVEX_HOME": str(folder / "home")}
    words = [sys.executable, "-m", "samconvex", *REGISTER.words, "-o", str(out), "--progress", "none", "--overwrite"]
    return subprocess.Popen(words, cwd=folder / "in", env={**environment, "OMP_NUM_THREADS": "1"}, stderr=-3, stdout=-3)


def _whole(folder: Path, out: Path) -> float:
    """Processor seconds of an undisturbed run."""
    process, used = _start(folder, out), 0.0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        used = cpu_seconds(process.pid)
        time.sleep(0.01)
    assert process.wait() == DONE
    return used


def _answers(pid: int) -> bool:
    """True once the command handles signals; Python alone leaves SIGTERM to the system and answers SIGINT by itself."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    masks = dict(line.split(":") for line in lines if line.startswith(("SigCgt", "SigIgn")))
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks.values())


def test_a_killed_registration_leaves_the_earlier_result_or_a_whole_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    prepare(tmp_path / "in")
    inputs, out = checksums(tmp_path / "in"), tmp_path / "place" / "out"
    (tmp_path / "place").mkdir()
    typical = _whole(tmp_path, out)
    assert set(checksums(out)) == set(REGISTER.files)
    statuses = []
    for number, sent in enumerate(SIGNALS):
        # Content of its own, so that a mixture of an earlier and a new result would be seen.
        for path in out.iterdir():
            path.write_text(f"earlier {number} {path.name}")
        before = checksums(out)
        process = _start(tmp_path, out)
        if number % 2:
            moment = float(random.uniform(0.1, 1.0)) * typical
            wait_for(lambda: cpu_seconds(process.pid) >= moment and _answers(process.pid), process.pid)  # noqa: B023
        else:
            wait_for(lambda: bool(unfinished(tmp_path / "place")), process.pid)
            time.sleep(float(random.uniform(0, 0.3)))
        process.send_signal(sent)
        statuses.append(process.wait(SLOWEST_S))
        assert statuses[-1] in ((DONE, -sent) if sent == signal.SIGKILL else (DONE, CANCELLED))
        now = checksums(out)
        assert set(now) == set(before)
        assert now == before or not set(now.values()) & set(before.values())
        if sent == signal.SIGINT:
            assert unfinished(tmp_path / "place") == []
    assert any(status != DONE for status in statuses)
    _whole(tmp_path, out)
    assert set(checksums(out)) == set(REGISTER.files)
    assert unfinished(tmp_path / "place") == []
    assert checksums(tmp_path / "in") == inputs

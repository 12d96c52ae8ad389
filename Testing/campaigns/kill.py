"""Commands killed at random moments: no partial result, nothing that the next run does not clear, inputs untouched.

    cd Testing && ../.venv/bin/python -m campaigns.kill --runs 200 --seed 0 --state kill.jsonl --resume

Small phantoms go through register, match, track and apply; half of the runs are killed (SIGKILL), half cancelled
(SIGINT). Half of the moments are spread over the run, half lie where results are being written. Each run is a child of
a process that has torch loaded already, so that moments fall into the work and not into its imports. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SLOWEST_S = 300.0
DONE, CANCELLED = 0, 3


@dataclass(frozen=True)
class Job:
    """A command: its words with OUT for the output's name, and the files that a whole result has."""

    name: str
    words: tuple[str, ...]
    output: str
    files: tuple[str, ...]


JOBS = (
    Job(
        "register",
        ("register", "a.nii.gz", "b.nii.gz", "--preset", "fast-preview", "--affine", "moments")
        + ("--moving-labels", "b_labels.nii.gz", "--moving-points", "b.csv", "--threads", "1"),
        "out",
        ("transform.h5", "inverse.h5", "warped.nii.gz", "valid.nii.gz", "error.nii.gz", "report.json", "report.png")
        + ("labels.nii.gz", "points.csv"),
    ),
    Job("match", ("match", "a.nii.gz", "a.csv", "b.nii.gz", "--threads", "1"), "out/found.csv", ("found.csv",)),
    Job(
        "track", ("track", "a.nii.gz", "a.csv", "b.nii.gz", "--threads", "1"), "out", ("tracking.csv", "tracking.json")
    ),
    Job("apply", ("apply", "start.tfm", "b.nii.gz", "--like", "a.nii.gz"), "out/warped.nii.gz", ("warped.nii.gz",)),
)


def prepare(folder: Path) -> None:
    """Two small parts of patients, so that embedding them takes little, with labels, points and a transform."""
    import SimpleITK as sitk
    from samconvex.io.images import write_volume
    from samconvex.io.points import PointSet, write_points
    from samconvex.synthetic.phantom import make_phantom

    for seed, name in enumerate("ab"):
        phantom = make_phantom(seed + 1, 6.0, (20, 18, 20))
        write_volume(phantom.ct, folder / f"{name}.nii.gz")
        write_volume(phantom.labels, folder / f"{name}_labels.nii.gz")
        points = phantom.ct.grid.center + np.array([[0.0, 0.0, 0.0], [15.0, -8.0, 10.0], [-20.0, 5.0, -12.0]])
        write_points(PointSet(points, ("p", "q", "r")), folder / f"{name}.csv")
    sitk.WriteTransform(sitk.TranslationTransform(3, (5.0, -3.0, 8.0)), str(folder / "start.tfm"))


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(words: list[str], folder: Path) -> int:
    """Run a command in a forked child; its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(folder)
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(silent, descriptor)
        from samconvex.cli.main import main

        sys.argv = ["samconvex", *words]
        os._exit(main())
    except BaseException:
        os._exit(99)


def finish(pid: int) -> int:
    """Exit status of a child, negative for a signal."""
    deadline = time.monotonic() + SLOWEST_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 98


def cpu_seconds(pid: int) -> float:
    """Processor time of a child so far; a busy machine stretches wall time, not this."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unfinished(folder: Path) -> list[str]:
    """Temporary files and folders in and beside the output; a living run may move them meanwhile."""
    # Unlike a glob, a walk passes over folders that have gone.
    names = (Path(place, name) for place, *inside in os.walk(folder) for name in sum(inside, []))
    return sorted(str(p.relative_to(folder)) for p in names if "unfinished" in p.name or "partial" in p.name)


def wait_for(moment: Callable[[], bool], pid: int) -> None:
    """Until ``moment`` has come or the child has ended."""
    while not moment():
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


class Stage:
    """A folder with inputs, an output, and what a whole run of each command takes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs = folder, folder / "in"
        self.inputs.mkdir()
        os.environ["SAMCONVEX_HOME"] = str(folder / "home")
        prepare(self.inputs)
        self.before = checksums(self.inputs)
        self.typical: dict[str, float] = {}
        self.whole: dict[str, dict[str, str]] = {}

    def words(self, job: Job, overwrite: bool) -> list[str]:
        """The command line."""
        output = str(self.folder / "place" / job.output)
        return [
            *job.words,
            "-o",
            output,
            "--progress",
            "none",
            *(["--overwrite"] if overwrite and job.name != "apply" else []),
        ]

    def measure(self, job: Job) -> None:
        """One undisturbed run."""
        shutil.rmtree(self.folder / "place", ignore_errors=True)
        (self.folder / "place").mkdir()
        pid = start(self.words(job, False), self.inputs)
        used = 0.0
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            used = cpu_seconds(pid)
            time.sleep(0.01)
        status = finish(pid)
        if status != DONE:
            raise RuntimeError(f"{job.name} ended with status {status} without being disturbed")
        self.typical[job.name], self.whole[job.name] = used, checksums(self.folder / "place" / "out")

    def run(self, seed: int, number: int) -> dict[str, Any]:
        """Kill one run, look at what is there, and run again."""
        random = np.random.default_rng([seed, number])
        job = JOBS[number % len(JOBS)]
        if job.name not in self.typical:
            self.measure(job)
        killed, earlier, writing = random.random() < 0.5, random.random() < 0.5, random.random() < 0.5
        place = self.folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if earlier:
            # A result of other content, so that a mixture of old and new would be seen.
            (place / "out").mkdir()
            for name in job.files:
                (place / "out" / name).write_text(f"earlier {name}")
            (place / "out" / "notes.txt").write_text("of the user")
        old = checksums(place / "out")
        # Embeddings on disk shorten the next run; each starts without.
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        pid = start(self.words(job, earlier), self.inputs)
        share, delay = float(random.random()), float(random.random() ** 2) * 0.3
        if writing:
            wait_for(lambda: bool(unfinished(place)), pid)
            time.sleep(delay)
        else:
            wait_for(lambda: cpu_seconds(pid) >= share * self.typical[job.name], pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if killed else signal.SIGINT)
        status = finish(pid)
        record = {"run": number, "job": job.name, "signal": "kill" if killed else "cancel", "status": status}
        record |= {"earlier": earlier, "writing": writing, "left": unfinished(self.folder)}
        return record | {"faults": self.faults(job, old, killed, status)}

    def faults(self, job: Job, old: dict[str, str], killed: bool, status: int) -> list[str]:
        """What is wrong after a killed run, and after the next one."""
        found = []
        out = self.folder / "place" / "out"
        allowed = (DONE, -signal.SIGKILL) if killed else (DONE, CANCELLED)
        if status not in allowed:
            found.append(f"status {status}")
        now = checksums(out) if out.exists() else {}
        ours = {name: value for name, value in now.items() if name in job.files}
        was = {name: value for name, value in old.items() if name in job.files}
        complete = set(ours) == set(self.whole[job.name]) and not set(ours.values()) & set(was.values())
        if ours != was and not complete:
            found.append(f"partial result: {sorted(now)}")
        if not killed and (left := unfinished(self.folder)):
            found.append(f"left by a cancel: {left}")
        for path in (self.folder / "home").rglob("*.partial"):
            # The cache clears what has not been written to for an hour.
            os.utime(path, (time.time() - 7200,) * 2)
        again = finish(start(self.words(job, bool(now)), self.inputs))
        if again != DONE:
            found.append(f"the next run ended with status {again}")
        after = checksums(out) if out.exists() else {}
        if {name for name in after if name in job.files} != set(self.whole[job.name]):
            found.append(f"the next run wrote {sorted(after)}")
        if "notes.txt" in old and after.get("notes.txt") != old["notes.txt"]:
            found.append("a file of the user is gone")
        if left := unfinished(self.folder):
            found.append(f"left after the next run: {left}")
        if checksums(self.inputs) != self.before:
            found.append("an input has changed")
        return found


def campaign(numbers: list[int], seed: int, record: Callable[[dict[str, Any]], None]) -> None:
    """Run the cases ``numbers``; ``record`` is called with each result."""
    import torch
    from samconvex.lesions import tracking  # noqa: F401
    from samconvex.registration import register  # noqa: F401

    # A forked child must not wait for threads that only its parent has.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="samconvex-kill-") as name:
        stage = Stage(Path(name))
        for number in numbers:
            record(stage.run(seed, number))


def figures(records: list[dict[str, Any]]) -> str:
    """The campaign in words."""
    ends = Counter(f"{record['signal']}, status {record['status']}" for record in records)
    lines = [f"{len(records)} runs: " + ", ".join(f"{count} x {name}" for name, count in sorted(ends.items()))]
    lines.append(f"temporary folders found after a kill: {sum(bool(record['left']) for record in records)}")
    faulty = [record for record in records if record["faults"]]
    lines.append(f"faults: {len(faulty)}")
    return "\n".join(
        lines + [f"  run {r['run']} ({r['job']}, {r['signal']}): {'; '.join(r['faults'])}" for r in faulty]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="a line per run goes here")
    parser.add_argument("--resume", action="store_true", help="go on where STATE ends")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    records: list[dict[str, Any]] = []
    if args.resume and args.state and args.state.exists():
        lines = [json.loads(line) for line in args.state.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        records = [line for line in lines if line.pop("seed") == args.seed]
    done = {record["run"] for record in records}
    with open(args.state or os.devnull, "a" if args.resume else "w", encoding="utf-8") as stream:

        def record(result: dict[str, Any]) -> None:
            stream.write(json.dumps({"seed": args.seed, **result}) + "\n")
            stream.flush()
            records.append(result)

        campaign([n for n in range(args.runs) if n not in done], args.seed, record)
    print(figures(records))
    return int(any(record["faults"] for record in records))


if __name__ == "__main__":
    sys.exit(main())

"""What a cohort costs and survives, measured on real images: ``python Testing/benchmarks/studies/cohort.py MODE``.

Modes, each with ``--data DIR`` (the evaluation images; only training patients are read) and ``--output FILE.json``:
  throughput  N pairs of head-neck and abdomen CTs by the cohort; the same commands one after the other as a shell loop
              would, on a random part of them; ``--all-against-all M`` pairs every two of M images instead
  chaos       random kills of workers and of the command itself, each followed by --resume, until all rows are done
  cluster     a scheduler and workers as processes of their own, one of which joins late
  broken      every tenth row broken in one of several ways: exactly those are reported
  shared      the same image in two registrations: seconds of the stages with an empty and a filled store
Times are of a machine that others use too: only ratios within one run say something.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
ENGINE = REPOSITORY / "SAMConvexRegistration"
COMMAND = [sys.executable, "-m", "samconvex"]
# Never trained on, never looked at here: the evaluation patients of the abdomen.
LAST_TRAINING_ABDOMEN = 13
HEADER = ["name", "fixed", "moving", "preset", "fixed_labels", "moving_labels"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("throughput", "chaos", "cluster", "broken", "shared"))
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--pairs", type=int, default=20, metavar="N")
    parser.add_argument("--all-against-all", type=int, metavar="M")
    parser.add_argument("--loop", type=int, default=5, metavar="N", help="of them by the loop")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--calm", type=Path, metavar="DIR", help="results of the same pairs undisturbed; default: made")
    parser.add_argument("--preset", default="fast-preview")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=11.0, help="stop and report what is done by then")
    parser.add_argument("--folder", type=Path, help="where the cohort lies (default: a temporary one); goes on there")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = MODES[chosen.mode](chosen, folder)
    text = json.dumps({"mode": chosen.mode, **figures}, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n", encoding="utf-8")
    return 0


def training_images(data: Path) -> list[list[Path]]:
    """CTs that may be trained on, head-neck and abdomen apart."""
    with open(data / "headneck_pairs.csv", encoding="utf-8") as stream:
        kept = {name for row in csv.reader(stream) for name in row}
    neck = [path for path in sorted((data / "headneck").glob("*_ct.nii.gz")) if path.name[:5] not in kept]
    abdomen = [
        path
        for path in sorted((data / "abdomen").glob("btcv*_ct.nii.gz"))
        if int(path.name[4:6]) <= LAST_TRAINING_ABDOMEN
    ]
    return [neck, abdomen]


def pairs_of(chosen: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Random pairs of different patients of one region, nine of ten head-neck; or every two of some images."""
    neck, abdomen = training_images(chosen.data)
    dice = random.Random(chosen.seed)
    if chosen.all_against_all:
        images = dice.sample(neck, chosen.all_against_all)
        return [(fixed, moving) for fixed in images for moving in images if fixed is not moving]
    # Not a set: its order is another one in every run.
    pairs: dict[tuple[Path, Path], None] = {}
    while len(pairs) < chosen.pairs:
        fixed, moving = dice.sample(abdomen if len(pairs) % 10 == 9 else neck, 2)
        pairs[fixed, moving] = None
    return sorted(pairs, key=lambda pair: dice.random())


def labels_of(image: Path) -> Path:
    return image.with_name(image.name.replace("_ct", "_seg"))


def manifest(path: Path, pairs: list[tuple[Path, Path]], preset: str) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        for number, (fixed, moving) in enumerate(pairs):
            writer.writerow([f"pair{number:04d}", fixed, moving, preset, labels_of(fixed), labels_of(moving)])
    return path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ENGINE), **more}


def cohort(table: Path, out: Path, *words: str) -> list[str]:
    return [*COMMAND, "cohort", str(table), "-o", str(out), "--progress", "none", *words]


def workers_words(chosen: argparse.Namespace) -> list[str]:
    return ["--workers", str(chosen.workers)] if chosen.workers else []


def results(out: Path) -> list[dict[str, str]]:
    with open(out / "results.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


class Watch:
    """Memory and processor seconds of a process and everything below it, sampled while it runs."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._process, self._stop = psutil.Process(pid), threading.Event()
        self.samples: list[tuple[float, int, float]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        import psutil

        began = time.monotonic()
        while not self._stop.wait(2.0):
            largest = used = 0.0
            try:
                for child in [self._process, *self._process.children(recursive=True)]:
                    times = child.cpu_times()
                    used += times.user + times.system
                    if child.pid != self._process.pid:
                        largest = max(largest, child.memory_info().rss / 2**20)
            except psutil.Error:
                continue
            self.samples.append((time.monotonic() - began, int(largest), used))

    def figures(self) -> dict[str, Any]:
        """Largest worker in each fifth of the run, MiB, and processor seconds."""
        self._stop.set()
        self._thread.join()
        rows = self.samples
        fifths = [rows[len(rows) * n // 5 : len(rows) * (n + 1) // 5] for n in range(5)]
        return {
            "largest_worker_mib_by_fifths": [max((row[1] for row in part), default=0) for part in fifths],
            "cpu_seconds": round(max((row[2] for row in rows), default=0.0), 1),
        }


def throughput(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    pairs = pairs_of(chosen)
    table, out = manifest(folder / "pairs.csv", pairs, chosen.preset), folder / "out"
    resumed = ["--resume"] if (out / "cohort.json").exists() else []
    before = sum(row["status"] == "done" for row in results(out)) if resumed else 0
    began = time.monotonic()
    process = subprocess.Popen(cohort(table, out, *workers_words(chosen), *resumed), env=environment())
    watch = Watch(process.pid)
    ended = wait_or_stop(process, 60 * chosen.minutes)
    seconds = time.monotonic() - began
    rows = results(out)
    done = sum(row["status"] == "done" for row in rows) - before
    figures = {
        "pairs": len(pairs),
        "done_in_this_run": done,
        "complete": ended,
        "seconds": round(seconds, 1),
        "seconds_per_pair": round(seconds / max(done, 1), 2),
        "failed": [row["sentence"] for row in rows if row["status"] == "failed"],
        "mean_seconds_of_stages": stages_of(out),
        "store_mib": round(sum(path.stat().st_size for path in (out / ".store").glob("*")) / 2**20, 1),
        **watch.figures(),
    }
    sample = random.Random(chosen.seed + 1).sample(range(len(pairs)), min(chosen.loop, len(pairs)))
    return figures | (loop(chosen, [pairs[n] for n in sample], folder / "loop") if sample else {})


def stages_of(out: Path) -> dict[str, float]:
    """Mean seconds of each stage over the rows that are done, the longest first."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("jobs/*/report.json")]
    found: dict[str, float] = {}
    for report in reports:
        for stage, seconds in report["seconds"]["stages"].items():
            found[stage] = found.get(stage, 0.0) + seconds / len(reports)
    return {stage: round(found[stage], 2) for stage in sorted(found, key=lambda stage: -found[stage])}


def loop(chosen: argparse.Namespace, pairs: list[tuple[Path, Path]], folder: Path) -> dict[str, Any]:
    """The same commands one after the other, each with all cores, as a shell loop would."""
    began, used = time.monotonic(), os.times()
    for number, (fixed, moving) in enumerate(pairs):
        words = ["register", str(fixed), str(moving), "--preset", chosen.preset, "--progress", "none"]
        words += ["--fixed-labels", str(labels_of(fixed)), "--moving-labels", str(labels_of(moving))]
        home = environment(SAMCONVEX_NO_DISK_CACHE="1")
        home.pop("OMP_NUM_THREADS", None)
        subprocess.run([*COMMAND, *words, "-o", str(folder / str(number)), "--overwrite"], env=home, check=True)
    now = os.times()
    return {
        "loop_pairs": len(pairs),
        "loop_seconds_per_pair": round((time.monotonic() - began) / len(pairs), 2),
        "loop_cpu_seconds_per_pair": round(
            (now.children_user - used.children_user + now.children_system - used.children_system) / len(pairs), 2
        ),
    }


def wait_or_stop(process: subprocess.Popen, seconds: float) -> bool:
    """True where it ended by itself; else it is asked to stop and its table tells how far it came."""
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        return False


def shared(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One fixed image with two moving ones and the other way round, the store empty at first."""
    neck, _ = training_images(chosen.data)
    stages = {}
    for name, moving in (("empty", neck[1]), ("filled", neck[2])):
        words = ["register", str(neck[0]), str(moving), "--preset", chosen.preset, "--progress", "none"]
        subprocess.run(
            [*COMMAND, *words, "-o", str(folder / name), "--overwrite"],
            env=environment(SAMCONVEX_CACHE=str(folder / "store")),
            check=True,
        )
        report = json.loads((folder / name / "report.json").read_text(encoding="utf-8"))
        stages[name] = report["seconds"]
        stages[f"{name}_entries"] = len(list((folder / "store").glob("*.pt")))
    again = folder / "again"
    subprocess.run(
        [*COMMAND, "register", str(neck[0]), str(neck[1]), "--preset", chosen.preset, "--progress", "none"]
        + ["-o", str(again), "--overwrite"],
        env=environment(SAMCONVEX_CACHE=str(folder / "store")),
        check=True,
    )
    stages["both_known"] = json.loads((again / "report.json").read_text(encoding="utf-8"))["seconds"]
    return stages


def chaos(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kills at random moments; the rows must be right in the end, none lost, none twice."""
    import psutil

    pairs = pairs_of(chosen)
    table = manifest(folder / "pairs.csv", pairs, chosen.preset)
    undisturbed = chosen.calm or folder / "calm"
    if not chosen.calm:
        subprocess.run(cohort(table, undisturbed, *workers_words(chosen)), env=environment(), check=False)
    first, last = span(undisturbed)
    calm = (last - first).total_seconds()
    dice, kills, out = random.Random(chosen.seed), {"worker": 0, "command": 0}, folder / "out"
    began = time.monotonic()
    while True:
        resumed = ["--resume"] if (out / "cohort.json").exists() else []
        command = cohort(table, out, *workers_words(chosen), *resumed)
        process = subprocess.Popen(command, env=environment())
        while process.poll() is None:
            left = chosen.kills - sum(kills.values())
            pause = dice.uniform(0.2, 1.8) * calm / max(chosen.kills, 1)
            time.sleep(pause if left else 0.5)
            if not left or process.poll() is not None:
                continue
            whole = psutil.Process(process.pid)
            workers = [child for child in whole.children(recursive=True) if child.memory_info().rss > 2**27]
            if workers and dice.random() < 0.7:
                dice.choice(workers).kill()
                kills["worker"] += 1
            else:
                process.kill()
                kills["command"] += 1
        if process.returncode >= 0:
            break
    seconds = time.monotonic() - began
    before, after = ({row["name"]: row for row in results(place)} for place in (undisturbed, out))
    same = ["verdict", "dice_final", "sdlogj", "folding_percent", "expected_error_median_mm"]
    finished = finished_runs(out)
    return {
        "pairs": len(pairs),
        "kills": kills,
        "calm_seconds": round(calm, 1),
        "seconds": round(seconds, 1),
        "overhead_percent": round(100 * (seconds / calm - 1), 1),
        "started_more_often_than_rows_percent": round(100 * (started_runs(out) / len(pairs) - 1), 1),
        "statuses": sorted({row["status"] for row in after.values()}),
        "lost": sorted(set(before) - set(after)),
        "twice_in_the_table": len(results(out)) - len(after),
        "done_more_than_once": sum(count > 1 for count in finished.values()),
        "other_figures_than_undisturbed": [
            name for name in before if any(before[name][key] != after[name][key] for key in same)
        ],
    }


def finished_runs(out: Path) -> dict[str, int]:
    """How often each row came to its end, from the logs."""
    return {
        log.stem: log.read_text(encoding="utf-8").count("exit status 0") for log in sorted((out / "logs").glob("*.log"))
    }


def started_runs(out: Path) -> int:
    """How many runs began, those that were killed too."""
    return sum(log.read_text(encoding="utf-8").count(": samconvex register ") for log in (out / "logs").glob("*.log"))


def span(out: Path) -> tuple[datetime, datetime]:
    """When the first row of a cohort began and the last one ended, from the logs."""
    lines = [line for log in (out / "logs").glob("*.log") for line in log.read_text(encoding="utf-8").splitlines()]
    times = [datetime.fromisoformat(line[:25]) for line in lines if line[:2] == "20" and line[19:20] == "+"]
    return min(times), max(times)


def cluster(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A scheduler, a worker, and after some time a second one, all processes of their own."""
    pairs = pairs_of(chosen)
    table, out, address = manifest(folder / "pairs.csv", pairs, chosen.preset), folder / "out", "tcp://127.0.0.1:18786"
    dask = str(Path(sys.executable).parent / "dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment(OMP_NUM_THREADS="1")}
    scheduler = subprocess.Popen(
        [dask, "scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard"], **quiet
    )
    worker = [dask, "worker", address, "--nthreads", "1", "--memory-limit", "3GiB", "--no-dashboard"]
    started = [scheduler, subprocess.Popen([*worker, "--name", "first"], **quiet)]
    began = time.monotonic()
    process = subprocess.Popen(cohort(table, out, "--scheduler", address), env=environment())
    late = None
    try:
        while process.poll() is None:
            time.sleep(1.0)
            done = len(list((out / ".records").glob("*.json"))) if out.exists() else 0
            if late is None and done >= max(1, len(pairs) // 4):
                late = time.monotonic() - began
                started.append(subprocess.Popen([*worker, "--name", "late"], **quiet))
    finally:
        for one in reversed(started):
            one.send_signal(signal.SIGINT)
            one.wait(30)
    jobs = [json.loads(line) for line in (out / "jobs.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "pairs": len(pairs),
        "exit_status": process.returncode,
        "seconds": round(time.monotonic() - began, 1),
        "late_worker_after_seconds": None if late is None else round(late, 1),
        "jobs_by_worker": {
            name: sum(job["worker"] == name for job in jobs) for name in sorted({j["worker"] for j in jobs})
        },
        "statuses": sorted({job["status"] for job in jobs}),
    }


def broken(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every tenth row broken; what the check says of them and of no other."""
    pairs = pairs_of(chosen)
    dice = random.Random(chosen.seed)
    spoilt = set(dice.sample(range(len(pairs)), max(1, len(pairs) // 10)))
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "cut.nii.gz").write_bytes(pairs[0][0].read_bytes()[:20000])
    ways: list[Any] = [
        lambda row: row | {"moving": str(folder / "gone.nii.gz")},
        lambda row: row | {"moving": str(folder / "empty.nii.gz")},
        lambda row: row | {"moving": str(folder / "cut.nii.gz")},
        lambda row: row | {"moving": row["moving_labels"]},
        lambda row: row | {"preset": "no-such-preset"},
        lambda row: row | {"moving_labels": row["moving"]},
        lambda row: row | {"fixed": ""},
    ]
    table = manifest(folder / "pairs.csv", pairs, chosen.preset)
    with open(table, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = [ways[n % len(ways)](row) if n in spoilt else row for n, row in enumerate(rows)]
    with open(table, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    out = folder / "out"
    began = time.monotonic()
    checked = subprocess.run(cohort(table, out), env=environment(), capture_output=True, text=True, check=False)
    told = {
        int(line.split()[0]) for line in checked.stderr.splitlines() if line.split()[:1] and line.split()[0].isdigit()
    }
    seconds, expected = time.monotonic() - began, {n + 2 for n in spoilt}
    # The last line is the sentence, which begins with a number too.
    told -= {int(checked.stderr.splitlines()[-1].split()[0])} - expected
    return {
        "pairs": len(pairs),
        "broken": len(spoilt),
        "exit_status": checked.returncode,
        "anything_written": out.exists(),
        "seconds_of_the_check": round(seconds, 1),
        "reported": len(told),
        "missed": sorted(expected - told),
        "reported_wrongly": sorted(told - expected),
        "table": checked.stderr.splitlines()[: 2 + len(spoilt)],
    }


MODES = {"throughput": throughput, "chaos": chaos, "cluster": cluster, "broken": broken, "shared": shared}

if __name__ == "__main__":
    sys.exit(main())

"""Damaged files through every reader: only errors of our own, no hang, no flood of memory.

    cd Testing && ../.venv/bin/python -m campaigns.fuzz --cases 10000 --seed 0 --state fuzz.jsonl --resume

Each case is written into a folder of its own and read in a worker process whose memory is limited, so that no case can
hurt. STATE gets a line per case; --resume goes on after the last one. Status 1 where anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .cases import KINDS, make_case

TESTING = Path(__file__).resolve().parents[1]
HANG_S = 10.0
MOST_MIB = 1024.0
# On a busy machine ten seconds may pass without ten seconds of computing; waiting for nothing ends here.
LONGEST_WAIT_S = 60.0
# What a worker may map beyond what Python and torch take; above MOST_MIB, so that a flood is measured, not hidden.
_LIMIT_BYTES = 3 << 30
GOOD = ("ok", "refused")


def attempt(seed: int, number: int) -> dict[str, Any]:
    """Make and read one case; its record: outcome "ok", "refused", "foreign" or "memory", seconds, MiB."""
    from samconvex.errors import SamConvexError

    with tempfile.TemporaryDirectory(prefix="samconvex-fuzz-") as name:
        kind, path = make_case(seed, number, Path(name))
        record: dict[str, Any] = {"case": number, "kind": kind, "file": path.name, "outcome": "ok"}
        before = _forget_peak()
        start = time.process_time()
        try:
            KINDS[kind][1](path)
        except SamConvexError as error:
            record |= {"outcome": "refused", "message": str(error).replace(name, "")}
            if _out_of_memory(error.__cause__):
                record["outcome"] = "memory"
        except MemoryError:
            record |= {"outcome": "memory", "trace": traceback.format_exc().splitlines()[-6:]}
        except BaseException as error:
            trace = traceback.format_exc().replace(name, "").splitlines()[-8:]
            record |= {"outcome": "foreign", "message": f"{type(error).__name__}: {error}"[:300], "trace": trace}
        record |= {"seconds": round(time.process_time() - start, 3), "mib": round(_peak_mib() - before, 1)}
    if record["mib"] > MOST_MIB:
        record["outcome"] = "memory"
    if record["seconds"] > HANG_S:
        record["outcome"] = "hang"
    return record


def _out_of_memory(error: BaseException | None) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in ("bad_alloc", "allocate memory", "bad alloc"))


def _forget_peak() -> float:
    """Start a new measurement of the peak; MiB held now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib()


def _peak_mib() -> float:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return 0.0


def work(seed: int) -> None:
    """A worker: numbers from stdin, records to stdout; what libraries print is dropped."""
    import torch
    from samconvex.weights import models  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    with contextlib.suppress(ImportError, OSError):
        import resource

        mapped = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _LIMIT_BYTES,) * 2)
    answers.write("ready\n")
    for line in sys.stdin:
        answers.write(json.dumps(attempt(seed, int(line))) + "\n")


class Worker:
    """A process that reads cases; started again after a crash or a hang."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.process: subprocess.Popen[str] | None = None

    def run(self, number: int) -> dict[str, Any]:
        """The record of one case."""
        process = self.process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        answer = _line(process.stdout, process.pid)
        if answer:
            return json.loads(answer)
        process.kill()
        status = process.wait()
        self.process = None
        outcome = "hang" if answer is None else "crash"
        return {"case": number, "kind": "?", "outcome": outcome, "message": f"status {status}", "seconds": 0, "mib": 0}

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "campaigns.fuzz", "--worker", "--seed", str(self.seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(words, cwd=TESTING, env=environment, **pipes)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("a worker did not start")
        return self.process


def _line(stream: IO[str], pid: int) -> str | None:
    """The next line; "" where the process died, None where it hangs."""
    start, used = time.monotonic(), _cpu_seconds(pid)
    while not select.select([stream], [], [], 0.5)[0]:
        waited = time.monotonic() - start
        if waited > LONGEST_WAIT_S or (waited > HANG_S and _cpu_seconds(pid) - used > HANG_S):
            return None
    return stream.readline()


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def campaign(numbers: list[int], seed: int, workers: int = 2) -> Iterator[dict[str, Any]]:
    """The records of the cases ``numbers``, in the order in which they end."""
    waiting, records = iter(numbers), []
    lock, ready = threading.Lock(), threading.Semaphore(0)

    def serve() -> None:
        worker = Worker(seed)
        try:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                record = worker.run(number)
                with lock:
                    records.append(record)
                ready.release()
        finally:
            worker.stop()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for _ in numbers:
        while not ready.acquire(timeout=1.0):
            if not any(thread.is_alive() for thread in threads):
                raise RuntimeError("no worker is left")
        with lock:
            record = records.pop(0)
        yield record


def figures(records: list[dict[str, Any]]) -> str:
    """Outcomes in words, and every finding once."""
    outcomes = Counter(record["outcome"] for record in records)
    lines = [f"{len(records)} cases: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common())]
    for kind in sorted({record["kind"] for record in records}):
        mine = Counter(record["outcome"] for record in records if record["kind"] == kind)
        lines.append(f"  {kind:<12}" + ", ".join(f"{count} {name}" for name, count in mine.most_common()))
    lines.append(
        f"longest {max((r['seconds'] for r in records), default=0):.2f} s, "
        f"most memory {max((r['mib'] for r in records), default=0):.0f} MiB"
    )
    findings: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record["outcome"] not in GOOD:
            place = next((line.strip() for line in reversed(record.get("trace", [])) if "samconvex" in line), "")
            what = record.get("message", "").split(":")[0] if record["outcome"] != "memory" else ""
            findings.setdefault(f"{record['outcome']} {record['kind']} {what} {place}", []).append(record)
    for name, found in sorted(findings.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(found)} x {name}; case {found[0]['case']}: {found[0].get('message', '')}")
    return "\n".join(lines)


def _earlier(state: Path, seed: int) -> list[dict[str, Any]]:
    """Records of the same seed that an interrupted run left; a last line that was cut short is dropped."""
    records = []
    for line in state.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if record.pop("seed", None) == seed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--state", type=Path, help="a line per case goes here")
    parser.add_argument("--resume", action="store_true", help="go on where STATE ends")
    parser.add_argument("--only", type=int, help="make and read this case here, and show what happens")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.seed)
        return 0
    if args.only is not None:
        print(json.dumps(attempt(args.seed, args.only), indent=1))
        return 0
    records = _earlier(args.state, args.seed) if args.resume and args.state and args.state.exists() else []
    done = {record["case"] for record in records}
    with open(args.state or os.devnull, "a" if args.resume else "w", encoding="utf-8") as stream:
        for record in campaign([n for n in range(args.cases) if n not in done], args.seed, args.workers):
            stream.write(json.dumps({"seed": args.seed, **record}) + "\n")
            stream.flush()
            records.append(record)
    print(figures(records))
    return int(any(record["outcome"] not in GOOD for record in records))


if __name__ == "__main__":
    sys.exit(main())

"""Peak memory and time of a 512x512x300 CT pair through the command line.

``python Testing/benchmarks/studies/memory_512.py [--preset NAME] [--size X Y Z] [--output FILE.json]``: draws two
invented patients, runs ``samconvex register`` in a process of its own and prints what it took. The acceptance figure is
4 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[3] / "SAMConvexRegistration"
LIMIT_GIB = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="ct-inter-patient")
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300), metavar=("X", "Y", "Z"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for seed, side in enumerate(("fixed", "moving"), start=1):
            subprocess.run(
                [sys.executable, "-c", DRAW, str(seed), str(folder / f"{side}.nii.gz"), *map(str, chosen.size)],
                check=True,
                env=environment(chosen.threads),
            )
        command = [
            sys.executable,
            "-m",
            "samconvex",
            "register",
            str(folder / "fixed.nii.gz"),
            str(folder / "moving.nii.gz"),
            "-o",
            str(folder / "result"),
            "--preset",
            chosen.preset,
            "--threads",
            str(chosen.threads),
            "--progress",
            "none",
            "--device",
            "cpu",
        ]
        figures = watch(command, environment(chosen.threads))
        if figures["exit_status"] != 0:
            print(f"The registration ended with exit status {figures['exit_status']}.")
            return 1
        report = json.loads((folder / "result" / "report.json").read_text(encoding="utf-8"))
        figures |= {"preset": chosen.preset, "size": list(chosen.size), "seconds": report["seconds"]}
    peak = figures["peak_memory_mib"] / 1024
    print(
        f"{'x'.join(map(str, chosen.size))} pair, {chosen.preset}, {chosen.threads} threads: "
        f"peak memory {peak:.2f} GiB (limit {LIMIT_GIB:g}), whole command {figures['process_seconds']:.1f} s, "
        f"registration {figures['seconds']['total']:.1f} s"
    )
    for name, seconds in figures["seconds"]["stages"].items():
        print(f"  {name:12}{seconds:8.1f} s")
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(figures, indent=1))
    return int(peak > LIMIT_GIB)


# Drawn at 3 mm and interpolated: the phantom itself would need more memory than what is measured.
DRAW = """
import sys
import SimpleITK as sitk
from samconvex.synthetic.phantom import make_phantom
seed, path, size = int(sys.argv[1]), sys.argv[2], [int(word) for word in sys.argv[3:6]]
coarse = make_phantom(seed, 3.0, (128, 128, 120)).ct.to_sitk()
spacing = [n * 3.0 / m for n, m in zip((128, 128, 120), size)]
corner = coarse.TransformContinuousIndexToPhysicalPoint([-0.5 + s / 6 for s in spacing])
image = sitk.Resample(coarse, size, sitk.Transform(), sitk.sitkLinear, corner, spacing, coarse.GetDirection(), -1000)
sitk.WriteImage(image, path, True)
"""


def watch(command: list[str], environment: dict[str, str]) -> dict:
    """Run ``command``; its exit status, seconds and largest resident memory (of the process and its children)."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    peaks: dict[int, int] = {}

    def poll() -> None:
        while process.poll() is None:
            for pid in [process.pid, *_children(process.pid)]:
                peaks[pid] = max(peaks.get(pid, 0), _peak_kib(pid))
            time.sleep(0.05)

    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()
    status = process.wait()
    watcher.join()
    return {
        "exit_status": status,
        "process_seconds": time.perf_counter() - begin,
        "peak_memory_mib": sum(peaks.values()) / 1024,
    }


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def environment(threads: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ENGINE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}


if __name__ == "__main__":
    raise SystemExit(main())

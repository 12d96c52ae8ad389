"""What one change of a parameter costs in the panels, fresh and after many visits, in the stand-in application.

    python Testing/benchmarks/studies/panel_latency.py [--visits N] [--count N] [--slicer-5-10] [-o FILE.json]

A visit leaves the module and enters it again. The change is one of the threads' spin box (registration) or of the
lowest score (landmarks); the time is that until its signal returns, when node, controls and panel agree again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in ("Testing", "SAMConvexRegistration", "SAMLandmark"):
    sys.path.insert(0, str(REPOSITORY / folder))

from harness import start  # noqa: E402

CONTROLS = {
    "SAMConvexRegistration": ("threadsSpinBox", (1, 2)),
    "SAMLandmark": ("minimumScoreSpinBox", (0.25, 0.75)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=60)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--slicer-5-10", action="store_true", help="the parameter node wrapper of Slicer 5.10")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    start()
    from harness.modules import load_module, module_file
    from slicer.parameterNodeWrapper import wrapper

    wrapper.disconnectLeavesObserver = options.slicer_5_10
    rows = []
    for name, (control, values) in CONTROLS.items():
        panel = load_module(module_file(name)).widgetRepresentation()
        panel.enter()
        box = getattr(panel.self().ui, control)
        fresh = median_ms(box, values, options.count)
        for _ in range(options.visits):
            panel.exit()
            panel.enter()
        rows.append({"module": name, "fresh_ms": fresh, "visited_ms": median_ms(box, values, options.count)})
        print(
            "{module}: {fresh_ms:.2f} ms fresh, {visited_ms:.2f} ms after".format(**rows[-1]), options.visits, "visits"
        )
    if options.output:
        Path(options.output).write_text(json.dumps({"visits": options.visits, "rows": rows}, indent=1) + "\n")
    return 0


def median_ms(box, values, count):
    """Median time of a change, in milliseconds."""
    times = []
    for turn in range(count):
        begin = time.perf_counter()
        box.value = values[turn % 2]
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())

"""Peak memory and time of DNS descriptors of a whole volume: ``python Testing/benchmarks/studies/dns_memory.py``.

Random weights of the shipped size; the acceptance figure is 2 GiB at 192x160x192 voxels, torch itself included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"))

from samconvex.features.dns import DnsExtractor  # noqa: E402
from samconvex.memory import peak_memory_mib  # noqa: E402
from samconvex.networks.masr import MASRNet  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402

LIMIT_GIB = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=(192, 160, 192), metavar=("X", "Y", "Z"))
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    grid = Grid(tuple(chosen.size), (2.0, 2.0, 2.0))
    volume = Volume(torch.rand(1, 1, *grid.shape), grid)
    before = peak_memory_mib()
    begin, processor = time.perf_counter(), time.process_time()
    described = DnsExtractor(MASRNet().eval())(volume)
    figures = {
        "size": list(chosen.size),
        "shape": list(described.tensor.shape),
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - processor,
        "threads": torch.get_num_threads(),
        "before_mib": before,
        "peak_memory_mib": peak_memory_mib(),
    }
    print(json.dumps(figures))
    if chosen.output is not None:
        chosen.output.write_text(json.dumps(figures, indent=1))
    return int(figures["peak_memory_mib"] > LIMIT_GIB * 1024)


if __name__ == "__main__":
    raise SystemExit(main())

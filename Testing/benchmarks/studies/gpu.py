"""Everything to be known of a GPU in one go, in under ten minutes: does it run, is it right, how fast is it.

``python Testing/benchmarks/studies/gpu.py --output FILE.json``: the tests that need CUDA, then every preset on an
invented pair of ``--spacing`` mm on the processor and twice on the GPU (the first call warms it up), the distance
between the two maps inside the body, and the memory of the GPU. What was measured is kept after every step, so that a
machine that is taken away loses nothing; ``--resume`` goes on. ``--device cpu`` compares the processor with itself, to
try the script out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex import register  # noqa: E402
from samconvex.anatomy.body import body_mask  # noqa: E402
from samconvex.errors import SamConvexError  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402
from samconvex.synthetic.phantom import make_phantom  # noqa: E402

CUDA_TESTS = "Testing/engine/test_cuda.py"


def body_points(volume: Volume, count: int = 20000) -> np.ndarray:
    """(N, 3) LPS mm, spread over the body."""
    mask = body_mask(volume)
    points = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())
    return points[:: max(1, len(points) // count)]


def timed(pair: tuple[Volume, Volume], preset: str, device: str) -> tuple[Any, dict[str, Any]]:
    """A registration, and its seconds and the GPU's peak memory in MiB."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    result = register(*pair, preset=preset, device=device)
    if device != "cpu":
        torch.cuda.synchronize()
    figures: dict[str, Any] = {"seconds": round(time.perf_counter() - begin, 3)}
    figures["stages"] = result.report["seconds"]["stages"]
    if device != "cpu":
        figures["gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return result, figures


def compared(first: Any, second: Any, points: np.ndarray) -> dict[str, float]:
    """Distance between where two maps put ``points``, mm."""
    maps = [result.fixed_to_moving.map_points(points) for result in (first, second)]
    apart = np.linalg.norm(maps[0] - maps[1], axis=1)
    return {
        "mean": float(apart.mean()),
        "p95": float(np.percentile(apart, 95)),
        "max": float(apart.max()),
    }


def measured(pair: tuple[Volume, Volume], preset: str, device: str, points: np.ndarray) -> dict[str, Any]:
    """One preset on the processor and on ``device``; a refusal is kept as its sentence."""
    try:
        there, cold = timed(pair, preset, device)
        there, warm = timed(pair, preset, device)
        here, cpu = timed(pair, preset, "cpu")
    except SamConvexError as error:
        return {"refused": str(error)}
    return {"cold": cold, "warm": warm, "cpu": cpu, "apart_mm": compared(here, there, points)}


def run_tests() -> dict[str, Any]:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", CUDA_TESTS, "-q", "-p", "no:cacheprovider"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    return {
        "status": done.returncode,
        "says": lines[-1] if lines else done.stderr[-300:],
        "seconds": round(time.perf_counter() - begin, 1),
        "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
    }


def printed(found: dict[str, Any]) -> str:
    lines = [f"{found['device']}; tests: {found.get('tests', {}).get('says', 'not run')}", ""]
    lines += ["| preset | CPU s | first GPU s | GPU s | ratio | apart mm: mean, 95 %, max | GPU MiB |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for preset, record in found["presets"].items():
        if "refused" in record:
            lines.append(f"| {preset} | {record['refused']} | | | | | |")
            continue
        cpu, cold, warm = (record[key]["seconds"] for key in ("cpu", "cold", "warm"))
        apart = ", ".join(f"{record['apart_mm'][key]:.3f}" for key in ("mean", "p95", "max"))
        memory = record["warm"].get("gpu_mib", "")
        lines.append(f"| {preset} | {cpu:.1f} | {cold:.1f} | {warm:.1f} | {cpu / warm:.1f} | {apart} | {memory} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--spacing", type=float, default=2.0, help="of the invented pair, mm")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--minutes", type=float, default=9.0, help="no preset is begun after so long")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    chosen = parser.parse_args()
    if chosen.device != "cpu" and not torch.cuda.is_available():
        print("There is no CUDA device; --device cpu tries the script out.")
        return 2
    begin = time.perf_counter()
    name = torch.cuda.get_device_name() if chosen.device != "cpu" else "processor"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "spacing": chosen.spacing, "presets": {}}
    if chosen.resume and chosen.output.is_file():
        found = json.loads(chosen.output.read_text(encoding="utf-8"))

    def keep() -> None:
        chosen.output.write_text(json.dumps(found, indent=1), encoding="utf-8")

    if not chosen.no_tests and "tests" not in found:
        found["tests"] = run_tests()
        keep()
    pair = (make_phantom(1, chosen.spacing).ct, make_phantom(2, chosen.spacing).ct)
    points = body_points(pair[0])
    for preset in chosen.presets:
        if preset in found["presets"] or time.perf_counter() - begin > 60 * chosen.minutes:
            continue
        found["presets"][preset] = measured(pair, preset, chosen.device, points)
        keep()
        print(preset, found["presets"][preset], flush=True)
    print(printed(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

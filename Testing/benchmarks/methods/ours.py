"""Run one of our presets on one prepared pair.

``python -m benchmarks.methods.ours PRESET JOB OUTPUT [--own [--from-start]]``: same job, same process boundaries and
the same clock as :mod:`benchmarks.methods.peers`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import samconvex
import torch
from samconvex.io.images import read_mask
from samconvex.settings.presets import get_settings
from samconvex.space.transforms import Transform

from .peers import peak_memory_mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("job", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--own", action="store_true", help="native images and our own affine instead of the start")
    parser.add_argument("--from-start", action="store_true", help="with --own: the affine starts from the start")
    parser.add_argument("--features", help="replace the preset's features")
    parser.add_argument("--refine", help="replace the preset's refinement")
    parser.add_argument("--weights", help="network weights instead of the shipped ones")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    suffix = "_native" if arguments.own else ""
    fixed, moving = (samconvex.read_volume(arguments.job / f"{side}{suffix}.nii.gz") for side in ("fixed", "moving"))
    options: dict = {} if arguments.own else {"initial_transform": Transform()}
    if arguments.from_start:
        options = {
            "initial_transform": Transform.load(arguments.job / "start.tfm"),
            "affine": get_settings(arguments.preset).affine,
        }
    for name in ("features", "refine", "weights"):
        if getattr(arguments, name):
            options[name] = getattr(arguments, name)
    for side in ("fixed", "moving"):
        mask = arguments.job / f"{side}_mask{suffix}.nii.gz"
        if mask.exists():
            options[f"{side}_mask"] = read_mask(mask)
    begin, processor = time.perf_counter(), time.process_time()
    result = samconvex.register(
        fixed, moving, preset=arguments.preset, device="cpu", threads=arguments.threads, **options
    )
    record = {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - processor,
        "peak_memory_mib": peak_memory_mib(),
    }
    record["version"] = f"samconvex {samconvex.__version__} {arguments.preset}"
    record["stages"] = result.report["seconds"]["stages"]
    result.fixed_to_moving.save(arguments.output / "transform.h5")
    (arguments.output / "run.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()

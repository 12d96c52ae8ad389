"""Time and memory of embedding a 512x512x300 CT, and of the first and the second question about it.

``python Testing/benchmarks/studies/embedding_512.py [--size X Y Z] [--threads N]``: draws two invented patients, then
asks, in a process of its own, where 20 points of one lie in the other: without anything cached, and again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from memory_512 import DRAW, environment  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300), metavar=("X", "Y", "Z"))
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = [str(Path(scratch) / f"{seed}.nii.gz") for seed in (1, 2)]
        own = environment(chosen.threads) | {"SAMCONVEX_HOME": os.path.join(scratch, "home")}
        for seed, file in enumerate(files, start=1):
            subprocess.run([sys.executable, "-c", DRAW, str(seed), file, *map(str, chosen.size)], check=True, env=own)
        return subprocess.run([sys.executable, "-c", _ASK, str(chosen.threads), *files], env=own).returncode


_ASK = """
import sys, time
import numpy as np, torch
from samconvex.anatomy.embed import embed
from samconvex.landmarks.matching import match_points
from samconvex.memory import peak_memory_mib
from samconvex.anatomy.body import body_mask
from samconvex.io.images import read_volume
from samconvex.weights.models import load_sam
torch.set_num_threads(int(sys.argv[1]))
fixed, moving = (read_volume(file) for file in sys.argv[2:4])
model = load_sam(None)
before = peak_memory_mib()
def timed(name, work):
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    print(f"{name:48} {seconds:8.3f} s   peak of the process {peak_memory_mib():6.0f} MiB", flush=True)
    return result
print(f"{fixed.grid.size} voxels of {np.round(fixed.grid.spacing, 2)} mm; both images in memory: {before:.0f} MiB")
timed("embedding one image", lambda: embed(fixed, model))
body = body_mask(fixed)
places = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
points = places[np.random.default_rng(0).choice(len(places), 20, replace=False)]
timed("first question (embeds both, SAM-affine)", lambda: match_points(fixed, points, moving))
timed("second question, 20 points", lambda: match_points(fixed, points, moving))
for mode in ("fast", "live"):
    timed(f"another question, 1 point, {mode}", lambda mode=mode: match_points(fixed, points[:1], moving, mode=mode))
"""

if __name__ == "__main__":
    raise SystemExit(main())

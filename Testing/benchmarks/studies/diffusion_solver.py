"""The Gauss-Newton system of ``samconvex.deform.diffusion`` solved by our multigrid and by pyamg:
residual, iterations, time.

``python Testing/benchmarks/studies/diffusion_solver.py [--voxels 80000 660000] [--output FILE.json]``: real data
blocks, from MIND features of an invented torso, at three unknowns per voxel (240 thousand and 2 million). Needs pyamg
and scipy; set OMP_NUM_THREADS to compare at equal threads (the solve phase of pyamg runs on one).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"))

from samconvex.deform.diffusion import Linearization  # noqa: E402
from samconvex.deform.multigrid import DiffusionSystem, conjugate_gradients
from samconvex.features.mind import Mind  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.space.intensity import ct_window  # noqa: E402
from samconvex.space.volume import Volume, resample
from samconvex.synthetic.phantom import make_phantom  # noqa: E402
from samconvex.synthetic.warps import breathing_warp  # noqa: E402

PAIRS = {(0, 0): 0, (1, 1): 1, (2, 2): 2, (0, 1): 3, (1, 0): 3, (0, 2): 4, (2, 0): 4, (1, 2): 5, (2, 1): 5}


def problem(voxels: int) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float, float]]:
    """Blocks, right side and spacing of the first step between a torso and the same after a breath."""
    ct = make_phantom(1, 4.0).ct
    moving, _ = breathing_warp(ct, 20.0)
    extent = ct.grid.extent
    spacing = float((extent.prod() / voxels) ** (1 / 3))
    grid = Grid.covering(ct.grid.corners(), spacing)
    maps = [Mind()(Volume(ct_window(resample(image, grid).tensor), grid)) for image in (ct, moving)]
    pair = Linearization(maps[0].tensor, maps[1], torch.ones(1, 1, *grid.shape), grid)
    blocks, right = pair.system(torch.zeros(1, 3, *grid.shape))
    return blocks, right, grid.spacing


def sparse_matrix(blocks: torch.Tensor, spacing: tuple[float, float, float], regularization: float):
    """The system as a scipy CSR matrix, unknowns ordered component by component."""
    from scipy import sparse

    shape = blocks.shape[2:]
    count = int(np.prod(shape))
    axes = []
    for axis, n in enumerate(shape):
        steps = sparse.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n))
        axes.append((steps.T @ steps) * (regularization / spacing[2 - axis] ** 2))
    eye = [sparse.identity(n) for n in shape]
    stiffness = sum(
        sparse.kron(sparse.kron(*(axes[a] if a == k else eye[a] for a in (0, 1))), axes[2] if k == 2 else eye[2])
        for k in range(3)
    )
    values = blocks[0].flatten(1).double().numpy()
    rows = [
        [sparse.diags(values[PAIRS[a, b]]) + (stiffness if a == b else 0 * sparse.identity(count)) for b in range(3)]
        for a in range(3)
    ]
    ridge = 1e-6 * regularization * sum(step**-2 for step in spacing)
    return (sparse.bmat(rows) + ridge * sparse.identity(3 * count)).tocsr()


def ours(
    blocks: torch.Tensor, right: torch.Tensor, spacing: tuple, regularization: float, tolerance: float
) -> tuple[dict, np.ndarray]:
    begin, processor = time.perf_counter(), time.process_time()
    system = DiffusionSystem(blocks, spacing, regularization)
    built = time.perf_counter()
    found = conjugate_gradients(system, right, tolerance=tolerance)
    record = {
        "method": f"ours, {str(right.dtype).removeprefix('torch.')}",
        "setup_s": built - begin,
        "solve_s": time.perf_counter() - built,
        "cpu_s": time.process_time() - processor,
        "iterations": found.iterations,
        "residual": found.residual,
    }
    return record, found.tensor.double().flatten().numpy()


def pyamg_solution(matrix, right: np.ndarray, tolerance: float) -> tuple[dict, np.ndarray]:
    import pyamg

    begin, processor = time.perf_counter(), time.process_time()
    constant = np.kron(np.eye(3), np.ones((len(right) // 3, 1)))
    hierarchy = pyamg.smoothed_aggregation_solver(matrix, B=constant)
    built = time.perf_counter()
    residuals: list[float] = []
    x = hierarchy.solve(right, tol=tolerance, accel="cg", residuals=residuals)
    record = {
        "method": f"pyamg {pyamg.__version__}, smoothed aggregation + CG",
        "setup_s": built - begin,
        "solve_s": time.perf_counter() - built,
        "cpu_s": time.process_time() - processor,
        "iterations": len(residuals) - 1,
        "residual": float(np.linalg.norm(right - matrix @ x) / np.linalg.norm(right)),
    }
    return record, x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, nargs="+", default=[80_000, 660_000])
    parser.add_argument("--regularization", type=float, default=2.0)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    records = []
    for voxels in chosen.voxels:
        blocks, right, spacing = problem(voxels)
        unknowns = right.numel()
        single, _ = ours(blocks, right, spacing, chosen.regularization, chosen.tolerance)
        double, found = ours(blocks.double(), right.double(), spacing, chosen.regularization, 1e-9)
        matrix = sparse_matrix(blocks, spacing, chosen.regularization)
        vector = right.double().flatten().numpy()
        loose, _ = pyamg_solution(matrix, vector, chosen.tolerance)
        tight, expected = pyamg_solution(matrix, vector, 1e-9)
        double["difference_to_pyamg"] = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        for record in (single, loose, double, tight):
            record["unknowns"] = unknowns
            records.append(record)
            words = [f"{key} {item:.3g}" for key, item in record.items() if isinstance(item, float)]
            print(f"{unknowns:>9} {record['method']:<44} iterations {record['iterations']:>3} ", *words, flush=True)
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps({"threads": torch.get_num_threads(), "records": records}, indent=1))


if __name__ == "__main__":
    main()

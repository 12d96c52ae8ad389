"""Robust affine maps, one per point, from the matches of its neighborhood."""

from __future__ import annotations

import numpy as np


def robust_local_maps(
    points: np.ndarray,
    sources: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    width_mm: float = 14.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image of each point under an affine map fitted to its own pairs, by iteratively reweighted least squares.

    Args:
        points: (N, 3). sources, targets: (N, K, 3) pairs. weights: (N, K). start: (N, 3) fallback.
        width_mm: pairs further from the point than this count little.

    Returns:
        (N, 3) answers, (N,) weighted median residual in mm (infinite without usable pairs), (N,) sum of the weights
        that agreed in the end.
    """
    offsets = sources - points[:, None]
    near = np.exp(-((np.linalg.norm(offsets, axis=2) / width_mm) ** 2))
    base = weights * near
    design = np.concatenate([np.ones((*offsets.shape[:2], 1)), offsets], 2)
    shifts = targets - sources
    # A ridge on the linear part: few, noisy pairs must not tilt the answer.
    ridge = np.diag([1e-6, *[60.0] * 3])
    current = np.median(shifts, 1)
    residual = np.linalg.norm(shifts - current[:, None], axis=2)
    for scale in (30.0, 20.0, 12.0, 10.0, 10.0):
        robust = base * np.clip(1 - (residual / scale) ** 2, 0, None) ** 2
        normal = np.einsum("nk,nki,nkj->nij", robust, design, design) + ridge
        right = np.einsum("nk,nki,nkd->nid", robust, design, shifts)
        solution = np.linalg.solve(normal, right)
        residual = np.linalg.norm(shifts - design @ solution, axis=2)
    support = robust.sum(1)
    usable = support > 0.3
    answers = np.where(usable[:, None], points + solution[:, 0], start)
    order = np.argsort(residual, 1)
    cumulative = np.cumsum(np.take_along_axis(base, order, 1), 1)
    middle = (cumulative >= 0.5 * cumulative[:, -1:]).argmax(1)
    spread = np.take_along_axis(np.take_along_axis(residual, order, 1), middle[:, None], 1)[:, 0]
    return answers, np.where(usable, spread, np.inf), support

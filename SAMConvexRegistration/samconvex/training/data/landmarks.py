"""Point correspondences between two patients from the label maps both have (SAM paper, section IV-H, taken further).

A label gives its centroid, its extreme points in 26 directions, and the points inside it carried over by the optimal
transport map between the Gaussians that share the two organs' means and covariances. Tubular labels (spinal cord,
esophagus), whose ends are arbitrary, give only axis points at levels matched through the centroids of the other labels.

Coordinates are voxels of the cached volume, ordered z, y, x.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

DIRECTIONS = np.array([d for d in itertools.product((-1, 0, 1), repeat=3) if any(d)], dtype=float)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
MINIMUM_VOXELS = 24


@dataclass
class LabelShape:
    """Geometry of one label; ``whole`` is False where the scan cuts it, ``axis`` is (n, 3) for tubular labels."""

    centroid: np.ndarray
    covariance: np.ndarray
    points: np.ndarray
    extremes: np.ndarray
    whole: bool
    axis: np.ndarray | None = None


@dataclass
class Correspondences:
    """Matching points of two cases, (n, 3) each, with the distance within which a neighbor is no certain negative."""

    first: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    second: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    tolerance: np.ndarray = field(default_factory=lambda: np.zeros(0))


def describe_label(points: np.ndarray, whole: bool, tubular: bool, rng: np.random.Generator) -> LabelShape | None:
    """Shape of a label from all its voxel positions (n, 3); None if it is too small to be trusted."""
    if len(points) < MINIMUM_VOXELS:
        return None
    centroid = points.mean(0)
    covariance = np.cov(points.T) + np.eye(3) * 0.1
    count = max(3, len(points) // 40)
    projections = points @ DIRECTIONS.T
    order = np.argpartition(-projections, count - 1, axis=0)[:count]
    extremes = points[order].mean(0)
    axis = None
    if tubular:
        level = np.round(points[:, 0] / 2).astype(int)
        axis = np.array([points[level == k].mean(0) for k in np.unique(level)])
    if len(points) > 600:
        points = points[rng.choice(len(points), 600, replace=False)]
    return LabelShape(centroid, covariance, points, extremes, whole, axis)


def _root(matrix: np.ndarray, power: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-6) ** power) @ vectors.T


def transport_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optimal transport map (3, 3) between zero-mean Gaussians of these covariances; symmetric, so never a rotation."""
    root, inverse = _root(first, 0.5), _root(first, -0.5)
    return inverse @ _root(root @ second @ root, 0.5) @ inverse


def level_map(first: dict[int, LabelShape], second: dict[int, LabelShape]) -> tuple[np.ndarray, np.ndarray] | None:
    """Matching axial positions of the compact labels both cases have, increasing in both; None with fewer than two."""
    shared = [k for k in first if k in second and first[k].axis is None and first[k].whole and second[k].whole]
    pairs = sorted((first[k].centroid[0], second[k].centroid[0]) for k in shared)
    kept: list[tuple[float, float]] = []
    for a, b in pairs:
        if not kept or (a - kept[-1][0] > 10 and b - kept[-1][1] > 10):
            kept.append((a, b))
    if len(kept) < 2:
        return None
    array = np.array(kept)
    slope = np.clip((array[-1, 1] - array[0, 1]) / (array[-1, 0] - array[0, 0]), 0.85, 1.18)
    reach = np.array([[-200.0, -200.0 * slope], [200.0, 200.0 * slope]])
    array = np.concatenate([array[:1] + reach[:1], array, array[-1:] + reach[1:]])
    return array[:, 0], array[:, 1]


def correspondences(
    first: dict[int, LabelShape],
    second: dict[int, LabelShape],
    rng: np.random.Generator,
    voxel_mm: float = 2.0,
    dense: int = 24,
) -> Correspondences:
    """Matching points of two cases from their shared labels."""
    a: list[np.ndarray] = []
    b: list[np.ndarray] = []
    tolerance: list[np.ndarray] = []

    def add(x: np.ndarray, y: np.ndarray, mm: float) -> None:
        a.append(np.atleast_2d(x))
        b.append(np.atleast_2d(y))
        tolerance.append(np.full(len(a[-1]), mm / voxel_mm))

    levels = level_map(first, second)
    for key in sorted(set(first) & set(second)):
        one, two = first[key], second[key]
        if one.axis is not None and two.axis is not None:
            if levels is None:
                continue
            chosen = one.axis[rng.integers(0, len(one.axis), dense // 2)]
            height = np.interp(chosen[:, 0], *levels)
            inside = (height > two.axis[0, 0]) & (height < two.axis[-1, 0])
            target = np.stack([height, *(np.interp(height, two.axis[:, 0], two.axis[:, k]) for k in (1, 2))], 1)
            if inside.any():
                add(chosen[inside], target[inside], 14.0)
        elif one.whole and two.whole:
            add(one.centroid, two.centroid, 6.0)
            chosen = rng.choice(len(DIRECTIONS), 10, replace=False)
            add(one.extremes[chosen], two.extremes[chosen], 9.0)
            points = one.points[rng.integers(0, len(one.points), dense)]
            moved = two.centroid + (points - one.centroid) @ transport_map(one.covariance, two.covariance).T
            near = np.linalg.norm(moved[:, None] - two.points[None], axis=2).min(1) * voxel_mm < 4.0
            if near.any():
                add(points[near], moved[near], 8.0)
    if not a:
        return Correspondences()
    return Correspondences(np.concatenate(a), np.concatenate(b), np.concatenate(tolerance))


def alignment(
    first: dict[int, LabelShape], second: dict[int, LabelShape]
) -> tuple[float, np.ndarray, np.ndarray] | None:
    """(s, c1, c2) with ``x2 = c2 + s (x1 - c1)``, roughly, from shared whole labels; None if too few."""
    shared = [k for k in first if k in second and first[k].axis is None and first[k].whole and second[k].whole]
    if len(shared) < 3:
        return None
    x = np.array([first[k].centroid for k in shared])
    y = np.array([second[k].centroid for k in shared])
    cx, cy = x.mean(0), y.mean(0)
    scale = float(np.clip(np.linalg.norm(y - cy) / max(np.linalg.norm(x - cx), 1e-6), 0.7, 1.4))
    return scale, cx, cy

"""Points of one body matched in the other by their embeddings, there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..anatomy.embedding import SamEmbedding
from ..anatomy.search import nearest
from ..space.sampling import sample
from ..space.transforms import AffineTransform
from ..space.volume import Volume
from .local_maps import robust_local_maps

GRID_MM = 16.0
MAXIMUM_POINTS = 1200
CLOSURE_MM = 8.0
NEIGHBORS = 27
MINIMUM_SUPPORT = 0.5


@dataclass(frozen=True)
class PointPairs:
    """Matched points of two volumes: ``fixed`` and ``moving`` (N, 3) LPS mm, ``score`` (N,)."""

    fixed: np.ndarray
    moving: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.fixed)

    def where(self, keep: np.ndarray) -> PointPairs:
        return PointPairs(self.fixed[keep], self.moving[keep], self.score[keep])


def body_points(
    embedding: SamEmbedding, spacing_mm: float, mask: Volume | None = None, limit: int = MAXIMUM_POINTS
) -> np.ndarray:
    """(N, 3) LPS points of a regular lattice inside the body (and the mask), at most about ``limit``."""
    grid, body = embedding.fine.grid, embedding.body
    volume = float(body.sum()) * float(np.prod(grid.spacing))
    spacing_mm = max(spacing_mm, (volume / limit) ** (1 / 3))
    step = np.clip(np.round(spacing_mm / np.asarray(grid.spacing)), 1, grid.size).astype(int)
    start = step // 2
    thinned = body[start[2] :: step[2], start[1] :: step[1], start[0] :: step[0]]
    index = torch.nonzero(thinned).cpu().numpy()[:, ::-1] * step + start
    points = grid.voxels_to_points(index)
    return points[in_mask(points, mask)]


def in_mask(points: np.ndarray, mask: Volume | None) -> np.ndarray:
    if mask is None or not len(points):
        return np.ones(len(points), bool)
    relative = torch.as_tensor(points - mask.grid.center, dtype=torch.float32)[None, None]
    values = sample(mask.tensor.float(), mask.grid, relative, reference=mask.grid.center, mode="nearest", fill=0.0)
    return values[0, 0, 0, 0].numpy() > 0


def matched_pairs(
    fixed: SamEmbedding,
    moving: SamEmbedding,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    report: Callable[[float], None] = lambda fraction: None,
    *,
    spacing_mm: float = GRID_MM,
    near: AffineTransform | None = None,
    reach_mm: float = 35.0,
) -> tuple[PointPairs, int]:
    """Pairs on which a whole neighborhood agrees, and how many points were tried.

    Each lattice point is matched there and back; then its neighbors vote on where it belongs, those that close their
    cycle counting most. Single wrong matches lose, and the noise of single matches averages out.

    Args:
        near: search only within ``reach_mm`` of this map's prediction, from points whose prediction is in the image.
    """
    points = body_points(fixed, spacing_mm, fixed_mask)
    forward: dict[str, Any] = {}
    backward: dict[str, Any] = {}
    if near is not None and len(points):
        points = points[moving.grid.contains(near.map_points(points))]
        forward = {"around": near.map_points(points), "reach_mm": reach_mm}
    tried = len(points)
    if tried < 8:
        return PointPairs(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)), tried
    # At first a peak is a peak; the second round, around the first map, compares every voxel.
    forward["thorough"] = backward["thorough"] = near is not None
    there, score = nearest(moving, fixed.descriptors(points), lambda f: report(0.45 * f), **forward)
    if near is not None:
        backward |= {"around": near.inverse().map_points(there), "reach_mm": reach_mm}
    back, _ = nearest(fixed, moving.descriptors(there), lambda f: report(0.45 + 0.45 * f), **backward)
    closure = np.linalg.norm(back - points, axis=1)
    trust = np.exp(-((closure / CLOSURE_MM) ** 2)) * np.clip(score, 0, 1) ** 4 * in_mask(there, moving_mask)
    places = torch.as_tensor(points - points.mean(0))
    neighbors = torch.cdist(places, places).topk(min(NEIGHBORS, tried), largest=False).indices.numpy()
    voted, spread, support = robust_local_maps(
        points, points[neighbors], there[neighbors], trust[neighbors], there, width_mm=1.2 * spacing_mm
    )
    report(1.0)
    pairs = PointPairs(points, voted, support / (1 + (spread / 6.0) ** 2))
    return pairs.where((support > MINIMUM_SUPPORT) & (spread < 15.0) & in_mask(voted, moving_mask)), tried

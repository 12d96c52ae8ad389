"""Affine alignment by anatomy: body points matched both ways, then robust fits (SAM-affine of SAME, Liu et al., 2021).

Unlike the original's plain least squares, a similarity is first found by random sampling among the pairs that close
their cycle; an affine map follows by reweighting, and a second, local round of matching around it settles the details.
A confidence says whether to trust the result: other body parts, a foreign network or too small an overlap leave few
consistent pairs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F

from .anatomy.cache import embed_cached
from .anatomy.embedding import SamEmbedding
from .anatomy.search import nearest
from .local_maps import robust_local_maps
from .progress import Progress, stage
from .space.field import DisplacementField
from .space.grid import Grid
from .space.linear import similarity_from_points
from .space.sampling import sample
from .space.transforms import AffineTransform
from .space.volume import Volume
from .weights.models import SamModel, load_sam

GRID_MM = 16.0
MAXIMUM_POINTS = 1200
CLOSURE_MM = 8.0
NEIGHBORS = 27
MINIMUM_SUPPORT = 0.5
INLIER_MM = 15.0
CONFIDENT = 0.5


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


def sam_affine(
    fixed: Volume | SamEmbedding,
    moving: Volume | SamEmbedding,
    *,
    weights: SamModel | str | os.PathLike | None = None,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    seed: int = 0,
) -> tuple[AffineTransform, dict[str, Any]]:
    """Affine map of fixed points to moving points.

    Args:
        fixed, moving: volumes of any geometry, or their embeddings.
        fixed_mask, moving_mask: only points inside (nonzero) count.

    Returns:
        The transform (identity where nothing matched) and ``confidence`` in [0, 1] (trust it from
        :data:`CONFIDENT`), ``reason``, ``pairs``, ``inliers``, ``residual_mm`` (median), ``scale`` (of the similarity).

    Raises:
        InputError: no body, unusable weights or modality. Cancelled: by ``progress``.
    """
    if not (isinstance(fixed, SamEmbedding) and isinstance(moving, SamEmbedding)):
        model = weights if isinstance(weights, SamModel) else load_sam(weights)
        fixed, moving = (
            v if isinstance(v, SamEmbedding) else embed_cached(v, model, device=device, progress=progress)
            for v in (fixed, moving)
        )
    report = stage(progress, "affine")
    report(0.0)
    pairs, tried = matched_pairs(fixed, moving, fixed_mask, moving_mask, lambda f: report(0.55 * f))
    similarity, inlier = ransac_similarity(pairs, np.random.default_rng(seed))
    if similarity is None:
        reason = "too few points of the two images match"
        return AffineTransform.identity(), _details(pairs, tried, inlier, float("nan"), reason)
    transform = reweighted_affine(pairs.where(inlier), similarity)
    report(0.6)
    local, _ = matched_pairs(fixed, moving, fixed_mask, moving_mask, lambda f: report(0.6 + 0.39 * f), near=transform)
    if len(local) >= 12:
        transform = reweighted_affine(local, transform)
    used = local if len(local) >= 12 else pairs.where(inlier)
    residual = float(np.median(np.linalg.norm(transform.map_points(used.fixed) - used.moving, axis=1)))
    details = _details(pairs, tried, inlier, residual, "")
    details["scale"] = float(np.cbrt(abs(np.linalg.det(transform.matrix))))
    details["local_pairs"] = len(local)
    report(1.0)
    return transform, details


# SAM-affine of a pair costs about a second; the second question about the same pair must not.
_Known = WeakKeyDictionary[SamEmbedding, tuple[AffineTransform, dict[str, Any]]]
_known_pairs: WeakKeyDictionary[SamEmbedding, _Known] = WeakKeyDictionary()


def pair_affine(template: SamEmbedding, query: SamEmbedding) -> tuple[AffineTransform, dict[str, Any]]:
    """:func:`sam_affine` of two whole embeddings, computed once for as long as both live."""
    known = _known_pairs.setdefault(template, WeakKeyDictionary())
    if query not in known:
        known[query] = sam_affine(template, query)
    return known[query]


def _details(pairs: PointPairs, tried: int, inlier: np.ndarray, residual: float, reason: str) -> dict[str, Any]:
    """Confidence from how many pairs agree, absolutely and in proportion, and how widely they are spread."""
    count = int(inlier.sum())
    share = count / max(len(pairs), 1)
    spread = float(np.sqrt(np.linalg.eigvalsh(np.cov(pairs.fixed[inlier].T))[1])) if count >= 4 else 0.0
    parts = {
        "few pairs agree": min(1.0, max(0.0, (count - 6) / 24)),
        "most pairs disagree": min(1.0, max(0.0, (share - 0.15) / 0.25)),
        "the pairs lie close together": min(1.0, spread / 25.0),
    }
    confidence = 0.0 if reason else float(np.prod(list(parts.values())) ** 0.5)
    if not reason and confidence < CONFIDENT:
        reason = min(parts, key=lambda key: parts[key])
    return {
        "confidence": round(confidence, 3),
        "reason": reason,
        "points": tried,
        "pairs": len(pairs),
        "inliers": count,
        "residual_mm": residual,
        "spread_mm": round(spread, 1),
    }


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
    return points[_in_mask(points, mask)]


def _in_mask(points: np.ndarray, mask: Volume | None) -> np.ndarray:
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
    trust = np.exp(-((closure / CLOSURE_MM) ** 2)) * np.clip(score, 0, 1) ** 4 * _in_mask(there, moving_mask)
    places = torch.as_tensor(points - points.mean(0))
    neighbors = torch.cdist(places, places).topk(min(NEIGHBORS, tried), largest=False).indices.numpy()
    voted, spread, support = robust_local_maps(
        points, points[neighbors], there[neighbors], trust[neighbors], there, width_mm=1.2 * spacing_mm
    )
    report(1.0)
    pairs = PointPairs(points, voted, support / (1 + (spread / 6.0) ** 2))
    return pairs.where((support > MINIMUM_SUPPORT) & (spread < 15.0) & _in_mask(voted, moving_mask)), tried


def ransac_similarity(
    pairs: PointPairs, random: np.random.Generator, *, samples: int = 3000, limit_mm: float = INLIER_MM
) -> tuple[AffineTransform | None, np.ndarray]:
    """The similarity that most pairs agree with, and which ones do; None with too few pairs.

    Mirrored, tiny, huge or steeply turned candidates are no patients and do not count.
    """
    count = len(pairs)
    if count < 6:
        return None, np.zeros(count, bool)
    if count <= 64:
        chosen = np.argsort(random.random((samples, count)), 1)[:, :4]
    else:
        chosen = random.integers(0, count, (samples, 4))
    matrices, shifts = similarity_from_points(pairs.fixed[chosen], pairs.moving[chosen])
    scale = np.cbrt(np.abs(np.linalg.det(matrices)))
    cosine = (np.trace(matrices, axis1=1, axis2=2) / np.maximum(scale, 1e-9) - 1) / 2
    plausible = (scale > 0.6) & (scale < 1.6) & (cosine > np.cos(np.radians(60)))
    matrices, shifts = matrices[plausible], shifts[plausible]
    if not len(matrices):
        return None, np.zeros(count, bool)
    best, transform = -1.0, AffineTransform.identity()
    for start in range(0, len(matrices), 200):
        part = slice(start, start + 200)
        mapped = np.einsum("mij,nj->mni", matrices[part], pairs.fixed) + shifts[part, None]
        distance = np.linalg.norm(mapped - pairs.moving, axis=2)
        support = np.clip(1 - (distance / limit_mm) ** 2, 0, None).sum(1)
        row = int(support.argmax())
        if support[row] > best:
            best, transform = float(support[row]), AffineTransform(matrices[start + row], shifts[start + row])
    inlier = _residual(transform, pairs) < limit_mm
    for _ in range(3):
        if inlier.sum() < 4:
            break
        transform = AffineTransform(*similarity_from_points(pairs.fixed[inlier], pairs.moving[inlier]))
        inlier = _residual(transform, pairs) < limit_mm
    return (transform, inlier) if inlier.sum() >= 6 else (None, inlier)


def _residual(transform: AffineTransform, pairs: PointPairs) -> np.ndarray:
    return np.linalg.norm(transform.map_points(pairs.fixed) - pairs.moving, axis=1)


def reweighted_affine(
    pairs: PointPairs, start: AffineTransform, *, iterations: int = 12, stiffness_mm: float = 25.0
) -> AffineTransform:
    """Affine map by Tukey-weighted least squares, drawn towards ``start`` along directions that the points do not span.

    Args:
        stiffness_mm: spread of points below which ``start``'s matrix prevails.
    """
    transform = start
    for _ in range(iterations):
        residual = _residual(transform, pairs)
        # The spread between patients is real; beyond a few centimeters it is a mismatch, whatever the median says.
        limit = float(np.clip(4.5 * np.median(residual), 12.0, 40.0))
        weight = np.clip(1 - (residual / limit) ** 2, 0, None) ** 2 * pairs.score
        total = weight.sum()
        if total < 1e-6:
            return transform
        center = weight @ pairs.fixed / total
        target = weight @ pairs.moving / total
        x, y = pairs.fixed - center, pairs.moving - target
        normal = (weight[:, None] * x).T @ x + total * stiffness_mm**2 * 0.1 * np.eye(3)
        # Solve for the change against the start's matrix, so that the ridge pulls there and not to zero.
        right = (weight[:, None] * x).T @ (y - x @ start.matrix.T)
        matrix = start.matrix + np.linalg.solve(normal, right).T
        transform = AffineTransform(matrix, target - matrix @ center)
    return transform


def sam_coarse(
    fixed: SamEmbedding,
    moving: SamEmbedding,
    affine: AffineTransform,
    *,
    spacing_mm: float = 32.0,
    smoothness: float = 0.04,
    steps: int = 150,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
) -> DisplacementField:
    """Coarse free-form field u after SAM-affine: affine(p + u(p)) follows the matched points (SAM-coarse of SAME).

    Minimizes the mean robust squared point error plus ``smoothness`` times the squared differences between nodes, in
    units of the node distance.
    """
    grid = Grid.covering(fixed.grid.corners(), spacing_mm, margin_mm=spacing_mm / 2)
    field = torch.zeros(1, 3, *grid.shape, requires_grad=True)
    pairs, _ = matched_pairs(fixed, moving, fixed_mask, moving_mask, near=affine)
    if not len(pairs):
        return DisplacementField(field.detach(), grid)
    shifts = (affine.inverse().map_points(pairs.moving) - pairs.fixed) / spacing_mm
    wanted = torch.as_tensor(shifts, dtype=torch.float32)
    places = torch.as_tensor(pairs.fixed - grid.center, dtype=torch.float32)[None, None]
    weight = torch.as_tensor(pairs.score, dtype=torch.float32)
    optimizer = torch.optim.Adam([field], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        got = sample(field, grid, places, reference=grid.center)[0, :, 0, 0].T
        # Huber at half a node: a wrong pair pulls with bounded force.
        error = (F.huber_loss(got, wanted, reduction="none", delta=0.5).sum(1) * weight).sum() / weight.sum()
        smooth = sum((torch.diff(field, dim=axis) ** 2).mean() for axis in (2, 3, 4) if field.shape[axis] > 1)
        (error + smoothness * smooth * 3).backward()
        optimizer.step()
    return DisplacementField(field.detach() * spacing_mm, grid)

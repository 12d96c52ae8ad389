"""One-shot landmark matching: where the points of one volume lie in another, by their anatomical embeddings.

A point's descriptor is interpolated at its exact place and compared with every body voxel of the query in one matrix
product; the score is the mean of the fine and the coarse cosine, the place is refined between voxels. Matching the
answer back gives the cycle error. In the "stable" mode a small neighborhood is matched along with each point, by turns
forward and backward, and a robust local affine map of the pairs that hold still gives the answer (UAE's stable points,
Bai et al., MICCAI 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from .embedding_cache import embed_cached
from .errors import InputError
from .features.sam import SamEmbedding
from .progress import Progress, stage
from .volume import Volume
from .weights import SamModel, load_sam

# Found or not: limits where false finds and false losses balance (Testing/benchmarks/landmarks.py measures both).
MINIMUM_SCORE = 0.55
MAXIMUM_CYCLE_MM = 25.0

# Points and voxels of one product, small enough for the processor's cache.
_PRODUCT_POINTS = 1024
_PRODUCT_ROWS = 2048
_BLOCK = 64
_BLOCKS_KEPT = 4
_FRACTION = 0.25
_FRACTIONS = tuple(_FRACTION * step for step in range(-3, 4))
_CUBE = np.array(list(product((-1, 0, 1), repeat=3)))


@dataclass(frozen=True)
class Matches:
    """Answers for N points.

    Attributes:
        points: (N, 3) LPS mm of the best match, given even where it is not trusted.
        score: (N,) mean cosine of coarse and fine embeddings, at most 1.
        cycle_mm: (N,) distance between a point and the place its answer leads back to.
        found: (N,) bool, score and cycle error are within the limits.
    """

    points: np.ndarray
    score: np.ndarray
    cycle_mm: np.ndarray
    found: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) LPS mm with NaN where nothing was found."""
        return np.where(self.found[:, None], self.points, np.nan)


def match_points(
    template: Volume | SamEmbedding,
    points_lps_mm: np.ndarray,
    query: Volume | SamEmbedding,
    *,
    weights: SamModel | str | None = None,
    mode: str = "stable",
    min_score: float | None = None,
    max_cycle_mm: float | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Matches:
    """Find the template's points in the query volume.

    Args:
        template, query: volumes of any geometry, or embeddings from an earlier call.
        points_lps_mm: (N, 3) in the template.
        weights: loaded model, registry name or file; default the shipped one.
        mode: "stable" (a neighborhood votes; more accurate) or "fast" (one lookup there and back).
        min_score, max_cycle_mm: limits of ``found``; default calibrated ones.

    Raises:
        InputError: points that are not (N, 3) finite numbers or outside the template; unusable volumes or weights.
        Cancelled: by ``progress``.
    """
    if mode not in ("stable", "fast"):
        raise InputError(f"{mode} is no matching mode; use stable or fast.")
    points = np.asarray(points_lps_mm, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError("Points must be N rows of finite x, y, z in LPS mm.")
    first, second = _embeddings((template, query), weights, device, progress)
    if first.network != second.network:
        raise InputError("Template and query were embedded by different networks; embed one of them again.")
    outside = ~first.grid.contains(points)
    if outside.any():
        raise InputError(f"Point {int(np.argmax(outside)) + 1} of {len(points)} lies outside the template volume.")
    report = stage(progress, "matching")
    report(0.0)
    if len(points) == 0:
        return Matches(np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros(0, bool))
    share = 0.3 if mode == "stable" else 1.0
    answers, score, cycle = one_shot(first, points, second, report=lambda f: report(f * share))
    if mode == "stable":
        answers = _stable_points(first, points, second, answers, lambda f: report(0.3 + 0.6 * f))
        returned, _ = nearest(first, second.descriptors(answers))
        cycle = np.minimum(cycle, np.linalg.norm(returned - points, axis=1))
    limits = {**first.calibration, **second.calibration}
    least = limits.get("minimum_score", MINIMUM_SCORE) if min_score is None else min_score
    most = limits.get("maximum_cycle_mm", MAXIMUM_CYCLE_MM) if max_cycle_mm is None else max_cycle_mm
    report(1.0)
    return Matches(answers, score, cycle, (score >= least) & (cycle <= most))


def _embeddings(
    volumes: tuple[Volume | SamEmbedding, ...],
    weights: SamModel | str | None,
    device: torch.device | str,
    progress: Progress | None,
) -> list[SamEmbedding]:
    if all(isinstance(volume, SamEmbedding) for volume in volumes):
        return list(volumes)  # type: ignore[arg-type]
    model = weights if isinstance(weights, SamModel) else load_sam(weights)
    return [
        volume if isinstance(volume, SamEmbedding) else embed_cached(volume, model, device=device, progress=progress)
        for volume in volumes
    ]


def one_shot(
    template: SamEmbedding,
    points: np.ndarray,
    query: SamEmbedding,
    report: Callable[[float], None] = lambda fraction: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forward and back once: answers (N, 3), scores (N,) and cycle errors (N,) in mm."""
    answers, score = nearest(query, template.descriptors(points), lambda f: report(f / 2))
    returned, _ = nearest(template, query.descriptors(answers), lambda f: report(0.5 + f / 2))
    return answers, score, np.linalg.norm(returned - points, axis=1)


def nearest(
    embedding: SamEmbedding,
    descriptors: torch.Tensor,
    report: Callable[[float], None] = lambda fraction: None,
    *,
    around: np.ndarray | None = None,
    reach_mm: float = 35.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Best place of each descriptor in the body.

    Args:
        descriptors: (N, C) unit vectors from :meth:`SamEmbedding.descriptors`.
        around: (N, 3) LPS mm; only voxels within ``reach_mm`` of it compete, if there are any.

    Returns:
        LPS mm (N, 3), refined between voxels, and scores (N,).
    """
    index = embedding.search
    if not len(index.voxels):
        raise InputError("The query's body is empty; nothing can be matched.")
    descriptors = descriptors.to(index.vectors.device)
    points, scores = [], []
    rows = _PRODUCT_POINTS
    for start in range(0, len(descriptors), rows):
        block = descriptors[start : start + rows]
        near = None if around is None else (torch.as_tensor(around[start : start + rows]), reach_mm)
        best = _best_rows(embedding, block, near)
        place, score = _peak(embedding, block, best, climbs=3 if around is None else 1)
        points.append(place)
        scores.append(score)
        report(min(start + rows, len(descriptors)) / len(descriptors))
    return np.concatenate(points), np.concatenate(scores)


def _best_rows(
    embedding: SamEmbedding, descriptors: torch.Tensor, near: tuple[torch.Tensor, float] | None
) -> torch.Tensor:
    """(N,) row of the search vectors with the largest dot product.

    The big product may round to 8 bits; it only picks a few blocks of voxels, which are then compared exactly.
    """
    vectors = embedding.search.vectors
    lowered = descriptors.to(vectors.dtype).T.contiguous()
    if near is not None:
        places = embedding.search.places()
        center = (near[0] - torch.as_tensor(embedding.fine.grid.center)).float().to(vectors.device)
    tops = []
    for first in range(0, len(vectors), _PRODUCT_ROWS):
        product = vectors[first : first + _PRODUCT_ROWS] @ lowered
        if near is not None:
            # Far voxels lose against every near one, but still order among themselves.
            product -= 4.0 * (torch.cdist(places[first : first + _PRODUCT_ROWS], center) > near[1]).to(product)
        if len(product) % _BLOCK:
            product = F.pad(product, (0, 0, 0, -len(product) % _BLOCK), value=-8.0)
        tops.append(product.view(-1, _BLOCK, product.shape[1]).amax(1))
    blocks = torch.cat(tops).float()
    chosen = blocks.topk(min(_BLOCKS_KEPT, len(blocks)), 0).indices.T
    candidates = (chosen[..., None] * _BLOCK + torch.arange(_BLOCK, device=vectors.device)).flatten(1)
    candidates.clamp_(max=len(vectors) - 1)
    best = torch.empty(len(descriptors), dtype=torch.long, device=vectors.device)
    for start in range(0, len(descriptors), 512):
        rows = slice(start, start + 512)
        exact = torch.bmm(vectors[candidates[rows]].float(), descriptors[rows, :, None])[..., 0]
        if near is not None:
            exact -= 4.0 * ((places[candidates[rows]] - center[rows, None]).norm(dim=2) > near[1])
        best[rows] = candidates[rows].gather(1, exact.argmax(1, keepdim=True))[:, 0]
    return best


def _peak(
    embedding: SamEmbedding, descriptors: torch.Tensor, rows: torch.Tensor, climbs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Place and score of the peak near a row: climb to the local maximum, then look between the voxels around it."""
    index, grid = embedding.search, embedding.fine.grid
    device = rows.device
    shape = torch.tensor(grid.shape, device=device)
    steps = torch.as_tensor(_CUBE, device=device)
    for attempt in range(climbs):
        flat = index.voxels[rows]
        row, column = flat // grid.shape[2], flat % grid.shape[2]
        place = torch.stack([row // grid.shape[1], row % grid.shape[1], column], 1)
        around = place[:, None] + steps
        valid = ((around >= 0) & (around < shape)).all(2)
        safe = around.clamp(min=0).minimum(shape - 1)
        near = index.dense[safe[..., 0], safe[..., 1], safe[..., 2]].long()
        valid &= near >= 0
        scores = torch.einsum("nc,nkc->nk", descriptors, index.vectors[near.clamp(min=0)].float())
        scores = scores.masked_fill(~valid, -2.0)
        best = scores.argmax(1, keepdim=True)
        climbed = near.gather(1, best)[:, 0]
        if attempt == climbs - 1 or bool((climbed == rows).all()):
            break
        rows = climbed
    vectors = index.vectors[near.clamp(min=0)].float()
    offset, peak = _between_voxels(scores, vectors, valid)
    points = grid.voxels_to_points((place.double() + offset).flip(1).cpu().numpy())
    return points, peak.clamp(max=1).cpu().double().numpy()


def _between_voxels(
    scores: torch.Tensor, vectors: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where, within a voxel's 27 neighbors, the interpolated descriptor fits best.

    Interpolating descriptors and not scores finds a point of the same image exactly: the cosine of the mixture peaks
    there, while the scores of the voxels around it are lower by what the mixture lost in length.

    Args:
        scores: (N, 27) dot products. vectors: (N, 27, C). valid: (N, 27), voxels that may take part.

    Returns:
        (N, 3) offsets z, y, x in voxels (float64) and (N,) scores.
    """
    weights = _mixtures(scores.device)
    masked = weights * valid[:, None]
    total = masked.sum(2)
    dot = (masked * scores[:, None]).sum(2)
    gram = torch.bmm(vectors, vectors.transpose(1, 2))
    length = (torch.bmm(masked, gram) * masked).sum(2).clamp(min=1e-9).sqrt()
    # Mostly beyond the body: no evidence there.
    fit = torch.where(total > 0.5, dot / length, torch.full_like(dot, -2.0))
    best = fit.argmax(1)
    steps = len(_FRACTIONS)
    cell = torch.stack([best // steps**2, best // steps % steps, best % steps], 1)
    offset = (cell.double() - (steps - 1) / 2) * _FRACTION
    middle = fit.gather(1, best[:, None])[:, 0]
    for axis, stride in enumerate((steps**2, steps, 1)):
        inner = (cell[:, axis] > 0) & (cell[:, axis] < steps - 1)
        before = fit.gather(1, (best - stride).clamp(min=0)[:, None])[:, 0]
        after = fit.gather(1, (best + stride).clamp(max=fit.shape[1] - 1)[:, None])[:, 0]
        bend = before - 2 * middle + after
        inner &= (bend < -1e-9) & (before > -1) & (after > -1)
        shift = 0.5 * (before - after) / torch.where(inner, bend, torch.ones_like(bend))
        offset[:, axis] += torch.where(inner, shift.clamp(-0.5, 0.5), torch.zeros_like(shift)).double() * _FRACTION
    return offset, middle


@lru_cache(maxsize=4)
def _mixtures(device: torch.device) -> torch.Tensor:
    """(M, 27) trilinear weights of the neighbors for every tested offset."""
    along = torch.stack([(1 - (torch.tensor(_FRACTIONS) - step).abs()).clamp(min=0) for step in (-1, 0, 1)], 1)
    mixed = torch.einsum("az,by,cx->abczyx", along, along, along)
    return mixed.reshape(len(_FRACTIONS) ** 3, 27).float().to(device)


def _stable_points(
    template: SamEmbedding,
    points: np.ndarray,
    query: SamEmbedding,
    direct: np.ndarray,
    report: Callable[[float], None],
    *,
    step_mm: float = 8.0,
) -> np.ndarray:
    """Answers (N, 3) by the vote of each point's neighborhood; ``direct`` where nobody agrees.

    The 27 neighbors are matched forward and back and forward again, so that they drift to pairs that agree; a robust
    affine map close to a shift is fitted to those pairs, nearer ones counting more.
    """
    count = len(_CUBE)
    keys = (points[:, None] + _CUBE * step_mm).reshape(-1, 3)
    keys = np.clip(keys, template.grid.corners().min(0), template.grid.corners().max(0))
    forward, _ = nearest(query, template.descriptors(keys), lambda f: report(f / 4))
    stable, _ = nearest(template, query.descriptors(forward), lambda f: report(0.25 + f / 4))
    answers, score = nearest(query, template.descriptors(stable), lambda f: report(0.5 + f / 4))
    returned, _ = nearest(template, query.descriptors(answers), lambda f: report(0.75 + f / 4))
    closure = np.linalg.norm(returned - stable, axis=1)
    drift = np.linalg.norm(stable - keys, axis=1)
    trust = np.exp(-(closure / 4) ** 2) * np.exp(-((drift / 20) ** 2)) * np.clip(score, 0.05, 1) ** 4
    shape = (len(points), count)
    result, _, _ = robust_local_maps(
        points, stable.reshape(*shape, 3), answers.reshape(*shape, 3), trust.reshape(shape), direct
    )
    return result


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
    near = np.exp(-(np.linalg.norm(offsets, axis=2) / width_mm) ** 2)
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

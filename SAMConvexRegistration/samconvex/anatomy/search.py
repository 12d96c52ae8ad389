"""Where descriptors fit best in an embedding: a matrix product with every body voxel, then the peak between voxels."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from .embedding import BLOCK_ROWS, SamEmbedding, SearchIndex

# The 27 voxels around and including one.
CUBE = np.array(list(product((-1, 0, 1), repeat=3)))

# Points and voxels of one product, small enough for the processor's cache.
_PRODUCT_POINTS = 1024
_PRODUCT_ROWS = 2048
_NEAR_POINTS = 128
_BLOCKS_KEPT = 4
# Below every cosine.
_NOWHERE = -8.0
_FRACTION = 0.25
_FRACTIONS = tuple(_FRACTION * step for step in range(-3, 4))


def nearest(
    embedding: SamEmbedding,
    descriptors: torch.Tensor,
    report: Callable[[float], None] = lambda fraction: None,
    *,
    around: np.ndarray | None = None,
    reach_mm: float = 35.0,
    thorough: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Best place of each descriptor in the body.

    Args:
        descriptors: (N, C) unit vectors from :meth:`SamEmbedding.descriptors`.
        around: (N, 3) LPS mm; only voxels within ``reach_mm`` of it compete, if there are any.
        thorough: compare all voxels; otherwise every second one along each axis, then climb to the peak near the best.

    Returns:
        LPS mm (N, 3), refined between voxels, and scores (N,).
    """
    index = embedding.search
    if not len(index.voxels):
        raise InputError("No body was found in the target scan; check that dense tissue is bright in it.")
    descriptors = descriptors.to(index.vectors.device)
    rows = torch.empty(len(descriptors), dtype=torch.long, device=descriptors.device)
    if around is None:
        groups = torch.arange(len(descriptors), device=descriptors.device).split(_PRODUCT_POINTS)
        center = None
    else:
        center = torch.as_tensor(around - embedding.fine.grid.center).float().to(descriptors.device)
        # Points of about the same height concern the same run of rows.
        groups = center[:, 2].argsort().split(_NEAR_POINTS)
    done = 0
    for group in groups:
        if center is not None:
            rows[group] = _best_near(index, descriptors[group], center[group], reach_mm)
        elif thorough:
            rows[group] = _best_rows(index.vectors, descriptors[group])
        else:
            rows[group] = index.thinned[0][_best_rows(index.thinned[1], descriptors[group])]
        done += len(group)
        report(0.8 * done / len(descriptors))
    points, scores = [], []
    climbs = 3 if around is None else 1
    for part in torch.arange(len(descriptors)).split(_PRODUCT_POINTS):
        place, score = _peak(embedding, descriptors[part], rows[part], climbs)
        points.append(place)
        scores.append(score)
    report(1.0)
    return np.concatenate([np.zeros((0, 3)), *points]), np.concatenate([np.zeros(0), *scores])


def _best_rows(vectors: torch.Tensor, descriptors: torch.Tensor) -> torch.Tensor:
    """(N,) row of ``vectors`` with the largest dot product.

    The big product may round to 8 bits; it only picks a few blocks of voxels, which are then compared exactly.
    """
    lowered = descriptors.to(vectors.dtype).T.contiguous()
    tops = [
        _block_maxima(vectors[first : first + _PRODUCT_ROWS] @ lowered)
        for first in range(0, len(vectors), _PRODUCT_ROWS)
    ]
    return _exactly(vectors, descriptors, torch.cat(tops).float())


def _best_near(index: SearchIndex, descriptors: torch.Tensor, center: torch.Tensor, reach_mm: float) -> torch.Tensor:
    """The same among the voxels within ``reach_mm`` of ``center`` (N, 3); among all where there are none."""
    low, high = index.boxes
    # Rows run along z, except in a slice, which may stand upright.
    first, last = 0, len(low)
    if index.dense.shape[0] > 1:
        first = int(torch.searchsorted(high[:, 2].contiguous(), center[:, 2].min() - reach_mm))
        last = int(torch.searchsorted(low[:, 2].contiguous(), center[:, 2].max() + reach_mm, right=True))
    if first >= last:
        return _best_rows(index.vectors, descriptors)
    vectors, places = (part[first * BLOCK_ROWS : last * BLOCK_ROWS] for part in (index.vectors, index.places))
    lowered = descriptors.to(vectors.dtype).T.contiguous()
    tops = []
    step = _PRODUCT_ROWS // BLOCK_ROWS
    for block in range(first, last, step):
        run = slice(block, min(block + step, last))
        start = (block - first) * BLOCK_ROWS
        maxima = _block_maxima(vectors[start : start + _PRODUCT_ROWS] @ lowered).float()
        squared = torch.zeros_like(maxima)
        for axis in range(3):
            place = center[None, :, axis]
            gap = torch.maximum(low[run, axis, None] - place, place - high[run, axis, None]).clamp_(min=0)
            squared.addcmul_(gap, gap)
        tops.append(maxima.masked_fill_(squared > reach_mm**2, _NOWHERE))

    def far(rows: torch.Tensor, which: slice) -> torch.Tensor:
        return (places[rows] - center[which, None]).norm(dim=2) > reach_mm

    best = _exactly(vectors, descriptors, torch.cat(tops), far)
    lost = (places[best] - center).norm(dim=1) > reach_mm
    best += first * BLOCK_ROWS
    if bool(lost.any()):
        best[lost] = _best_rows(index.vectors, descriptors[lost])
    return best


def _block_maxima(product: torch.Tensor) -> torch.Tensor:
    """Maxima of runs of ``BLOCK_ROWS`` rows."""
    if len(product) % BLOCK_ROWS:
        product = F.pad(product, (0, 0, 0, -len(product) % BLOCK_ROWS), value=_NOWHERE)
    return product.view(-1, BLOCK_ROWS, product.shape[1]).amax(1)


def _exactly(
    vectors: torch.Tensor,
    descriptors: torch.Tensor,
    blocks: torch.Tensor,
    excluded: Callable[[torch.Tensor, slice], torch.Tensor] | None = None,
) -> torch.Tensor:
    """(N,) best row among those of the best ``blocks`` (B, N), compared without rounding."""
    chosen = blocks.topk(min(_BLOCKS_KEPT, len(blocks)), 0).indices.T
    candidates = (chosen[..., None] * BLOCK_ROWS + torch.arange(BLOCK_ROWS, device=vectors.device)).flatten(1)
    candidates.clamp_(max=len(vectors) - 1)
    best = torch.empty(len(descriptors), dtype=torch.long, device=vectors.device)
    for start in range(0, len(descriptors), 512):
        rows = slice(start, start + 512)
        exact = torch.bmm(vectors[candidates[rows]].float(), descriptors[rows, :, None])[..., 0]
        if excluded is not None:
            exact.masked_fill_(excluded(candidates[rows], rows), _NOWHERE)
        best[rows] = candidates[rows].gather(1, exact.argmax(1, keepdim=True))[:, 0]
    return best


def _peak(
    embedding: SamEmbedding, descriptors: torch.Tensor, rows: torch.Tensor, climbs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Place and score of the peak near a row: climb to the local maximum, then look between the voxels around it."""
    index, grid = embedding.search, embedding.fine.grid
    device = rows.device
    shape = torch.tensor(grid.shape, device=device)
    steps = torch.as_tensor(CUBE, device=device)
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
    # Across a single slice nothing distinguishes one offset from another.
    offset *= shape > 1
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
    # Matrix products with all mixtures at once: (M, 27) and, for the lengths, (M, 27 * 27).
    weights, squares = _mixtures(scores.device)
    counted = valid.float()
    total = counted @ weights.T
    dot = (scores * counted) @ weights.T
    masked = vectors * counted[..., None]
    gram = torch.bmm(masked, masked.transpose(1, 2)).flatten(1)
    length = (gram @ squares.T).clamp(min=1e-9).sqrt()
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
def _mixtures(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(M, 27) trilinear weights of the neighbors for every tested offset, and their (M, 27 * 27) outer products."""
    along = torch.stack([(1 - (torch.tensor(_FRACTIONS) - step).abs()).clamp(min=0) for step in (-1, 0, 1)], 1)
    mixed = torch.einsum("az,by,cx->abczyx", along, along, along)
    weights = mixed.reshape(len(_FRACTIONS) ** 3, 27).float().to(device)
    return weights, (weights[:, :, None] * weights[:, None]).flatten(1)

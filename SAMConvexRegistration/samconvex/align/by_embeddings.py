"""Affine alignment by anatomy: body points matched both ways, then robust fits (SAM-affine of SAME, Liu et al., 2021).

Unlike the original's plain least squares, a similarity is first found by random sampling among the pairs that close
their cycle; an affine map follows by reweighting, and a second, local round of matching around it settles the details.
A confidence says whether to trust the result: other body parts, a foreign network or too small an overlap leave few
consistent pairs.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..progress import Progress, stage
from ..space.transforms import AffineTransform
from ..space.volume import Volume
from ..weights.models import SamModel, load_sam
from .consensus import ransac_similarity, reweighted_affine
from .pairs import PointPairs, matched_pairs

CONFIDENT = 0.5


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

"""Affine alignment by anatomy: body points matched both ways, then robust fits (SAM-affine of SAME, Liu et al., 2021).

Unlike the original's plain least squares, a similarity is first found by random sampling among the pairs that close
their cycle; an affine map follows by reweighting, and a second, local round of matching around it settles the details.
A confidence says whether to trust the result: other body parts, a foreign network or too small an overlap leave few
consistent pairs. A header that turns the patient is found too: where few of the points that the map covers find each
other again under it, the moving image is embedded as it would lie in the likely turns, see
:func:`samconvex.align.by_images.likely_turns`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..progress import Progress, stage
from ..space.transforms import AffineTransform
from ..space.turning import Turn
from ..space.volume import Volume
from ..weights.models import SamModel, load_sam
from .by_images import TURNS_TRIED, likely_turns
from .consensus import ransac_similarity, reweighted_affine
from .pairs import GRID_MM, PointPairs, body_points, in_mask, matched_pairs

CONFIDENT = 0.5
# Of the points a map covers, the share that must agree under it. Training pairs: 0.25 to 0.95 under the maps of 6 pairs
# of heads and chests, 0.02 to 0.11 under those of 5 abdomens, of which all but one from 0.06 on beat the learning-free
# map; at most 0.11, and a confidence below 0.5, under 30 maps of wrongly turned images.
CLEAR = 0.1
# From this share of all the body's points on, turns are not asked for. Below it, the images decide: a turn is tried
# only where they fit better under it than upright. A wrong map can cover a small corner that agrees well.
CERTAIN = 0.5


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
        :data:`CONFIDENT`), ``reason``, ``pairs``, ``inliers``, ``residual_mm`` (median), ``scale`` (of the similarity),
        ``agreement`` (share of the points the map covers that agree under it), ``agreed`` (of all points), and
        ``turned_deg`` (pitch, roll, yaw) where the moving image was found turned. Turns are looked for in volumes only.

    Raises:
        InputError: no body, unusable weights or modality. Cancelled: by ``progress``.
    """
    images = (fixed, moving)
    if not (isinstance(fixed, SamEmbedding) and isinstance(moving, SamEmbedding)):
        model = weights if isinstance(weights, SamModel) else load_sam(weights)
        fixed, moving = (
            v if isinstance(v, SamEmbedding) else embed_cached(v, model, device=device, progress=progress)
            for v in (fixed, moving)
        )
    report = stage(progress, "affine")
    masks = (fixed_mask, moving_mask)
    found = _aligned((fixed, moving), masks, seed, report)
    if found[1]["agreed"] < CERTAIN and all(isinstance(v, Volume) and not v.is_slice for v in images):
        volumes: tuple[Volume, Volume] = images  # type: ignore[assignment]
        found = _turned(found, volumes, fixed, masks, model, device, seed, report)
    report(1.0)
    return found


_Found = tuple[AffineTransform, dict[str, Any]]
_Masks = tuple[Volume | None, Volume | None]


def _aligned(
    pair: tuple[SamEmbedding, SamEmbedding], masks: _Masks, seed: int, report: Callable[[float], None]
) -> _Found:
    """The affine map of two embeddings, both taken to lie upright."""
    report(0.0)
    pairs, tried = matched_pairs(*pair, *masks, lambda f: report(0.55 * f))
    similarity, inlier = ransac_similarity(pairs, np.random.default_rng(seed))
    if similarity is None:
        reason = "too few points of the two images match"
        return AffineTransform.identity(), _details(pairs, tried, inlier, float("nan"), (0.0, 0.0), reason)
    transform = reweighted_affine(pairs.where(inlier), similarity)
    report(0.6)
    local, _ = matched_pairs(*pair, *masks, lambda f: report(0.6 + 0.39 * f), near=transform)
    if len(local) >= 12:
        transform = reweighted_affine(local, transform)
    used = local if len(local) >= 12 else pairs.where(inlier)
    residual = float(np.median(np.linalg.norm(transform.map_points(used.fixed) - used.moving, axis=1)))
    details = _details(pairs, tried, inlier, residual, _agreement(*pair, *masks, transform, local), "")
    details["scale"] = float(np.cbrt(abs(np.linalg.det(transform.matrix))))
    details["local_pairs"] = len(local)
    return transform, details


def _agreement(
    fixed: SamEmbedding,
    moving: SamEmbedding,
    fixed_mask: Volume | None,
    moving_mask: Volume | None,
    transform: AffineTransform,
    local: PointPairs,
) -> tuple[float, float]:
    """Share of the points whose neighborhoods find each other again near the map: of those it covers, and of all.

    Some of ten thousand neighborhoods always agree on some map; under a right one, most of the body does.
    """
    points = body_points(fixed, GRID_MM, fixed_mask)
    mapped = transform.map_points(points)
    body = Volume(moving.body.cpu().to(torch.uint8)[None, None], moving.fine.grid)
    covered = int((in_mask(mapped, body) & in_mask(mapped, moving_mask)).sum())
    # A map that covers next to nothing is not right for the few points it does.
    return min(1.0, len(local) / max(covered, len(points) / 4, 1)), min(1.0, len(local) / max(len(points), 1))


def _turned(
    upright: _Found,
    volumes: tuple[Volume, Volume],
    fixed: SamEmbedding,
    masks: _Masks,
    model: SamModel,
    device: torch.device | str,
    seed: int,
    report: Callable[[float], None],
) -> _Found:
    """The first of the likely turns of the moving image under which the anatomy clearly agrees, else ``upright``.

    Where the anatomy agrees upright too, only turns under which the images fit better than upright are likely.
    """

    def unless_cancelled(fraction: float) -> None:
        report(0.99)

    ways = likely_turns(*volumes, *masks, device, unless_cancelled)
    if upright[1]["agreement"] >= CLEAR:
        ways = list(takewhile(lambda way: any(way.angles), ways))
    for rough in [way for way in ways if any(way.angles)][:TURNS_TRIED]:
        turn = Turn(rough.transform.matrix, volumes[1].grid.center)
        # Most are wrong; the right one comes from disk when it is asked for again, or is made once more.
        seen = embed_cached(turn.upright(volumes[1]), model, device=device, memory=False)
        mask = None if masks[1] is None else turn.upright(masks[1])
        transform, details = _aligned((fixed, seen), (masks[0], mask), seed, unless_cancelled)
        clear = details["confidence"] >= CONFIDENT and details["agreement"] > CLEAR
        if clear and details["agreed"] > upright[1]["agreed"]:
            return turn.map_back(transform), {**details, "turned_deg": list(rough.angles)}
    return upright


# SAM-affine of a pair costs about a second; the second question about the same pair must not.
_Known = WeakKeyDictionary[SamEmbedding, _Found]
_known_pairs: WeakKeyDictionary[SamEmbedding, _Known] = WeakKeyDictionary()


def pair_affine(template: SamEmbedding, query: SamEmbedding) -> tuple[AffineTransform, dict[str, Any]]:
    """:func:`sam_affine` of two whole embeddings, computed once for as long as both live."""
    known = _known_pairs.setdefault(template, WeakKeyDictionary())
    if query not in known:
        known[query] = sam_affine(template, query)
    return known[query]


def _details(
    pairs: PointPairs, tried: int, inlier: np.ndarray, residual: float, agreement: tuple[float, float], reason: str
) -> dict[str, Any]:
    """Confidence from how many pairs agree, absolutely and in proportion, how widely they are spread, and the result.

    The pairs say that there is a map; whether it is the right one says the ``agreement`` of the body under it.
    """
    count = int(inlier.sum())
    share = count / max(len(pairs), 1)
    spread = float(np.sqrt(np.linalg.eigvalsh(np.cov(pairs.fixed[inlier].T))[1])) if count >= 4 else 0.0
    parts = {
        "few pairs agree": min(1.0, max(0.0, (count - 6) / 24)),
        "most pairs disagree": min(1.0, max(0.0, (share - 0.15) / 0.25)),
        "the pairs lie close together": min(1.0, spread / 25.0),
        "under the map that most pairs want, little of the bodies agrees": min(
            1.0, max(0.0, (agreement[0] - 0.04) / 0.06)
        ),
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
        "agreement": round(agreement[0], 3),
        "agreed": round(agreement[1], 3),
        "residual_mm": residual,
        "spread_mm": round(spread, 1),
    }

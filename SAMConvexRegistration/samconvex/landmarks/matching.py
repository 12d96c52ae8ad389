"""One-shot landmark matching: where the points of one volume lie in another, by their anatomical embeddings.

A point's descriptor is interpolated at its exact place and compared with every body voxel of the query in one matrix
product; the score is the mean of the fine and the coarse cosine, the place is refined between voxels. Matching the
answer back gives the cycle error. In the "stable" mode a small neighborhood is matched along with each point, by turns
forward and backward, and a robust local affine map of the pairs that hold still gives the answer (UAE's stable points,
Bai et al., MICCAI 2023); where SAM-affine is sure, the search stays around the place that it predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..align.by_embeddings import pair_affine
from ..align.local_maps import robust_local_maps
from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..anatomy.level import anatomy_of, level_not_shown
from ..anatomy.search import CUBE, nearest
from ..errors import InputError
from ..progress import Progress, stage
from ..space.grid import as_points
from ..space.transforms import AffineTransform
from ..space.volume import Volume
from ..weights.models import SamModel, load_sam
from . import presence

# Found or not: limits where false finds and false losses balance (the landmark benchmark measures both).
MINIMUM_SCORE = 0.7
MAXIMUM_CYCLE_MM = 12.0
# A confident SAM-affine predicts where a point lies; between patients organs differ by less than this from it.
REACH_MM = 40.0
# Less is asked of it here than where a registration starts from it: a peak out of its reach is hardly ever right.
GUIDING = 0.4
# Quality and the bound, mm, that nine of ten errors stay below: 240 landmarks of the embedding's 12 validation patients
# (head and neck), by Testing/benchmarks/studies/match_error.py, with the weights before the last part of training. It
# holds for 94 % of the same landmarks with those of now, where a table of one half held for 84 % of the other.
_BOUNDS = (
    (0.803, 22.8),
    (0.864, 22.8),
    (0.901, 22.8),
    (0.926, 22.8),
    (0.941, 22.8),
    (0.953, 22.8),
    (0.962, 20.0),
    (0.973, 14.9),
)
FOUND, NOT_FOUND, OUTSIDE = "found", "not found", "outside"


def quality(score: np.ndarray, cycle_mm: np.ndarray) -> np.ndarray:
    """(N,) one number for how good matches look: the score, less where they do not lead back."""
    return np.asarray(score, float) - np.minimum(np.asarray(cycle_mm, float), 40.0) / 100.0


def bounded(score: np.ndarray, cycle_mm: np.ndarray) -> np.ndarray:
    """(N,) mm: nine of ten matches of such score and cycle error lie nearer to the truth."""
    qualities, bounds = np.asarray(_BOUNDS).T
    return np.interp(quality(score, cycle_mm), qualities, bounds)


@dataclass(frozen=True)
class Matches:
    """Answers for N points.

    Attributes:
        points: (N, 3) LPS mm of the best match, given even where it is not trusted.
        score: (N,) mean cosine of coarse and fine embeddings, at most 1.
        cycle_mm: (N,) distance between a point and the place its answer leads back to.
        found: (N,) bool, score and cycle error are within the limits, and the point is probably there.
        outside: (N,) bool, the query does not show the level of the body, or the place, where the point lies; None
            where nothing is known of it.
        probability: (N,) that the query shows the point at all; None for weights that it was not fitted for.
    """

    points: np.ndarray
    score: np.ndarray
    cycle_mm: np.ndarray
    found: np.ndarray
    outside: np.ndarray | None = None
    probability: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.points)

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) LPS mm with NaN where nothing was found."""
        return np.where(self.found[:, None], self.points, np.nan)

    @property
    def error90_mm(self) -> np.ndarray:
        """(N,) mm that nine of ten errors of such matches stay below; NaN where nothing was found."""
        return np.where(self.found, bounded(self.score, self.cycle_mm), np.nan)

    @property
    def state(self) -> list[str]:
        """ "found", "not found" (no reliable match) or "outside" (the query does not show that part) for each point."""
        beyond = np.zeros(len(self), bool) if self.outside is None else self.outside
        return [
            FOUND if found else OUTSIDE if away else NOT_FOUND for found, away in zip(self.found, beyond, strict=True)
        ]


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
        mode: "stable" (a neighborhood votes; more accurate), "fast" (one lookup there and back) or "live" (the same
            around what SAM-affine predicts, or among every second voxel: milliseconds for a single point).
        min_score, max_cycle_mm: limits of ``found``; default calibrated ones.

    Raises:
        InputError: points that are not (N, 3) finite numbers or outside the template; unusable volumes or weights.
        Cancelled: by ``progress``.
    """
    if mode not in ("stable", "fast", "live"):
        raise InputError(f"{mode} is no matching mode; use stable, fast or live.")
    points = as_points(points_lps_mm, finite=True, rows=True)
    first, second = _embeddings((template, query), weights, device, progress)
    if first.network != second.network:
        raise InputError(
            "The template and the target scan were embedded by different networks; embed one of them again."
        )
    outside = ~first.grid.contains(points)
    if outside.any():
        raise InputError(f"Point {int(np.argmax(outside)) + 1} of {len(points)} lies outside the template volume.")
    report = stage(progress, "matching")
    report(0.0)
    if len(points) == 0:
        return Matches(np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros(0, bool))
    stable = mode == "stable"
    guide = None if mode == "fast" else guide_of(first, second)
    search = _Search(first, second, guide, thorough=mode != "live")
    share = 0.3 if stable else 1.0
    answers, score = search.forward(points, lambda f: report(share * f / 2))
    returned, _ = search.backward(answers, lambda f: report(share * (1 + f) / 2))
    cycle = np.linalg.norm(returned - points, axis=1)
    if stable:
        answers = _stable_points(search, points, answers, lambda f: report(share + 0.6 * f))
        returned, _ = search.backward(answers)
        cycle = np.minimum(cycle, np.linalg.norm(returned - points, axis=1))
    limits = {**first.calibration, **second.calibration}
    least = limits.get("minimum_score", MINIMUM_SCORE) if min_score is None else min_score
    most = limits.get("maximum_cycle_mm", MAXIMUM_CYCLE_MM) if max_cycle_mm is None else max_cycle_mm
    report(1.0)
    beyond = search.leaves_the_query(points) | level_not_shown(points, anatomy_of(first), anatomy_of(second))
    found = (score >= least) & (cycle <= most) & ~beyond
    if not presence.is_fitted_for(first):
        return Matches(answers, score, cycle, found, beyond)
    told = presence.evidence(first, second, guide, points, score, cycle)
    probability = presence.probability(told)
    beyond |= (probability < presence.LEAST) & presence.lies_beyond(told)
    return Matches(answers, score, cycle, found & (probability >= presence.LEAST), beyond, probability)


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


class _Search:
    """Best places of points in the other volume, in both directions, near what ``guide`` predicts (if it is given)."""

    def __init__(
        self, template: SamEmbedding, query: SamEmbedding, guide: AffineTransform | None = None, thorough: bool = True
    ) -> None:
        self.template, self.query, self.guide, self.thorough = template, query, guide, thorough
        self.inverse = None if guide is None else guide.inverse()

    def forward(
        self, points: np.ndarray, report: Callable[[float], None] = lambda fraction: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) places in the query and (N,) scores of (N, 3) points of the template."""
        around = None if self.guide is None else self.guide.map_points(points)
        return self._nearest(self.query, self.template.descriptors(points), report, around)

    def backward(
        self, points: np.ndarray, report: Callable[[float], None] = lambda fraction: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same from the query to the template."""
        around = None if self.inverse is None else self.inverse.map_points(points)
        return self._nearest(self.template, self.query.descriptors(points), report, around)

    def _nearest(
        self, where: SamEmbedding, descriptors: torch.Tensor, report: Callable[[float], None], around: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        return nearest(where, descriptors, report, around=around, reach_mm=REACH_MM, thorough=self.thorough)

    def leaves_the_query(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: even the nearest place of the query's image is out of reach of the prediction."""
        if self.guide is None:
            return np.zeros(len(points), bool)
        grid = self.query.grid
        voxels = grid.points_to_voxels(self.guide.map_points(points))
        nearest_voxels = np.clip(voxels, 0, np.asarray(grid.size) - 1)
        beyond = np.linalg.norm((voxels - nearest_voxels) * np.asarray(grid.spacing), axis=1)
        return beyond > REACH_MM


def guide_of(template: SamEmbedding, query: SamEmbedding) -> AffineTransform | None:
    """SAM-affine from template to query; None where it is not sure of itself."""
    affine, details = pair_affine(template, query)
    return affine if details["confidence"] >= GUIDING else None


def _stable_points(
    search: _Search,
    points: np.ndarray,
    direct: np.ndarray,
    report: Callable[[float], None],
    *,
    step_mm: float = 8.0,
) -> np.ndarray:
    """Answers (N, 3) by the vote of each point's neighborhood; ``direct`` where nobody agrees.

    The 27 neighbors are matched forward and back and forward again, so that they drift to pairs that agree; a robust
    affine map close to a shift is fitted to those pairs, nearer ones counting more.
    """
    count = len(CUBE)
    keys = (points[:, None] + CUBE * step_mm).reshape(-1, 3)
    corners = search.template.grid.corners()
    keys = np.clip(keys, corners.min(0), corners.max(0))
    forward, _ = search.forward(keys, lambda f: report(f / 4))
    stable, _ = search.backward(forward, lambda f: report(0.25 + f / 4))
    answers, score = search.forward(stable, lambda f: report(0.5 + f / 4))
    returned, _ = search.backward(answers, lambda f: report(0.75 + f / 4))
    closure = np.linalg.norm(returned - stable, axis=1)
    drift = np.linalg.norm(stable - keys, axis=1)
    trust = np.exp(-((closure / 4) ** 2)) * np.exp(-((drift / 20) ** 2)) * np.clip(score, 0.05, 1) ** 4
    shape = (len(points), count)
    result, _, _ = robust_local_maps(
        points, stable.reshape(*shape, 3), answers.reshape(*shape, 3), trust.reshape(shape), direct
    )
    return result

"""Robust affine alignment without learning: many starts, one score, robust refinement, and a confidence.

Fields of view differ wildly in practice, so no single starting rule is safe. Starts come from the bodies' geometry
(world coordinates, boxes, centers and spread of mass, tops, bottoms) and from an exhaustive search over all
translations, for a few tilts and scales, on a coarse grid. Every start gets the same score: how much better than
chance the overlapping tissue agrees in MIND-SSC and, between CTs, in windowed intensities. The best are refined and
scored again on a finer grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..errors import InputError
from ..progress import Progress, stage
from ..space.grid import Grid
from ..space.intensity import normalized_intensity
from ..space.linear import limited, nearest_axis_rotation
from ..space.transforms import AffineTransform
from ..space.turning import Turn
from ..space.volume import Volume, resample
from .gauss_newton import AffineProblem
from .starts import Hypothesis, StartImage, geometric_starts, searched_starts, start_features, turned_starts

MODELS = ("affine", "similarity", "rigid")
STAGE = "affine"
# Working voxels: about this many in the larger body's box, between these spacings in mm.
VOXELS, FINEST, COARSEST = 250_000, 1.0, 6.0
# The last steps of an exact alignment: so many times finer than the working spacing, on so many points.
EXACT_FINER, EXACT_POINTS = 2.0, 20_000
# Smaller images are crops of one organ: all of them counts, there is no body outline to find.
CROP_MM = 120.0
# Two maps that differ by less than this share of the body's radius are one hypothesis.
SAME = 0.12
# An alternative that differs by more than this share puts the body elsewhere.
ELSEWHERE = 0.35
# Ways in which a header may have turned the image that are aligned where the upright one is not sure.
TURNS_TRIED = 3
# A turn is believed where its gain exceeds the upright one's by this factor.
CLEARLY_BETTER = 1.25
# Below this confidence the report warns.
LOW_CONFIDENCE = 0.5


@dataclass(frozen=True)
class AffineResult:
    """What :func:`moments_affine` returns.

    Attributes:
        transform: maps fixed LPS points to moving LPS points.
        confidence: in [0, 1]; below ``LOW_CONFIDENCE`` a person should look.
        details: ``reason`` (one sentence), ``hypotheses`` (name, start and final gain of each that was refined),
            ``gain``, ``overlap``, ``inliers``, ``margin``, ``notes``.
    """

    transform: AffineTransform
    confidence: float
    details: dict = field(default_factory=dict)


def moments_affine(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    model: str = "affine",
    start: AffineTransform | None = None,
    exact: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
) -> AffineResult:
    """Affine map from fixed to moving LPS points, from the images alone.

    Args:
        fixed, moving: any 3D images; modalities may differ.
        fixed_mask, moving_mask: tissue to align, nonzero; any grid. Default: the body that is found.
        model: "affine" (12 degrees of freedom), "similarity" (7) or "rigid" (6).
        start: a map that is roughly right; it is refined and nothing is searched.
        exact: end on a grid twice as fine, where nothing deformable follows.
        seed: of the points that are drawn; the same seed gives the same answer.
        progress: called often with the stage "affine"; may raise Cancelled.

    Raises:
        InputError: unknown model, or a mask without voxels in its image.
    """
    if model not in MODELS:
        raise InputError(f"The affine model {model!r} is unknown; use one of {', '.join(MODELS)}.")
    images = _Images(fixed, moving, fixed_mask, moving_mask)
    turn = Turn(nearest_axis_rotation(np.eye(3) if start is None else start.matrix), moving.grid.center)
    seen = images.seen(turn)
    found = _aligned(seen, model, None if start is None else turn.map_upright(start), device, seed, progress)
    if start is None and (found.confidence < LOW_CONFIDENCE or images.look_turned(device)):
        found, turn = _turned(images, found, model, device, seed, progress), Turn(np.eye(3), moving.grid.center)
    if not turn.is_none:
        found = replace(found, transform=turn.map_back(found.transform))
    if exact:
        found = replace(found, transform=_exact(images, found.transform, model, device, seed, stage(progress, STAGE)))
    return found


def _exact(
    images: _Images,
    start: AffineTransform,
    model: str,
    device: torch.device | str,
    seed: int,
    report: Callable[[float], None],
) -> AffineTransform:
    """The map after its last steps on the finer grid."""

    def asked(_fraction: float) -> None:
        report(1.0)  # the alignment reported its end; this only asks whether to stop

    turn = Turn(nearest_axis_rotation(start.matrix), images.moving.grid.center)
    problem = _problem(images.seen(turn).prepared(device, [], asked, EXACT_FINER), 1, EXACT_POINTS, seed)
    return turn.map_back(problem.refine(turn.map_upright(start), model=model, iterations=15, report=asked))


@dataclass(frozen=True)
class _Images:
    """Two images and their masks."""

    fixed: Volume
    moving: Volume
    fixed_mask: Volume | None
    moving_mask: Volume | None

    def seen(self, turn: Turn) -> _Images:
        """The same with the moving image turned upright."""
        mask = None if self.moving_mask is None else turn.upright(self.moving_mask)
        return replace(self, moving=turn.upright(self.moving), moving_mask=mask)

    def look_turned(self, device: torch.device | str) -> bool:
        """True where, at a glance on a grid four times coarser, a turn of the moving image fits better than none."""
        first, second = (image.coarser().coarser() for image in self.prepared(device, [], lambda fraction: None))
        starts = turned_starts(first, second, lambda fraction: None)
        return bool(starts) and any(starts[0].angles)

    def prepared(
        self, device: torch.device | str, notes: list[str], report: Callable[[float], None], finer: float = 1.0
    ) -> list[StartImage]:
        """Both on grids around the tissue that counts, ``finer`` times as fine as usual."""
        regions = []
        for volume, mask, share in ((self.fixed, self.fixed_mask, 0.4), (self.moving, self.moving_mask, 0.8)):
            regions.append(_region(volume, mask, notes))
            report(share)
        spacing = _working_spacing([region for _, region in regions], (self.fixed, self.moving), finer)
        return [
            _image(volume, base, region, spacing, device)
            for volume, (base, region) in zip((self.fixed, self.moving), regions, strict=True)
        ]


def likely_turns(
    fixed: Volume,
    moving: Volume,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[float], None] = lambda fraction: None,
) -> list[Hypothesis]:
    """Rough maps for the ways in which a wrong header can turn the moving image, the most likely first.

    The upright way, whose angles are 0, has its place among them. Each map's matrix is one of
    :func:`samconvex.space.linear.axis_rotations`.
    """
    images = _Images(fixed, moving, fixed_mask, moving_mask).prepared(device, [], lambda f: report(0.2 * f))
    first, second = (image.coarser() for image in images)
    return turned_starts(first, second, lambda f: report(0.2 + 0.8 * f))


def _turned(
    images: _Images,
    upright: AffineResult,
    model: str,
    device: torch.device | str,
    seed: int,
    progress: Progress | None,
) -> AffineResult:
    """The surest of the likely turns where one is sure, else ``upright``."""
    # The upright alignment reported its end; what follows only asks whether to stop.
    report = stage(progress, STAGE)
    turns = likely_turns(
        images.fixed, images.moving, images.fixed_mask, images.moving_mask, device, lambda fraction: report(1.0)
    )
    found = []
    for rough in [turn for turn in turns if any(turn.angles)][:TURNS_TRIED]:
        report(1.0)
        turn = Turn(rough.transform.matrix, images.moving.grid.center)
        result = _aligned(images.seen(turn), model, turn.map_upright(rough.transform), device, seed, None)
        details = {**result.details, "turned_deg": list(rough.angles)}
        found.append(AffineResult(turn.map_back(result.transform), result.confidence, details))
    found.sort(key=lambda result: -result.details["gain"])
    if not found:
        return upright
    best = found[0].details
    others = [result.details["gain"] for result in (upright, *found[1:])]
    margin = 1.0 - max(0.0, *others) / max(best["gain"], 1e-6)
    confidence = _confidence(best, min(margin, 1.0))
    if confidence < LOW_CONFIDENCE or best["gain"] < CLEARLY_BETTER * upright.details["gain"]:
        return upright
    details = {**best, "margin": round(margin, 4), "reason": _reason("the turned image", best, margin, confidence)}
    return AffineResult(found[0].transform, confidence, details)


def _aligned(
    images: _Images,
    model: str,
    start: AffineTransform | None,
    device: torch.device | str,
    seed: int,
    progress: Progress | None,
) -> AffineResult:
    """The best map for the moving image as it lies."""
    report = stage(progress, STAGE)
    report(0.0)
    notes: list[str] = []
    fine = images.prepared(device, notes, lambda f: report(0.25 * f))
    coarse = [image.coarser() for image in fine]
    report(0.25)
    problem = _problem(coarse, 1, 3000, seed)
    if start is None:
        starts = geometric_starts(coarse[0], coarse[1])
        starts += searched_starts(coarse[0], coarse[1], stage(progress, STAGE, 0.25, 0.5))
    else:
        starts = [Hypothesis("the given map", start)]
    starts = _survivors(starts, problem, model, progress)
    margin = _margin(starts, problem)
    problem = _problem(fine, 2, 5000, seed)
    finalists = _finalists(starts, problem, model, progress)
    best = max(finalists, key=lambda start: start.gain)
    scores = problem.evaluate(best.transform)
    if len(finalists) > 1:
        margin = min(margin, _margin(sorted(finalists, key=lambda start: -start.gain), problem))
    confidence = _confidence(scores, margin)
    report(1.0)
    details = {
        "reason": _reason(best.name, scores, margin, confidence),
        "hypotheses": [
            {"name": s.name, "start_gain": round(s.start_gain, 4), "gain": round(s.gain, 4)} for s in starts
        ],
        "margin": round(margin, 4),
        **{key: round(value, 4) for key, value in scores.items()},
        "notes": notes,
    }
    return AffineResult(best.transform, confidence, details)


def _problem(images: list[StartImage], radius: int, points: int, seed: int) -> AffineProblem:
    """Features of both images, compared at ``points`` drawn places of the first."""
    first, second = images
    features = [start_features(image, images, radius, radius) for image in images]
    return AffineProblem(
        features[0], first.region, first.grid, features[1], second.region, second.grid, points=points, seed=seed
    )


def _survivors(
    starts: list[Hypothesis], problem: AffineProblem, model: str, progress: Progress | None
) -> list[Hypothesis]:
    """The starts that stay apart while they are refined, the best first."""
    for hypothesis in starts:
        hypothesis.transform = _of_model(hypothesis.transform, problem.center, model)
        hypothesis.gain = hypothesis.start_gain = problem.evaluate(hypothesis.transform)["gain"]
    starts = _distinct(starts, problem)[:6]
    # Most starts soon meet in the same place; only those that stay apart and close in score deserve more steps.
    for iterations, first, last in ((18, 0.5, 0.65), (30, 0.65, 0.8)):
        for number, hypothesis in enumerate(starts):
            if hypothesis.gain < 0.4 * starts[0].gain and iterations > 18:
                continue
            width = (last - first) / len(starts)
            inner = stage(progress, STAGE, first + number * width, first + (number + 1) * width)
            _refine(hypothesis, problem, model, iterations, inner)
        starts = _distinct(starts, problem)
    return starts


def _finalists(
    starts: list[Hypothesis], problem: AffineProblem, model: str, progress: Progress | None
) -> list[Hypothesis]:
    """The best one or two, refined on the finer grid."""
    # A hypothesis far behind the best one has never overtaken it on the finer grid.
    finalists = [hypothesis for hypothesis in starts[:2] if hypothesis.gain > 0.7 * starts[0].gain] or starts[:1]
    for number, hypothesis in enumerate(finalists):
        _refine(hypothesis, problem, model, 30, stage(progress, STAGE, 0.8 + 0.1 * number, 0.9 + 0.1 * number))
    return finalists


def _refine(
    hypothesis: Hypothesis, problem: AffineProblem, model: str, iterations: int, report: Callable[[float], None]
) -> None:
    hypothesis.transform = problem.refine(hypothesis.transform, model=model, iterations=iterations, report=report)
    hypothesis.gain = problem.evaluate(hypothesis.transform)["gain"]


def _region(volume: Volume, mask: Volume | None, notes: list[str]) -> tuple[Volume, Volume]:
    """The image at 4 mm (or its own, finer resolution for crops) and the tissue that counts, on one identity grid."""
    is_crop = bool((volume.grid.extent < CROP_MM).all())
    base = resample(volume, volume.grid.canonical(2.0 if is_crop else 4.0))
    inside = resample(volume.with_tensor(torch.ones_like(volume.tensor, dtype=torch.uint8)), base.grid, mode="nearest")
    region = inside
    if not is_crop:
        try:
            region = resample(body_mask(volume), base.grid, mode="nearest")
        except InputError:
            notes.append(f"No body outline was found in {volume.name}; all of it was aligned.")
    if mask is not None:
        chosen = resample(mask, base.grid, mode="nearest").tensor != 0
        both = chosen & (region.tensor != 0)
        chosen = both if bool(both.any()) else chosen & (inside.tensor != 0)
        if not bool(chosen.any()):
            raise InputError(f"{mask.name} has no voxel inside {volume.name}; check that the mask belongs to it.")
        region = region.with_tensor(chosen.to(torch.uint8))
    return base, region


def _box(region: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lower corner and edge lengths in mm of the region's bounding box."""
    index = torch.nonzero(region.tensor[0, 0]).numpy()[:, ::-1]
    lower, upper = index.min(0) - 0.5, index.max(0) + 0.5
    corners = region.grid.voxels_to_points(np.stack([lower, upper]))
    return corners[0], corners[1] - corners[0]


def _working_spacing(regions: list[Volume], volumes: tuple[Volume, Volume], finer: float) -> float:
    """mm: about ``VOXELS`` in the larger box at ``finer`` 1, not much finer than the coarser image."""
    largest = max(float(np.prod(_box(region)[1])) for region in regions)
    native = max(float(np.prod(volume.grid.spacing)) ** (1 / 3) for volume in volumes)
    spacing = (largest / VOXELS) ** (1 / 3) / finer
    return float(np.clip(spacing, min(max(FINEST, 0.8 * native), COARSEST), COARSEST))


def _image(volume: Volume, base: Volume, region: Volume, spacing: float, device: torch.device | str) -> StartImage:
    lower, lengths = _box(region)
    grid = Grid.covering(np.stack([lower, lower + lengths]), spacing, margin_mm=2 * spacing)
    # The base image is as sharp as the working grid needs unless that is finer.
    source = base if spacing >= min(base.grid.spacing) else volume
    values = resample(source, grid).tensor
    soft = resample(region.with_tensor(region.tensor.float()), grid, fill=0.0).tensor
    is_ct = volume.modality == "ct"
    if not is_ct:
        values = normalized_intensity(volume.with_tensor(values, grid))
    return StartImage(values.to(device), soft.to(device), grid, is_ct)


def _of_model(transform: AffineTransform, center: np.ndarray, model: str) -> AffineTransform:
    """Nearest map of the model that moves ``center`` as before."""
    matrix = limited(transform.matrix, model)
    return AffineTransform(matrix, transform.map_points(center[None])[0] - matrix @ center)


def _distance(first: AffineTransform, second: AffineTransform, problem: AffineProblem) -> float:
    """Root mean square distance in mm of where two maps put the fixed points."""
    points = problem.points[::10]
    return float(np.sqrt(np.square(first.map_points(points) - second.map_points(points)).sum(1).mean()))


def _distinct(hypotheses: list[Hypothesis], problem: AffineProblem) -> list[Hypothesis]:
    """Best first, without those that repeat a better one."""
    kept: list[Hypothesis] = []
    for hypothesis in sorted(hypotheses, key=lambda h: -h.gain):
        limit = SAME * problem.radius
        if all(_distance(hypothesis.transform, other.transform, problem) > limit for other in kept):
            kept.append(hypothesis)
    return kept


def _margin(hypotheses: list[Hypothesis], problem: AffineProblem) -> float:
    """How far the best alternative that puts the body elsewhere falls behind the first: 1 far, 0 level."""
    best = hypotheses[0]
    if best.gain <= 0:
        return 0.0
    limit = ELSEWHERE * problem.radius
    others = [h.gain for h in hypotheses[1:] if _distance(h.transform, best.transform, problem) > limit]
    return 1.0 - max([0.0, *others]) / best.gain


def _confidence(scores: dict[str, float], margin: float) -> float:
    """Logistic; fitted by eye to pairs that succeeded, that failed, and that share no anatomy."""
    evidence = 14.0 * (scores["gain"] - 0.36) + 8.0 * (scores["inliers"] - 0.5) + (margin - 0.4)
    return float(1 / (1 + np.exp(-evidence)))


def _reason(name: str, scores: dict[str, float], margin: float, confidence: float) -> str:
    numbers = (
        f"{100 * scores['overlap']:.0f} % of the smaller body overlaps, {100 * scores['inliers']:.0f} % of that agrees "
        f"and the next place for it scores {100 * margin:.0f} % lower"
    )
    if confidence >= LOW_CONFIDENCE:
        return f"The alignment started from {name} fits best: {numbers}."
    return f"The affine alignment (started from {name}) is uncertain, look at it: {numbers}."

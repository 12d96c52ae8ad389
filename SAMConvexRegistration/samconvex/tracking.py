"""Lesion tracking: each baseline lesion located, judged and measured in every follow-up.

A lesion's place is guessed by an affine map of the anatomy around it (points matched both ways by embeddings, see
affine_sam.py) and by its own stable-point match, then refined by registering the neighborhood of the two images with
the lesion itself left out, so that growth or loss cannot pull the surroundings along. The carried contour is fitted to
the follow-up (lesion_contour.py); whether something with the lesion's contrast is there decides between found and
uncertain. Nothing here is a diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
import torch

from .align.by_embeddings import CONFIDENT, pair_affine
from .align.consensus import reweighted_affine
from .align.pairs import PointPairs, matched_pairs
from .anatomy.cache import embed_cached
from .anatomy.embedding import SamEmbedding
from .deform.folding import without_folds
from .deform.pyramid import run_pyramid
from .deform.scene import Scene
from .errors import InputError
from .features.mind import Mind
from .landmarks.matching import match_points
from .lesion_contour import LEAST_CONTRAST, Fit, fit_contour, neighborhood, on_neighborhood, scaled, suggest_contour
from .lesions import Lesion, read_lesions
from .measurement import Measurement, centroid, measure_lesion, trimmed
from .progress import Progress, stage
from .settings.registration import Level
from .space.field import DisplacementField
from .space.grid import Grid
from .space.intensity import ct_window, normalized_intensity
from .space.transforms import AffineTransform, Transform
from .space.volume import Volume, average_to, check_volume, resample
from .weights.models import SamModel, load_sam

__all__ = [
    "FOUND",
    "NOT_IN_VIEW",
    "UNCERTAIN",
    "Finding",
    "Lesion",
    "TrackingResult",
    "read_lesions",
    "track_lesions",
]

FOUND = "found"
UNCERTAIN = "uncertain"
NOT_IN_VIEW = "not in the field of view"

# From this score on a lesion counts as found: calibrated on cases apart from those Testing/benchmarks/tracking.py uses.
MINIMUM_SCORE = 0.5

NEIGHBORHOOD_MM = 40.0
REACH_MM = 24.0
_LEVELS = (Level(8.0, 3), Level(4.0, 2), Level(3.0, 1))
_COUPLING = 0.06
_POINT_RADIUS_MM = 5.0
# Weights of presence(); fitted to invented lesions in CTs that Testing/benchmarks/tracking.py does not evaluate.
_PRESENCE = (-0.9, 2.4, 2.2, 1.0, -2.2, -0.95, -1.65)
_POINT_SIZES = tuple(float(s) for s in np.geomspace(0.5, 3.0, 9))
_DRAWN_SIZES = tuple(float(s) for s in np.geomspace(0.6, 1.2, 7))


@dataclass(frozen=True)
class Finding:
    """One lesion in one follow-up. Frame: LPS mm of the follow-up.

    Attributes:
        lesion: its name. follow_up: number of the follow-up, from 0.
        state: "found", "uncertain" or "not in the field of view".
        position: (3,); NaN where it is not in the field of view.
        score: in [0, 1], how surely the lesion is there; 0 where it is not in the field of view.
        cycle_mm: distance between the lesion and where its place leads back to; infinite without a match.
        carried: the baseline contour carried to the follow-up's grid, cropped to the neighborhood and subdivided where
            voxels are coarse; None for a point.
        suggested: suggested follow-up contour on the same grid; None for a point, or where nothing was found.
        measurement: of the suggested contour.
        reason: one sentence on why the state is not "found", else empty.
    """

    lesion: str
    follow_up: int
    state: str
    position: np.ndarray
    score: float
    cycle_mm: float
    carried: Volume | None = None
    suggested: Volume | None = None
    measurement: Measurement | None = None
    reason: str = ""

    def to_dict(self) -> dict:
        """Plain values for JSON; no position where the lesion is not in the field of view."""
        record: dict = {
            "follow_up": self.follow_up,
            "state": self.state,
            "found": self.state == FOUND,
            "score": round(self.score, 4),
        }
        if np.isfinite(self.cycle_mm):
            record["cycle_mm"] = round(self.cycle_mm, 2)
        if np.isfinite(self.position).all():
            record["position"] = np.round(self.position, 3).tolist()
        if self.reason:
            record["reason"] = self.reason
        if self.measurement is not None:
            record["measurement"] = self.measurement.to_dict()
        return record


@dataclass(frozen=True)
class TrackingResult:
    """What :func:`track_lesions` returns.

    Attributes:
        lesions: the baseline lesions.
        findings: one per lesion and follow-up, follow-up by follow-up.
        baseline: the measurement of each lesion's segment, or of the contour found in its box or at its diameters;
            None for points.
        sources: names of the baseline and the follow-ups.
    """

    lesions: tuple[Lesion, ...]
    findings: tuple[Finding, ...]
    baseline: dict[str, Measurement | None]
    sources: tuple[str, ...]

    def of(self, lesion: str) -> list[Finding]:
        """The findings of one lesion in the order of the follow-ups."""
        return [finding for finding in self.findings if finding.lesion == lesion]

    def to_dict(self) -> dict:
        """Plain values for JSON: lesions, each with its time points."""
        lesions = []
        for lesion in self.lesions:
            record: dict = {"name": lesion.name, "point": np.round(lesion.point, 3).tolist()}
            measurement = self.baseline.get(lesion.name)
            if measurement is not None:
                record["measurement"] = measurement.to_dict()
            record["timepoints"] = [finding.to_dict() for finding in self.of(lesion.name)]
            lesions.append(record)
        return {"baseline": self.sources[0], "follow_ups": list(self.sources[1:]), "lesions": lesions}


@dataclass(frozen=True)
class _Baseline:
    """A lesion with what the baseline image says about it: its contour (soft, in [0, 1]) and how it stands out."""

    lesion: Lesion
    contour: Volume
    fit: Fit
    measurement: Measurement | None


def track_lesions(
    baseline: Volume,
    lesions: Sequence[Lesion],
    follow_ups: Sequence[Volume],
    *,
    minimum_score: float | None = None,
    weights: SamModel | str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> TrackingResult:
    """Find the baseline's lesions in every follow-up.

    Args:
        lesions: points, segments, boxes or diameters in the baseline, with unique names.
        follow_ups: later images of the same patient, any geometry and field of view.
        minimum_score: a lesion counts as found from this score on, in [0, 1]; default a calibrated one.
        weights: network for the embeddings; default the shipped one.

    Raises:
        InputError: unusable volumes or weights, a lesion outside the baseline, or names that repeat.
        Cancelled: by ``progress``.
    """
    _check(baseline, lesions, follow_ups)
    limit = MINIMUM_SCORE if minimum_score is None else minimum_score
    model = weights if isinstance(weights, SamModel) else load_sam(weights)
    template = embed_cached(baseline, model, device=device, progress=progress)
    known = [_describe(baseline, lesion) for lesion in lesions]
    findings: list[Finding] = []
    for number, follow_up in enumerate(follow_ups):
        query = embed_cached(follow_up, model, device=device, progress=progress)
        share = 1.0 / len(follow_ups)
        report = stage(progress, "tracking", number * share, (number + 1) * share)
        findings += _track(baseline, template, known, follow_up, query, number, limit, report)
    measured = {entry.lesion.name: entry.measurement for entry in known}
    return TrackingResult(
        tuple(lesions), tuple(findings), measured, (baseline.name, *(volume.name for volume in follow_ups))
    )


def _check(baseline: Volume, lesions: Sequence[Lesion], follow_ups: Sequence[Volume]) -> None:
    for volume in (baseline, *follow_ups):
        check_volume(volume)
    if not lesions:
        raise InputError("There is no lesion to track; give at least one.")
    names = [lesion.name for lesion in lesions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two lesions are called {twice}; give each its own name.")
    for lesion in lesions:
        point = np.asarray(lesion.point, dtype=float)
        if point.shape != (3,) or not np.isfinite(point).all() or not baseline.grid.contains(point[None])[0]:
            raise InputError(f"{lesion.name} lies outside {baseline.name}; check that they belong together.")


def _describe(baseline: Volume, lesion: Lesion) -> _Baseline:
    """The lesion's contour in the baseline: as drawn, or found within its box, at its diameters or around its point."""
    if lesion.mask is not None:
        contour = trimmed(lesion.mask)
        assert contour is not None
        contour = contour.with_tensor((contour.tensor > 0.5).float())
        grid = neighborhood(contour, 8.0)
        soft = on_neighborhood(contour, grid, 0.0)
        fit = fit_contour(_patch(baseline, grid), soft, scales=(1.0,), shift_mm=0.0)
        return _Baseline(lesion, soft, fit, measure_lesion(contour, baseline.grid))
    start = _ellipsoid(lesion)
    grid = neighborhood(start, 16.0)
    image = _patch(baseline, grid)
    soft = on_neighborhood(start, grid, 0.0)
    is_point = lesion.box is None and lesion.diameters is None
    if is_point:
        # The size that stands out most from what is around it.
        sizes = [
            fit_contour(image, soft.with_tensor(ball[None, None]), scales=(1.0,), shift_mm=3.0)
            for ball in (scaled(soft, lesion.point, size) for size in _POINT_SIZES)
        ]
        found = max(sizes, key=lambda fit: min(abs(fit.levels.contrast), 200.0) * fit.match)
    else:
        reach = 4.0 if lesion.box is None else 0.25 * float((lesion.box[1] - lesion.box[0]).min())
        found = fit_contour(image, soft, scales=_DRAWN_SIZES, shift_mm=reach)
    contour = Volume(suggest_contour(image, found).float()[None, None], grid)
    fit = fit_contour(image, contour, scales=(1.0,), shift_mm=0.0)
    return _Baseline(lesion, contour, fit, None if is_point else measure_lesion(contour, baseline.grid))


def _ellipsoid(lesion: Lesion) -> Volume:
    """A first contour where none was drawn: inscribed in the box, a ball over the longest diameter or at the point."""
    if lesion.box is not None:
        radii = (lesion.box[1] - lesion.box[0]) / 2
    elif lesion.diameters is not None:
        longest = np.linalg.norm(lesion.diameters[:, 1] - lesion.diameters[:, 0], axis=1).max()
        radii = np.full(3, longest / 2)
    else:
        radii = np.full(3, _POINT_RADIUS_MM)
    ends = np.stack([lesion.point - radii, lesion.point + radii])
    grid = Grid.covering(ends, float(np.clip(radii.min() / 5, 0.7, 2.0)), margin_mm=2.0)
    points = grid.voxel_centers(reference=lesion.point)
    inside = (points / torch.as_tensor(radii, dtype=torch.float32)).square().sum(-1) <= 1
    return Volume(inside.float()[None, None], grid)


def _track(
    baseline: Volume,
    template: SamEmbedding,
    known: list[_Baseline],
    follow_up: Volume,
    query: SamEmbedding,
    number: int,
    limit: float,
    report: Callable[[float], None],
) -> list[Finding]:
    """All lesions in one follow-up."""
    guide, details = pair_affine(template, query)
    sure = details["confidence"] >= CONFIDENT
    report(0.15)
    pairs = matched_pairs(template, query, near=guide)[0] if sure else None
    report(0.25)
    matches = match_points(template, np.stack([entry.lesion.point for entry in known]), query)
    report(0.3)
    findings = []
    for row, entry in enumerate(known):
        start = _local_guide(guide, pairs, entry.lesion.point)
        if not sure:
            shift = matches.points[row] - start.map_points(entry.lesion.point[None])[0]
            start = AffineTransform(start.matrix, start.translation + shift)
        place = start.map_points(entry.lesion.point[None])[0]
        name = entry.lesion.name
        cycle = float(matches.cycle_mm[row])
        if sure and not follow_up.grid.contains(place[None])[0]:
            nowhere = np.full(3, np.nan)
            text = f"{name} lies outside what {follow_up.name} shows."
            findings.append(Finding(name, number, NOT_IN_VIEW, nowhere, 0.0, cycle, reason=text))
        else:
            there = _register_neighborhood(baseline, template, entry, follow_up, place, start)
            findings.append(_judge(entry, follow_up, there, number, cycle, limit, sure))
        report(0.3 + 0.7 * (row + 1) / len(known))
    return findings


def _local_guide(guide: AffineTransform, pairs: PointPairs | None, point: np.ndarray) -> AffineTransform:
    """The affine map that the matched anatomy around a point agrees on."""
    if pairs is None or len(pairs) < 12:
        return guide
    distance = np.linalg.norm(pairs.fixed - point, axis=1)
    width = max(35.0, float(np.sort(distance)[min(24, len(distance) - 1)]))
    weighted = PointPairs(pairs.fixed, pairs.moving, pairs.score * np.exp(-((distance / width) ** 2)))
    return reweighted_affine(weighted, guide, stiffness_mm=60.0)


def _register_neighborhood(
    baseline: Volume,
    template: SamEmbedding,
    entry: _Baseline,
    follow_up: Volume,
    place: np.ndarray,
    start: AffineTransform,
) -> tuple[Transform, Transform]:
    """Maps of baseline points to follow-up points and back around a lesion, the lesion itself left out."""
    point = entry.lesion.point
    fixed = _crop(baseline, point, NEIGHBORHOOD_MM + 4.0)
    moving = _crop(follow_up, place, NEIGHBORHOOD_MM + REACH_MM)
    if fixed is None or moving is None:
        maps = Transform((start,))
        return maps, maps.inverse()
    box = np.stack(
        [
            np.maximum(point - NEIGHBORHOOD_MM, baseline.grid.corners().min(0)),
            np.minimum(point + NEIGHBORHOOD_MM, baseline.grid.corners().max(0)),
        ]
    )
    scene = Scene(
        fixed=_windowed(fixed, baseline),
        moving=_windowed(moving, follow_up),
        initial=Transform((start,)),
        box=box,
        fixed_mask=_surroundings(template, entry, Grid.covering(box, 2.0)),
    )
    mind = Mind()
    deformation = run_pyramid(scene, lambda name: mind, _LEVELS, coupling=_COUPLING)
    grid = Grid.covering(deformation.grid.corners(), 3.0, margin_mm=REACH_MM)
    deformation = without_folds(deformation.embedded(grid, REACH_MM))
    inverse: DisplacementField = deformation.inverse()
    forward = Transform((deformation, start))
    return forward, Transform((start.inverse(), inverse))


def _windowed(part: Volume, whole: Volume) -> Volume:
    """A crop averaged to 2 mm, in [0, 1]; a crop of soft tissue does not look like CT by itself."""
    part = average_to(part, 2.0)
    return part.with_tensor(ct_window(part.tensor) if whole.modality == "ct" else normalized_intensity(part))


def _surroundings(template: SamEmbedding, entry: _Baseline, grid: Grid) -> Volume:
    """The body without the lesion and a rim around it, float on ``grid``."""
    body = Volume(template.body.float()[None, None].cpu(), template.fine.grid)
    weight = resample(body, grid, fill=0.0).tensor
    lesion = on_neighborhood(entry.contour, grid, 0.0).tensor
    rim = torch.nn.functional.max_pool3d((lesion > 0.2).float(), 5, 1, 2)
    return Volume(weight * (1 - rim), grid)


def _judge(
    entry: _Baseline,
    follow_up: Volume,
    maps: tuple[Transform, Transform],
    number: int,
    cycle: float,
    limit: float,
    sure: bool,
) -> Finding:
    """Carry the contour, look whether the lesion is there, and say so."""
    forward, backward = maps
    lesion = entry.lesion
    place = forward.map_points(lesion.point[None])[0]
    if not follow_up.grid.contains(place[None])[0]:
        text = f"{lesion.name} lies outside what {follow_up.name} shows."
        return Finding(lesion.name, number, NOT_IN_VIEW, np.full(3, np.nan), 0.0, cycle, reason=text)
    extent = entry.contour.grid.extent.max() / 2
    rough = Grid.covering(place[None], min(entry.contour.grid.spacing), margin_mm=1.3 * float(extent))
    soft = backward.warp_volume(entry.contour, rough, background=0.0)
    if not bool((soft.tensor > 0.5).any()):
        return Finding(lesion.name, number, UNCERTAIN, place, 0.0, cycle, reason=f"{lesion.name} vanished on the way.")
    grid = neighborhood(soft, 14.0)
    image = _patch(follow_up, grid)
    carried = backward.warp_volume(entry.contour, grid, background=0.0)
    fit = fit_contour(image, carried, entry.fit.levels)
    score = presence(entry.fit, fit)
    has_contour = entry.measurement is not None
    found = score >= limit and sure
    output = _output_grid(follow_up.grid, grid)
    contour = Volume(suggest_contour(image, fit).float()[None, None], grid)
    position = place
    suggested = measurement = None
    if found:
        position = place + fit.shift
        if has_contour:
            position = centroid(contour)
            suggested = _as_labels(contour, output)
            measurement = measure_lesion(contour, follow_up.grid)
    reason = "" if found else f"Nothing at the place of {lesion.name} stands out as it did at the baseline."
    if not sure:
        reason = f"{follow_up.name} could not be aligned with the baseline; check the place of {lesion.name}."
    return Finding(
        lesion.name,
        number,
        FOUND if found else UNCERTAIN,
        position,
        score,
        cycle,
        _as_labels(carried, output) if has_contour else None,
        suggested,
        measurement,
        reason,
    )


def presence(before: Fit, after: Fit) -> float:
    """How surely the lesion is there, in [0, 1], from how it stood out at the baseline and what stands out now.

    A logistic regression on lesions that stayed and lesions that were removed: what is there stands out as much as
    before, at the lesion's own level and with its contrast, and lies where the surroundings lead, at a similar size.
    """
    contrast = before.levels.contrast
    features = (
        1.0,
        after.match,
        min(after.match / max(before.match, 0.1), 1.3),
        float(np.clip(after.levels.contrast / contrast, 0.0, 1.2)) if abs(contrast) > 1 else 0.0,
        min(float(np.linalg.norm(after.shift)) / 4.0, 2.0) ** 2,
        abs(float(np.log(after.scale))),
        min(abs(after.levels.inside - before.levels.inside) / max(abs(contrast), LEAST_CONTRAST), 2.0),
    )
    return float(1 / (1 + np.exp(-np.dot(_PRESENCE, features))))


def _patch(volume: Volume, grid: Grid) -> Volume:
    """``volume`` on a small grid, float; air (the minimum) outside."""
    part = _crop(volume, grid.center, float(grid.extent.max()) / 2 + 2 * max(volume.grid.spacing))
    if part is None:
        return Volume(torch.full((1, 1, *grid.shape), volume.background), grid)
    return resample(part.with_tensor(part.as_float()), grid, fill=volume.background)


def _crop(volume: Volume, center: np.ndarray, half_mm: float) -> Volume | None:
    """The part of ``volume`` that covers a cube around ``center``, voxels shared; None where they do not meet."""
    offsets = np.array([[(-1, 1)[c >> a & 1] for a in range(3)] for c in range(8)]) * half_mm
    voxels = volume.grid.points_to_voxels(center + offsets)
    lower = np.maximum(np.floor(voxels.min(0)), 0).astype(int)
    upper = np.minimum(np.ceil(voxels.max(0)) + 1, volume.grid.size).astype(int)
    if (upper - lower < 2).any():
        return None
    part = volume.tensor[:, :, lower[2] : upper[2], lower[1] : upper[1], lower[0] : upper[0]]
    return replace(volume, tensor=part, grid=volume.grid.cropped(lower.tolist(), (upper - lower).tolist()), source=None)


def _output_grid(follow_up: Grid, grid: Grid) -> Grid:
    """The follow-up's grid cropped to ``grid``, each voxel subdivided where it is coarser than about 1.5 mm."""
    voxels = follow_up.points_to_voxels(grid.corners())
    lower = np.maximum(np.floor(voxels.min(0)), 0).astype(int)
    upper = np.minimum(np.ceil(voxels.max(0)) + 1, follow_up.size).astype(int)
    cropped = follow_up.cropped(lower.tolist(), np.maximum(upper - lower, 1).tolist())
    parts = int(np.clip(np.ceil(max(follow_up.spacing) / 1.5 - 0.01), 1, 4))
    return cropped.subdivided(parts) if parts > 1 else cropped


def _as_labels(contour: Volume, grid: Grid) -> Volume:
    """A contour as a uint8 label volume on ``grid``."""
    inside = on_neighborhood(contour, grid, 0.0).tensor > 0.5
    return Volume(inside.to(torch.uint8), grid, sitk.sitkUInt8)

"""Candidates of new lesions: places of a follow-up where the registered baseline shows nothing alike.

The follow-up and the baseline are registered as a whole; where the follow-up differs from all that the baseline shows
nearby (novelty.py), a contour is sought in the follow-up and looked for in the baseline, as tracking looks for a
lesion in a follow-up. A candidate is what has a contour, a size and a contrast like a lesion's, and is not found there.
Lesions in bone, in the skin and beside bowel gas are not proposed. Candidates are to be accepted or rejected by a
reader; they are no diagnosis.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..progress import Progress, null_progress, stage
from ..registration.register import RegistrationResult, register
from ..space.intensity import check_ct
from ..space.transforms import Transform
from ..space.volume import Volume, check_volume
from .contour import Fit, fit_contour, neighborhood, on_neighborhood, suggest_contour
from .measurement import Measurement, centroid, measure_lesion
from .novelty import Novelty, novelty
from .patches import as_labels, output_grid, patch

LUNG, SOFT_TISSUE = "lung", "soft tissue"
# Longest diameters that are proposed, mm: smaller ones are vessels cut across, larger ones organs that moved.
SMALLEST_MM, LARGEST_MM = 4.0, 60.0
# Differences from the surroundings that are proposed, HU.
LEAST_CONTRAST_HU = {LUNG: 150.0, SOFT_TISSUE: 25.0}
# Longest diameter over short axis: vessels and folds are longer.
MOST_ELONGATED = 3.0
# A registration whose error is expected to be larger says nothing about small lesions.
MOST_ERROR_MM = 12.0
# Weights of features_of(), fitted to invented lesions in training scans, and the score from which a candidate is
# proposed: there 79 % of the lesions at 0.6 false candidates a scan, each scan judged by weights of the others
# (Testing/benchmarks/studies/new_lesions.py).
_NEWNESS = (-2.99, -1.64, 1.04, 2.06, -1.07)
MINIMUM_SCORE = 0.3
_PEAK_REACH = 2
_LEAST_PEAK = 2.0
# Peaks looked at, and those of compact form that a contour is fitted to (about a second each).
_MOST_PEAKS, _MOST_FITS = 200, 50
# Half of the box that a difference must fit into, mm.
_BOX_MM = 30.0
_LEAST_VOXELS = 3
# The baseline's own noise and vessels make the difference of a lesion smaller than the lesion.
_NOW_SIZES = (0.8, 1.0, 1.25, 1.6, 2.0)
_BEFORE_SIZES = (0.5, 0.7, 1.0, 1.4)


@dataclass(frozen=True)
class Candidate:
    """What may be a new lesion. Frame: LPS mm of the follow-up.

    Attributes:
        position: (3,) middle of its contour.
        score: in [0, 1], how surely it is new.
        contrast_hu: difference from its surroundings.
        region: "lung" or "soft tissue".
        measurement: of its contour. contour: uint8 label volume around it.
        reason: one sentence on why it is proposed.
        features: what the score is computed from, see :func:`features_of`.
    """

    position: np.ndarray
    score: float
    contrast_hu: float
    region: str
    measurement: Measurement
    contour: Volume
    reason: str
    features: tuple[float, ...]

    @property
    def diameter_mm(self) -> float:
        """Longest diameter in an axial slice."""
        return self.measurement.longest_mm

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "position": np.round(self.position, 3).tolist(),
            "score": round(self.score, 4),
            "diameter_mm": round(self.diameter_mm, 2),
            "contrast_hu": round(self.contrast_hu, 1),
            "region": self.region,
            "measurement": self.measurement.to_dict(),
            "reason": self.reason,
        }


def new_lesion_candidates(
    baseline: Volume,
    follow_up: Volume,
    *,
    known: Sequence[tuple[np.ndarray, float]] = (),
    minimum_score: float | None = None,
    registration: RegistrationResult | None = None,
    device: str = "cpu",
    weights: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Candidates of new lesions in a follow-up, the surest first.

    Args:
        baseline, follow_up: CT of one patient in Hounsfield units, any geometry and field of view.
        known: (3,) LPS mm in the follow-up and radius in mm of lesions that are known there; nothing is proposed in
            them.
        minimum_score: proposed from this score on, in [0, 1]; default a calibrated one.
        registration: of the follow-up (fixed) and the baseline (moving), where there is one; default one is made with
            the preset ct-follow-up.
        device, weights: for the registration.

    Raises:
        InputError: unusable volumes, no CT, nothing in common. Cancelled: by ``progress``.
    """
    for volume in (baseline, follow_up):
        check_volume(volume)
        check_ct(volume)
    limit = MINIMUM_SCORE if minimum_score is None else minimum_score
    if not 0 <= limit <= 1:
        raise InputError(f"{limit} is no score; give a number from 0 to 1.")
    if registration is None:
        registration = register(
            follow_up, baseline, preset="ct-follow-up", device=device, weights=weights, progress=progress
        )
    report = stage(progress or null_progress, "new lesions")
    forward = registration.fixed_to_moving
    places = novelty(follow_up, baseline, forward)
    report(0.4)
    found: list[Candidate] = []
    blobs = blobs_of(places, known)
    for row, blob in enumerate(blobs):
        report(0.4 + 0.6 * row / len(blobs))
        taken = [(other.position, 0.5 * other.diameter_mm) for other in found]
        error = float(registration.error_at(blob.peak[None])[0])
        if error > MOST_ERROR_MM or _within(blob.peak, taken):
            continue
        candidate = _judged(baseline, follow_up, forward, blob, error)
        if candidate is not None and not _within(candidate.position, [*known, *taken]):
            found.append(candidate)
    report(1.0)
    return sorted((one for one in found if one.score >= limit), key=lambda one: -one.score)


def _within(point: np.ndarray, balls: Sequence[tuple[np.ndarray, float]]) -> bool:
    return any(float(np.linalg.norm(point - np.asarray(middle))) <= radius + 2.0 for middle, radius in balls)


@dataclass(frozen=True)
class Blob:
    """A compact part of a follow-up that differs from the baseline.

    Attributes:
        peak: (3,) LPS mm, where it stands out most. strength: contrast to noise there.
        sign: 1 where the follow-up is brighter, else -1. region: "lung" or "soft tissue".
        mask: float, 1 where at least half of the peak's difference is left.
    """

    peak: np.ndarray
    strength: float
    sign: int
    region: str
    mask: Volume


def blobs_of(places: Novelty, known: Sequence[tuple[np.ndarray, float]] = ()) -> list[Blob]:
    """Compact differences, the most striking first; ``known`` as in :func:`new_lesion_candidates`."""
    values = places.contrast_to_noise * places.compared
    highest = F.max_pool3d(values, 2 * _PEAK_REACH + 1, 1, _PEAK_REACH)
    rows = ((values == highest) & (values >= _LEAST_PEAK))[0, 0].nonzero()
    order = values[0, 0][tuple(rows.T)].argsort(descending=True)[:_MOST_PEAKS]
    found: list[Blob] = []
    for voxel in rows[order].tolist():
        peak = places.grid.voxels_to_points(np.array([voxel[::-1]]))[0]
        mask = None if _within(peak, known) else _blob(places, voxel)
        if mask is not None:
            z, y, x = voxel
            region = LUNG if bool(places.lung[0, 0, z, y, x]) else SOFT_TISSUE
            sign = 1 if float(places.residual[0, 0, z, y, x]) > 0 else -1
            found.append(Blob(peak, float(values[0, 0, z, y, x]), sign, region, mask))
        if len(found) == _MOST_FITS:
            break
    return found


def _blob(places: Novelty, voxel: list[int]) -> Volume | None:
    """The connected difference around a peak (voxel z, y, x); None where it is too large or too long."""
    half = int(round(_BOX_MM / places.grid.spacing[0]))
    lower = [max(v - half, 0) for v in voxel]
    upper = [min(v + half + 1, n) for v, n in zip(voxel, places.grid.shape, strict=True)]
    part = places.residual[0, 0, lower[0] : upper[0], lower[1] : upper[1], lower[2] : upper[2]]
    inner = tuple(v - low for v, low in zip(voxel, lower, strict=True))
    if float(part[inner]) == 0:
        return None
    share = (part / part[inner] > 0.5).numpy().astype(np.uint8)
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(share)))
    inside = labels == labels[inner]
    rows = np.argwhere(inside)
    size = np.asarray(inside.shape)
    if len(rows) < _LEAST_VOXELS or ((rows == 0) | (rows == size - 1)).any():
        return None
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(rows.T) + np.eye(3) / 12))
    if spread[2] > MOST_ELONGATED * spread[1]:
        return None
    grid = places.grid.cropped(lower[::-1], [b - a for a, b in zip(lower, upper, strict=True)][::-1])
    return Volume(torch.from_numpy(inside.astype(np.float32))[None, None], grid)


def _judged(baseline: Volume, follow_up: Volume, forward: Transform, blob: Blob, error_mm: float) -> Candidate | None:
    """The candidate at a blob; None where nothing there has the form, size or contrast of a lesion."""
    contour, fit = _contoured(follow_up, blob)
    measured = measure_lesion(contour, follow_up.grid)
    if measured is None or not SMALLEST_MM <= measured.longest_mm <= LARGEST_MM:
        return None
    position = centroid(contour)
    contrast = fit.levels.contrast
    # What stands out must be what differs: a dark cyst beside a bright vessel that moved is no lesion.
    if contrast * blob.sign < LEAST_CONTRAST_HU[blob.region]:
        return None
    if measured.longest_mm > MOST_ELONGATED * measured.short_axis_mm:
        return None
    values = features_of(contour, fit, measured, baseline, forward, blob)
    score = float(1 / (1 + np.exp(-np.dot(_NEWNESS, values))))
    kind = "brighter" if contrast > 0 else "darker"
    reason = (
        f"{measured.longest_mm:.0f} mm in {blob.region}, {abs(contrast):.0f} HU {kind} than around it; the registered "
        f"baseline shows nothing alike there (expected error {error_mm:.0f} mm)."
    )
    labels = as_labels(contour, output_grid(follow_up.grid, contour.grid))
    return Candidate(position, score, contrast, blob.region, measured, labels, reason, values)


def _contoured(follow_up: Volume, blob: Blob) -> tuple[Volume, Fit]:
    """The contour that the follow-up shows at a blob (values 0 and 1), and how it stands out."""
    grid = neighborhood(blob.mask, 10.0)
    image = patch(follow_up, grid)
    soft = on_neighborhood(blob.mask, grid, 0.0)
    found = fit_contour(image, soft, scales=_NOW_SIZES, shift_mm=4.0)
    contour = Volume(suggest_contour(image, found).float()[None, None], grid)
    return contour, fit_contour(image, contour, scales=(1.0,), shift_mm=0.0)


def features_of(
    contour: Volume,
    fit: Fit,
    measured: Measurement,
    baseline: Volume,
    forward: Transform,
    blob: Blob,
) -> tuple[float, ...]:
    """What tells new lesions from what a registration leaves: numbers for a logistic regression, the first 1.

    In order: how well the contour stands out in the baseline, moved and scaled to where it does best; how much of the
    contrast the baseline lacks; how much the place differs; how long it is.
    """
    there = forward.warp_volume(baseline, like=contour.grid)
    there = Volume(there.tensor.float(), contour.grid)
    before = fit_contour(there, contour, fit.levels, scales=_BEFORE_SIZES)
    inside = contour.tensor[0, 0] > 0.5
    lacking = (fit.levels.inside - float(there.tensor[0, 0][inside].median())) / fit.levels.contrast
    return (
        1.0,
        before.match,
        float(np.clip(lacking, -1.0, 2.0)),
        float(np.log(blob.strength)),
        float(np.log(measured.longest_mm / max(measured.short_axis_mm, 1.0))),
    )

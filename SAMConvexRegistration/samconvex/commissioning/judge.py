"""Registers one known pair and judges the result against the limits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..progress import Progress
from ..registration.register import RegistrationResult
from ..report import metrics
from ..settings.presets import get_settings
from ..space.transforms import Transform
from .cases import Case, KnownPair

# The order in which register() reports, for one steadily growing fraction.
_STAGES = ("prepare", "affine", "embedding", "convex", "refine", "finish", "measure", "done")


@dataclass(frozen=True)
class Limits:
    """What a result must keep to pass. AAPM TG-132 (Brock et al., 2017): digital phantoms within 2 mm at 95 % of the
    voxels and 5 mm at most; there and back within a voxel, 2 to 3 mm; Dice 0.8 to 0.9; no folding.

    Attributes:
        mean_mm, p95_mm, max_mm: of the error against the truth; of carried points mean and maximum.
        inverse_p95_mm: 95th percentile of there and back.
        dice: mean overlap of carried labels, at least.
        folding_percent: at most.
        file_mm: how far the written transform, read by SimpleITK, may map from the one in memory.
    """

    mean_mm: float = 2.0
    p95_mm: float = 2.0
    max_mm: float = 5.0
    inverse_p95_mm: float = 3.0
    dice: float = 0.8
    folding_percent: float = 0.0
    file_mm: float = 0.01


LIMITS = Limits()
# Of the motion; where more than this is left, the registration has not worked, whatever else is expected of it.
MOST_LEFT = 0.5
Register = Callable[..., RegistrationResult]


def judged(
    case: Case, pair: KnownPair, register: Register, progress: Progress, limits: Limits = LIMITS, **machine: Any
) -> dict[str, Any]:
    """Register ``pair`` and return its record: figures, ``failures`` (sentences) and ``passed``.

    Args:
        register: :func:`samconvex.register`, or what a test puts in its place.
        machine: ``device``, ``threads`` and ``seed`` for it.

    Raises:
        Cancelled: by ``progress``. ResourceError: memory, device.
    """
    began = time.perf_counter()
    result = register(pair.fixed, pair.moving, preset=case.preset, progress=_growing(case.name, progress), **machine)
    record: dict[str, Any] = {
        "name": case.name,
        "title": case.title,
        "what": case.what,
        "preset": get_settings(case.preset).name,
        "judged": case.judged,
        "seconds": time.perf_counter() - began,
    }
    target = pair.truth.map_points(pair.judged)
    found = result.fixed_to_moving.map_points(pair.judged)
    error = np.linalg.norm(found - target, axis=1)
    record["points"] = len(error)
    record["motion_mm"] = metrics.summary(np.linalg.norm(target - pair.judged, axis=1))
    record["error_mm"] = metrics.summary(error)
    record["inverse_consistency_mm"] = metrics.inverse_consistency(
        result.fixed_to_moving, result.moving_to_fixed, pair.judged
    )
    record["folding_percent"] = result.report.get("folding_percent", 0.0)
    record["file_mm"] = _through_a_file(result.fixed_to_moving, pair.judged, found)
    record |= _told(pair, result) | _carried(pair, result) | _expected(pair, result, error)
    record["warnings"] = list(result.report.get("warnings", []))
    record["failures"] = failures(record, limits)
    record["passed"] = not record["failures"]
    return record


def failures(record: dict[str, Any], limits: Limits = LIMITS) -> list[str]:
    """A sentence for every limit that the figures of a record break."""
    error, inverse = record["error_mm"], record["inverse_consistency_mm"]
    if record["judged"]:
        checks = [
            ("mean error", error["mean"], limits.mean_mm, "mm"),
            ("error at 95 % of the points", error["p95"], limits.p95_mm, "mm"),
            ("largest error", error["max"], limits.max_mm, "mm"),
        ]
    else:
        checks = [("mean error", error["mean"], MOST_LEFT * record["motion_mm"]["mean"], "mm")]
    checks += [
        ("there and back at 95 % of the points", inverse["p95"], limits.inverse_p95_mm, "mm"),
        ("folding", record["folding_percent"], limits.folding_percent, "%"),
        ("written transform against the one in memory", record["file_mm"], limits.file_mm, "mm"),
    ]
    if "carried_points_mm" in record:
        carried = record["carried_points_mm"]
        checks += [
            ("mean error of carried points", carried["mean"], limits.mean_mm, "mm"),
            ("largest error of carried points", carried["max"], limits.max_mm, "mm"),
        ]
    # Written so that a figure that is no number fails.
    broken = [
        f"{name}: {value:.2f} {unit}, limit {limit:.3g}" for name, value, limit, unit in checks if not value <= limit
    ]
    if "carried_dice" in record and not record["carried_dice"] >= limits.dice:
        broken.append(f"overlap of carried labels: {record['carried_dice']:.2f}, limit {limits.dice:g}")
    return broken


def _told(pair: KnownPair, result: RegistrationResult) -> dict[str, Any]:
    """The error where the truth is torn: told, not judged."""
    if not len(pair.told):
        return {}
    error = metrics.target_registration_error(result.fixed_to_moving, pair.told, pair.truth.map_points(pair.told))
    return {"error_at_torn_surface_mm": metrics.summary(error)}


def _carried(pair: KnownPair, result: RegistrationResult) -> dict[str, Any]:
    """Moving labels and points brought to the fixed image, against those that are there."""
    record: dict[str, Any] = {}
    if pair.landmarks is not None:
        carried = result.moving_to_fixed.map_points(pair.truth.map_points(pair.landmarks))
        record["carried_points_mm"] = metrics.summary(np.linalg.norm(carried - pair.landmarks, axis=1))
    if pair.fixed_labels is not None and pair.moving_labels is not None:
        warped = result.fixed_to_moving.warp_labels(pair.moving_labels, pair.fixed)
        record["carried_dice"] = metrics.mean_dice(metrics.dice(pair.fixed_labels, warped))
    return record


def _expected(pair: KnownPair, result: RegistrationResult, error: np.ndarray) -> dict[str, Any]:
    """The error that the registration expected against the actual one, at the judged points: told, not judged."""
    if result.expected_error is None:
        return {}
    bound = result.error_at(pair.judged)
    return {
        "expected_error_mm": metrics.summary(bound),
        # Nine of ten errors should be below their bound.
        "below_expected_percent": 100 * float((error <= bound).mean()),
    }


def _through_a_file(transform: Transform, points: np.ndarray, found: np.ndarray) -> float:
    """Largest distance, mm, between points mapped in memory and by SimpleITK from the written transform."""
    some = slice(None, None, max(1, len(points) // 200))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transform.h5"
        transform.save(path)
        read = sitk.ReadTransform(str(path))
    mapped = np.array([read.TransformPoint(point) for point in points[some].tolist()])
    return float(np.linalg.norm(mapped - found[some], axis=1).max())


def _growing(name: str, progress: Progress) -> Progress:
    """The stages of one registration as one stage called ``name``."""
    reached = 0.0

    def report(stage: str, fraction: float, message: str = "") -> None:
        nonlocal reached
        if stage in _STAGES:
            reached = max(reached, (_STAGES.index(stage) + fraction) / len(_STAGES))
        progress(name, min(reached, 1.0))

    return report

"""report.json: what was run, on what, how long it took and how good it is, by one fixed schema.

Fields without data are absent. Numbers are plain JSON numbers; a value that is not finite is left out.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.files import file_sha256

if TYPE_CHECKING:
    from ..space.volume import Volume

TRE_KEYS = ("mean", "median", "p95", "max")
INVERSE_KEYS = ("mean", "p95", "max")


def build_report(
    *,
    version: str,
    fixed: Volume,
    moving: Volume,
    preset: str | None = None,
    settings: Any = None,
    device: str | None = None,
    threads: int | None = None,
    stage_seconds: Mapping[str, float] | None = None,
    total_seconds: float | None = None,
    peak_memory_mib: float | None = None,
    regularity: Mapping[str, float] | None = None,
    inverse_consistency_mm: Mapping[str, float] | None = None,
    overlap_percent: float | None = None,
    dice_initial: Mapping[int, float] | None = None,
    dice_final: Mapping[int, float] | None = None,
    surface_initial_mm: Mapping[int, Mapping[str, float]] | None = None,
    surface_final_mm: Mapping[int, Mapping[str, float]] | None = None,
    tre_initial_mm: np.ndarray | None = None,
    tre_final_mm: np.ndarray | None = None,
    expected_error_mm: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Assemble the report's dictionary.

    Args:
        settings: a (nested) dataclass or mapping; written out so that the run can be repeated.
        regularity: ``folding_percent``, ``sdlogj`` and ``sdlogj_learn2reg``.
        overlap_percent: share of the fixed image's body where the moving image has data.
        dice_initial, dice_final: overlap by label before and after.
        surface_initial_mm, surface_final_mm: ``mean`` and ``hd95`` of surface distances by label before and after.
        tre_initial_mm, tre_final_mm: (N,) distances of corresponding points before and after.
        expected_error_mm: ``median``, ``p90`` and ``max`` of the 90 % bound inside the body, the ``family`` of presets
            whose calibration it has, and ``own_calibration``: the preset was one of them, unchanged; ``labels`` by
            carried label what nine tenths of its outline stay below.
        further: additional top-level fields.
    """
    report: dict[str, Any] = {
        "version": version,
        "preset": preset,
        "settings": settings,
        "inputs": {"fixed": input_record(fixed), "moving": input_record(moving)},
        "device": device,
        "threads": threads,
    }
    if total_seconds is not None:
        report["seconds"] = {"total": total_seconds, "stages": dict(stage_seconds or {})}
    report["peak_memory_mib"] = peak_memory_mib
    report |= dict(regularity or {})
    report["inverse_consistency_mm"] = inverse_consistency_mm
    report["overlap_percent"] = overlap_percent
    if dice_initial or dice_final:
        report["dice"] = _dice_record(dice_initial, dice_final)
    surfaces = {"initial": surface_initial_mm, "final": surface_final_mm}
    if any(surfaces.values()):
        report["surface_mm"] = surfaces
    if tre_initial_mm is not None or tre_final_mm is not None:
        report["tre_mm"] = _tre_record(tre_initial_mm, tre_final_mm)
    report["expected_error_mm"] = expected_error_mm
    report |= dict(further or {})
    report["warnings"] = list(dict.fromkeys(warnings))
    return plain(report)


def input_record(volume: Volume) -> dict[str, Any]:
    """Path, size, spacing and sha256 (of the file, or of a folder's files in the order of their names)."""
    record: dict[str, Any] = {"path": volume.source, **volume.grid.describe()}
    if volume.source is not None and Path(volume.source).exists():
        record["sha256"] = file_sha256(volume.source)
    return record


def save_report(report: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a report as strict, indented JSON."""
    text = json.dumps(plain(report), indent=2, allow_nan=False, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """The same value in JSON's own types; None and non-finite numbers vanish from dictionaries."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = {str(key): plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def _dice_record(initial: Mapping[int, float] | None, final: Mapping[int, float] | None) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, scores in (("initial", initial), ("final", final)):
        if scores:
            record[name] = {str(label): float(score) for label, score in scores.items()}
            record[f"{name}_mean"] = float(np.mean(list(scores.values())))
    return record


def _tre_record(initial: np.ndarray | None, final: np.ndarray | None) -> dict[str, Any]:
    from .metrics import summary

    record: dict[str, Any] = {}
    for name, each, distances in (("initial", "each_initial", initial), ("final", "each", final)):
        if distances is not None and len(distances):
            record[name] = summary(distances)
            record["n"] = len(distances)
            # In the order of the points that were given.
            record[each] = distances
    return record

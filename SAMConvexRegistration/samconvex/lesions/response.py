"""Tumor response by RECIST 1.1 from confirmed diameters: sum, change, category. It supports a reading, it makes none.

Eisenhauer et al., New response evaluation criteria in solid tumours, Eur J Cancer 45, 2009, sections 4.3 and 4.4.
Only what a person confirmed belongs here; non-target lesions are judged by people and are not part of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError

NOTICE = "Computed from confirmed measurements as support for a reading; not a diagnosis."
CATEGORIES = {
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    "PD": "progressive disease",
    "NE": "not evaluable",
}
PARTIAL_PERCENT = -30.0
PROGRESS_PERCENT = 20.0
PROGRESS_MM = 5.0
NORMAL_NODE_MM = 10.0


@dataclass(frozen=True)
class Response:
    """One time point.

    Attributes:
        sum_mm: sum of the target lesions' diameters; None where one was not measured.
        nadir_mm: smallest complete sum of earlier time points, the baseline included; None at the baseline.
        change_since_baseline_percent, change_since_nadir_percent, change_since_nadir_mm: None where unknown.
        category: a key of :data:`CATEGORIES`, or "baseline".
        reason: one sentence on why.
    """

    sum_mm: float | None
    nadir_mm: float | None
    change_since_baseline_percent: float | None
    change_since_nadir_percent: float | None
    change_since_nadir_mm: float | None
    category: str
    reason: str


def assess_response(
    diameters: Sequence[Mapping[str, float | None]],
    *,
    nodes: Collection[str] = (),
    new_lesions: Sequence[bool] = (),
) -> list[Response]:
    """RECIST 1.1 category of the target lesions at every time point.

    Args:
        diameters: per time point, the baseline first, each target lesion's confirmed diameter in mm: the short axis of
            a lymph node, the longest diameter of anything else. 0 is a lesion that has disappeared; None (or no entry)
            one that was not measured. A lesion seen but too small to measure counts 5 mm by convention.
        nodes: names of the lesions that are lymph nodes.
        new_lesions: per time point, whether an unequivocal new lesion was confirmed; missing entries are False.

    Returns:
        One entry per time point, the first being the baseline.

    Raises:
        InputError: no baseline, a baseline lesion without a diameter, a lesion unknown at the baseline, or a negative
            or infinite diameter.
    """
    baseline = _checked(diameters)
    results: list[Response] = []
    sums: list[float] = []
    start = sum(baseline.values())
    had_complete_response = False
    for number, row in enumerate(diameters):
        values = {name: _number(row.get(name)) for name in baseline}
        missing = [name for name, value in values.items() if value is None]
        known = {name: value for name, value in values.items() if value is not None}
        total = None if missing else sum(known.values())
        if number == 0:
            results.append(Response(total, None, None, None, None, "baseline", f"{len(baseline)} target lesions."))
            sums.append(start)
            continue
        nadir = min(sums)
        growth = None if total is None else total - nadir
        change = None if total is None else 100.0 * (total - start) / start
        since = None if growth is None else (100.0 * growth / nadir if nadir > 0 else (math.inf if growth > 0 else 0.0))
        disappeared = not missing and all(
            value < NORMAL_NODE_MM if name in nodes else value == 0 for name, value in known.items()
        )
        back = had_complete_response and any(value > 0 for name, value in known.items() if name not in nodes)
        new = number < len(new_lesions) and bool(new_lesions[number])
        category, reason = _category(new, back, sum(known.values()) - nadir, nadir, missing, disappeared, change)
        results.append(Response(total, nadir, change, since, growth, category, reason))
        had_complete_response |= category == "CR"
        if total is not None:
            sums.append(total)
    return results


def _category(
    new: bool, back: bool, growth: float, nadir: float, missing: list[str], disappeared: bool, change: float | None
) -> tuple[str, str]:
    """Category and reason. ``growth`` is what the measured lesions alone exceed the nadir by."""
    if new:
        return "PD", "A new lesion was confirmed."
    if back:
        return "PD", "A lesion came back after complete response."
    if disappeared:
        return "CR", "All target lesions have disappeared; lymph nodes are shorter than 10 mm."
    # Measured lesions that have progressed by themselves need no others.
    if growth >= PROGRESS_MM - 1e-9 and growth >= PROGRESS_PERCENT / 100 * nadir - 1e-9:
        return "PD", f"The sum grew by {growth:.1f} mm since its smallest value, at least 20 % and 5 mm."
    if missing:
        return "NE", f"Not measured: {', '.join(missing)}."
    assert change is not None
    if change <= PARTIAL_PERCENT + 1e-9:
        return "PR", f"The sum shrank by {-change:.0f} % since the baseline, at least 30 %."
    return "SD", "The sum neither shrank by 30 % since the baseline nor grew by 20 % and 5 mm since its smallest value."


def _checked(diameters: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The baseline's diameters."""
    if not diameters or not diameters[0]:
        raise InputError("The baseline has no target lesion; confirm at least one baseline diameter.")
    for number, row in enumerate(diameters):
        for name, value in row.items():
            if name not in diameters[0]:
                raise InputError(f"{name} has no baseline diameter; it is a new lesion or must be measured there.")
            if value is not None and (math.isinf(value) or value < 0):
                raise InputError(f"The diameter of {name} at time point {number} is {value:g}; give mm, 0 or more.")
    known = {name: _number(value) for name, value in diameters[0].items()}
    absent = [name for name, value in known.items() if not value]
    if absent:
        raise InputError(f"{', '.join(absent)}: no diameter at the baseline; measure there, or leave it out.")
    return {name: value for name, value in known.items() if value is not None}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)

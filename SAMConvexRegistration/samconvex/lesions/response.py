"""Tumor response by RECIST 1.1 from confirmed diameters: sum, change, category. It supports a reading, it makes none.

Eisenhauer et al., New response evaluation criteria in solid tumours, Eur J Cancer 45, 2009, sections 4.3 and 4.4.
Only what a person confirmed belongs here. docs/response.md says the rules in words.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .targets import NORMAL_NODE_MM

NOTICE = "Computed from confirmed measurements as support for a reading; not a diagnosis."
NON_CR = "non-CR/non-PD"
CATEGORIES = {
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    NON_CR: "neither complete response nor progressive disease (no target lesions)",
    "PD": "progressive disease",
    "NE": "not evaluable",
}
BASELINE = "baseline"
PARTIAL_PERCENT = -30.0
PROGRESS_PERCENT = 20.0
PROGRESS_MM = 5.0
NON_TARGET_CATEGORIES = ("CR", NON_CR, "PD", "NE")


@dataclass(frozen=True)
class Response:
    """One time point.

    Attributes:
        sum_mm: sum of the target lesions' diameters; None where one was not measured, or without targets.
        nadir_mm: smallest complete sum of earlier time points, the baseline included; None at the baseline.
        change_since_baseline_percent, change_since_nadir_percent, change_since_nadir_mm: None where unknown.
        category: the overall response, a key of :data:`CATEGORIES`, or "baseline".
        reason: one sentence on which rule decided, with its section.
        target, non_target: category of the target and of the non-target lesions; "" where there are none.
        target_reason: one sentence on the rule that decided ``target``.
        new_lesion: an unequivocal new lesion was there.
        came_back: a lesion came back after complete response.
    """

    sum_mm: float | None
    nadir_mm: float | None
    change_since_baseline_percent: float | None
    change_since_nadir_percent: float | None
    change_since_nadir_mm: float | None
    category: str
    reason: str
    target: str = ""
    non_target: str = ""
    target_reason: str = ""
    new_lesion: bool = False
    came_back: bool = False


@dataclass
class _History:
    """What earlier time points leave to the later ones."""

    nodes: frozenset[str]
    start: float
    sums: list[float] = field(default_factory=list)
    had_complete_response: bool = False


def assess_response(
    diameters: Sequence[Mapping[str, float | None]],
    *,
    nodes: Collection[str] = (),
    new_lesions: Sequence[object] = (),
    non_targets: Sequence[str | None] = (),
) -> list[Response]:
    """RECIST 1.1 at every time point: target, non-target and overall response.

    Args:
        diameters: per time point, the baseline first, each target lesion's confirmed diameter in mm: the short axis of
            a lymph node, the longest diameter of anything else. 0 is a lesion that has disappeared, or that is counted
            with another it has merged with; None (or no entry) one that was not measured. A lesion seen but too small
            to measure counts 5 mm by convention, one that has split the sum of its fragments.
        nodes: names of the lesions that are lymph nodes.
        new_lesions: per time point, whether there is an unequivocal new lesion (a flag, or the collection of them);
            missing entries are none.
        non_targets: per time point the category of the non-target lesions together ("CR", "non-CR/non-PD", "PD" or
            "NE"), see :func:`non_target_category`. None (or no entry) at the baseline: there are no such lesions; at
            a later one: not evaluated.

    Returns:
        One entry per time point, the first being the baseline.

    Raises:
        InputError: neither a target nor a non-target lesion at the baseline, a baseline lesion without a diameter, a
            lesion unknown at the baseline, a negative or infinite diameter, or an unknown non-target category.
    """
    others = _checked_non_targets(non_targets, len(diameters))
    baseline = _checked(diameters, bool(others))
    history = _History(frozenset(nodes), sum(baseline.values()))
    results: list[Response] = []
    for number, row in enumerate(diameters):
        if number == 0:
            said = f"{len(baseline)} target lesions" + (" and non-target lesions." if others else ".")
            first = None if not baseline else history.start
            results.append(Response(first, None, None, None, None, BASELINE, said))
            history.sums += [] if first is None else [first]
            continue
        values = {name: _number(row.get(name)) for name in baseline}
        new = number < len(new_lesions) and bool(new_lesions[number])
        results.append(_at(values, others[number] if others else "", new, history))
    return results


def non_target_category(
    lesions: Mapping[str, str], *, progress: bool = False, nodes_mm: Mapping[str, float | None] | None = None
) -> str:
    """Category of the non-target lesions together at one time point (section 4.3.3).

    Args:
        lesions: per lesion "gone", "present" or "not evaluable".
        progress: a person judged them unequivocally progressive, as a whole; size alone does not say so (4.3.4).
        nodes_mm: short axes in mm of those that are lymph nodes: below 10 mm a node counts as gone.

    Returns:
        One of "CR", "non-CR/non-PD", "PD", "NE".
    """
    if progress:
        return "PD"
    axes = nodes_mm or {}

    def gone(name: str, state: str) -> bool:
        axis = axes.get(name)
        return state == "gone" or (axis is not None and axis < NORMAL_NODE_MM)

    left = [state for name, state in lesions.items() if not gone(name, state)]
    if not left:
        return "CR" if lesions else "NE"
    return NON_CR if "present" in left else "NE"


def overall_response(target: str, non_target: str, new_lesion: bool) -> tuple[str, str]:
    """Overall response of one time point and the rule that decided (section 4.4.1, tables 1 and 2).

    Args:
        target, non_target: categories, "" where there are no such lesions.
    """
    if new_lesion:
        return "PD", "A new lesion was confirmed: progression whatever the others do (4.3.5)."
    if target == "PD":
        return "PD", "The target lesions have progressed (4.4.1, table 1)."
    if non_target == "PD":
        return "PD", "The non-target lesions have unequivocally progressed (4.3.3, 4.4.1)."
    if not target:
        said = {
            "CR": "All non-target lesions have disappeared, there are no targets (4.4.1, table 2).",
            NON_CR: "Non-target lesions persist, there are no targets (4.4.1, table 2).",
            "NE": "The non-target lesions were not all evaluated, there are no targets (4.4.1, table 2).",
        }
        return non_target, said[non_target]
    if target == "CR" and non_target in (NON_CR, "NE"):
        why = "persist" if non_target == NON_CR else "were not all evaluated"
        return "PR", f"The target lesions are gone, but non-target lesions {why}: partial response (4.4.1, table 1)."
    if target == "CR":
        return "CR", "All lesions have disappeared; lymph nodes are shorter than 10 mm (4.3.1, 4.4.1)."
    if target == "NE":
        return "NE", "Not all target lesions were evaluated, and those that were have not progressed (4.4.2)."
    return target, "The target lesions decide; non-target lesions have not progressed (4.4.1, table 1)."


def _at(values: Mapping[str, float | None], non_target: str, new: bool, history: _History) -> Response:
    """One follow-up; the history goes on."""
    missing = [name for name, value in values.items() if value is None]
    known = {name: value for name, value in values.items() if value is not None}
    if not values:
        back = history.had_complete_response and non_target not in ("CR", "NE")
        category, reason = _overall("", "", non_target, new, back)
        history.had_complete_response |= category == "CR"
        return Response(None, None, None, None, None, category, reason, "", non_target, "", new, back)
    total, nadir = (None if missing else sum(known.values())), min(history.sums)
    growth = None if total is None else total - nadir
    change = None if total is None else 100.0 * (total - history.start) / history.start
    since = None if growth is None else (100.0 * growth / nadir if nadir > 0 else (math.inf if growth > 0 else 0.0))
    gone = not missing and all(
        value < NORMAL_NODE_MM if name in history.nodes else value == 0 for name, value in known.items()
    )
    back = history.had_complete_response and (
        any(value > 0 for name, value in known.items() if name not in history.nodes) or non_target == NON_CR
    )
    target, target_reason = _target(sum(known.values()) - nadir, nadir, missing, gone, change)
    category, reason = _overall(target, target_reason, non_target, new, back)
    history.had_complete_response |= category == "CR"
    if total is not None:
        history.sums.append(total)
    return Response(total, nadir, change, since, growth, category, reason, target, non_target, target_reason, new, back)


def _overall(target: str, target_reason: str, non_target: str, new: bool, back: bool) -> tuple[str, str]:
    """Overall response; the target's own sentence where it says more than the table."""
    if back and not new:
        return "PD", "A lesion came back after complete response (4.4.3)."
    category, reason = overall_response(target, non_target, new)
    return category, target_reason if category == target and not new and target != "CR" else reason


def _target(growth: float, nadir: float, missing: list[str], gone: bool, change: float | None) -> tuple[str, str]:
    """Category of the targets and reason. ``growth`` is what the measured lesions alone exceed the nadir by."""
    if gone:
        return "CR", "All target lesions have disappeared; lymph nodes are shorter than 10 mm (4.3.1)."
    # Measured lesions that have progressed by themselves need no others.
    if growth >= PROGRESS_MM - 1e-9 and growth >= PROGRESS_PERCENT / 100 * nadir - 1e-9:
        return "PD", f"The sum grew by {growth:.1f} mm since its smallest value, at least 20 % and 5 mm (4.3.1)."
    if missing:
        return "NE", f"Not measured: {', '.join(missing)}; the others have not progressed (4.4.2)."
    assert change is not None
    if change <= PARTIAL_PERCENT + 1e-9:
        return "PR", f"The sum shrank by {-change:.0f} % since the baseline, at least 30 % (4.3.1)."
    return "SD", (
        "The sum neither shrank by 30 % since the baseline nor grew by 20 % and 5 mm since its smallest value (4.3.1)."
    )


def _checked(diameters: Sequence[Mapping[str, float | None]], with_others: bool) -> dict[str, float]:
    """The baseline's diameters."""
    if not diameters or not (diameters[0] or with_others):
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


def _checked_non_targets(non_targets: Iterable[str | None], count: int) -> list[str]:
    """One category per time point, or [] without non-target lesions."""
    given = list(non_targets)
    for number, value in enumerate(given):
        if value is not None and value not in NON_TARGET_CATEGORIES:
            raise InputError(
                f"The non-target category at time point {number} is '{value}'; use {', '.join(NON_TARGET_CATEGORIES)}."
            )
    if not given or given[0] is None:
        return []
    return [value or "NE" for value in (given + [None] * count)[:count]]


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)

"""Response under immunotherapy by iRECIST: progression is unconfirmed (iUPD) until a later visit confirms it (iCPD).

Seymour et al., iRECIST: guidelines for response criteria for use in trials testing immunotherapeutics, Lancet Oncol 18,
2017: panel and table 2. It stands on the RECIST 1.1 assessment of the same visits (response.py); new lesions are
measured apart and never added to the baseline's sum. docs/response.md says the rules in words. Support for a reading.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .response import BASELINE, Response, overall_response

UNCONFIRMED, CONFIRMED = "iUPD", "iCPD"
IMMUNE_CATEGORIES = {
    "iCR": "complete response",
    "iPR": "partial response",
    "iSD": "stable disease",
    "non-iCR/non-iUPD": "neither complete response nor unconfirmed progression (no target lesions)",
    UNCONFIRMED: "unconfirmed progressive disease",
    CONFIRMED: "confirmed progressive disease",
    "NE": "not evaluable",
}
_IMMUNE = {"CR": "iCR", "PR": "iPR", "SD": "iSD", "non-CR/non-PD": "non-iCR/non-iUPD", "NE": "NE"}
GROWTH_MM = 5.0
# Confirmation is asked for from four to eight weeks after the unconfirmed progression.
EARLIEST, LATEST = datetime.timedelta(weeks=4), datetime.timedelta(weeks=8)
TARGETS, NON_TARGETS, NEW = "target lesions", "non-target lesions", "new lesions"


@dataclass(frozen=True)
class NewLesions:
    """What was read of new lesions and of further growth at one visit.

    Attributes:
        measured: diameters in mm of the new lesions followed as new targets (up to five, two an organ), by name; those
            that have disappeared are left out or 0.
        others: names of the new lesions that are present and not measured.
        others_grew: a person judged that unmeasured new lesions have grown since the visit before.
        non_targets_grew: a person judged that the non-target lesions have grown further since the visit before; it
            need not be unequivocal progression.
    """

    measured: Mapping[str, float] = field(default_factory=dict)
    others: frozenset[str] = frozenset()
    others_grew: bool = False
    non_targets_grew: bool = False

    @property
    def present(self) -> frozenset[str]:
        """Names of the new lesions that are there."""
        return frozenset(name for name, value in self.measured.items() if value > 0) | frozenset(self.others)


@dataclass(frozen=True)
class ImmuneResponse:
    """One time point.

    Attributes:
        category: a key of :data:`IMMUNE_CATEGORIES`, or "baseline". reason: one sentence on which rule decided.
        new_sum_mm: sum of the measured new lesions in mm, apart from the targets' sum; None where there are none.
    """

    category: str
    reason: str
    new_sum_mm: float | None = None


@dataclass
class _Pending:
    """An unconfirmed progression that waits for the next visit.

    Attributes:
        at: the visit that the next one is compared with. causes: kinds of lesions that have progressed so far.
        response, new: of that visit; the last complete sum, where its own is not.
    """

    at: int
    causes: set[str]
    response: Response
    new: NewLesions


def assess_immune_response(
    responses: Sequence[Response],
    new_lesions: Sequence[NewLesions] = (),
    dates: Sequence[datetime.date | None] = (),
) -> list[ImmuneResponse]:
    """iRECIST category at every time point.

    Args:
        responses: RECIST 1.1 of the same time points, the baseline first (:func:`assess_response`).
        new_lesions: per time point; missing entries: none were found.
        dates: per time point; None or missing where not known, then the interval is not checked, and said.

    Raises:
        InputError: a negative diameter of a new lesion, or dates that run backwards.
    """
    news = [*new_lesions, *[NewLesions()] * (len(responses) - len(new_lesions))]
    days = [*dates, *[None] * (len(responses) - len(dates))]
    _check(news, days)
    found: list[ImmuneResponse] = []
    pending: _Pending | None = None
    confirmed_at = None
    for number, (response, new) in enumerate(zip(responses, news, strict=False)):
        total = sum(new.measured.values()) if new.measured else None
        if response.category == BASELINE:
            found.append(ImmuneResponse(BASELINE, response.reason))
            continue
        if confirmed_at is not None:
            found.append(ImmuneResponse(CONFIRMED, f"Progression was confirmed at time point {confirmed_at}.", total))
            continue
        causes = _causes(response, new)
        interval = None if pending is None else _interval(days, pending.at, number)
        if pending is not None and (causes or new.non_targets_grew):
            category, reason = _again(pending, causes, response, new, interval)
        elif causes:
            category = UNCONFIRMED
            reason = f"First progression, by {_joined(causes)}; the visit in 4 to 8 weeks confirms it or not."
        else:
            category, reason = _without_progress(response, pending)
        if category == CONFIRMED:
            confirmed_at = number
        elif category == UNCONFIRMED:
            pending = _pending(pending, number, causes, response, new, interval)
        elif category != "NE":
            pending = None
        found.append(ImmuneResponse(category, reason, total))
    return found


def _pending(
    before: _Pending | None,
    number: int,
    causes: set[str],
    response: Response,
    new: NewLesions,
    interval: datetime.timedelta | None,
) -> _Pending:
    """What waits for the visit after an iUPD."""
    if before is None:
        return _Pending(number, causes, response, new)
    if interval is not None and interval < EARLIEST:
        # Too early to confirm anything: the next visit is still compared with the one before.
        return before
    return _Pending(number, before.causes | causes, response if response.sum_mm is not None else before.response, new)


def _causes(response: Response, new: NewLesions) -> set[str]:
    """Kinds of lesions that are progressive at a visit by RECIST 1.1."""
    causes = set()
    if response.target == "PD" or response.came_back:
        causes.add(TARGETS)
    if response.non_target == "PD":
        causes.add(NON_TARGETS)
    if new.present or response.new_lesion:
        causes.add(NEW)
    return causes


def _again(
    pending: _Pending, causes: set[str], response: Response, new: NewLesions, interval: datetime.timedelta | None
) -> tuple[str, str]:
    """Category and rule of a visit with progression after an unconfirmed one."""
    why = _confirmation(pending, causes, response, new)
    if why is None and not causes:
        return _without_progress(response, pending)
    if why is None:
        return UNCONFIRMED, f"Still progressive by {_joined(causes)}, but not further: it stays unconfirmed (table 2)."
    if interval is None:
        return CONFIRMED, f"{why} The dates are not known, the interval of 4 to 8 weeks was not checked."
    if interval < EARLIEST:
        return UNCONFIRMED, f"{why} Only {interval.days} days have passed, at least four weeks are asked for."
    if interval > LATEST:
        return CONFIRMED, f"{why} It was seen after {interval.days} days, later than the eight weeks asked for."
    return CONFIRMED, why


def _confirmation(pending: _Pending, causes: set[str], response: Response, new: NewLesions) -> str | None:
    """The sentence on what confirms a pending progression, or None (table 2)."""
    before = pending.response
    fresh = causes - pending.causes
    if fresh:
        return f"Progression now also by {_joined(fresh)}, which had none: confirmed."
    if TARGETS in pending.causes and response.sum_mm is not None and before.sum_mm is not None:
        growth = response.sum_mm - before.sum_mm
        if growth >= GROWTH_MM - 1e-9:
            return f"The sum grew by a further {growth:.1f} mm, at least 5 mm: confirmed."
    if NON_TARGETS in pending.causes and new.non_targets_grew:
        return "The non-target lesions have grown further: confirmed."
    if NEW in pending.causes:
        more = new.present - pending.new.present
        if more:
            return f"More new lesions ({', '.join(sorted(more))}): confirmed."
        growth = sum(new.measured[name] - size for name, size in pending.new.measured.items() if name in new.measured)
        if growth >= GROWTH_MM - 1e-9:
            return f"The new lesions' sum grew by {growth:.1f} mm, at least 5 mm: confirmed."
        if new.others_grew:
            return "The unmeasured new lesions have grown: confirmed."
    return None


def _without_progress(response: Response, pending: _Pending | None) -> tuple[str, str]:
    category, reason = overall_response(response.target, response.non_target, False)
    category = _IMMUNE[category]
    if response.target and response.target == response.category:
        reason = response.reason
    if pending is not None and category == "NE":
        return category, f"{reason} The unconfirmed progression stays open."
    if pending is not None:
        return category, f"{reason} The unconfirmed progression is reset; a later one begins as iUPD again."
    return category, reason


def _interval(days: Sequence[datetime.date | None], since: int, number: int) -> datetime.timedelta | None:
    first, last = days[since], days[number]
    return None if first is None or last is None else last - first


def _joined(causes: set[str]) -> str:
    return " and ".join(cause for cause in (TARGETS, NON_TARGETS, NEW) if cause in causes)


def _check(news: Sequence[NewLesions], days: Sequence[datetime.date | None]) -> None:
    for number, new in enumerate(news):
        for name, value in new.measured.items():
            if not 0 <= value < float("inf"):
                raise InputError(f"The diameter of {name} at time point {number} is {value:g}; give mm, 0 or more.")
    known = [(number, day) for number, day in enumerate(days) if day is not None]
    for (first, day), (second, later) in zip(known, known[1:], strict=False):
        if later < day:
            raise InputError(
                f"Time point {second} is dated {later}, before time point {first} ({day}); correct the dates."
            )

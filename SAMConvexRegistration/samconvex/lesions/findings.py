"""What tracking says of a lesion in a follow-up."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..space.volume import Volume
from .course import GROWN, MERGED, SHRUNK, SPLIT, UNCHANGED
from .lesion import Lesion
from .measurement import Measurement
from .precision import ExpectedError

# States in which the lesion is there.
PRESENT = (UNCHANGED, GROWN, SHRUNK, MERGED, SPLIT)


@dataclass(frozen=True)
class Finding:
    """One lesion in one follow-up. Frame: LPS mm of the follow-up.

    Attributes:
        lesion: its name. follow_up: number of the follow-up, from 0.
        state: proposed: "unchanged", "grown", "shrunk", "merged", "split" (it is there), "gone" (its place is seen, and
            nothing stands out there), "not found" (the place or what is there is not sure) or "outside".
        position: (3,); NaN where it is outside.
        score: in [0, 1], how surely the lesion is there; 0 where it is outside.
        cycle_mm: distance between the lesion and where its place leads back to; infinite without a match.
        error90_mm: nine of ten lesions with such a score lie nearer to ``position``; NaN where it is outside.
        loop_mm: from the place that the follow-up before leads to, to the place straight from the baseline; NaN where
            there is none.
        carried: the baseline contour carried to the follow-up's grid, cropped to the neighborhood and subdivided where
            voxels are coarse; None for a point.
        suggested: suggested follow-up contour on the same grid; None for a point, or where nothing was found.
        measurement: of the suggested contour; of a lesion that has split the sum over its fragments, with the lines
            of the largest.
        error: expected error of the measurement.
        fragments: of a lesion that has split, the largest first: the measurement and the centroid (3,) of each.
        reason: one sentence on every doubt, on what it has merged with or how it has split, else empty.
        merged_with: names of the baseline's lesions that it has grown together with; the first of them, in the order
            of the baseline, holds the contour and the measurement of all, the others have none.
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
    merged_with: tuple[str, ...] = ()
    error: ExpectedError | None = None
    fragments: tuple[tuple[Measurement, np.ndarray], ...] = ()
    error90_mm: float = float("nan")
    loop_mm: float = float("nan")

    @property
    def found(self) -> bool:
        """Whether the lesion is there."""
        return self.state in PRESENT

    def to_dict(self) -> dict:
        """Plain values for JSON; no position where the lesion is not in the field of view."""
        record: dict = {
            "follow_up": self.follow_up,
            "state": self.state,
            "found": self.found,
            "score": round(self.score, 4),
        }
        for key, digits in (("cycle_mm", 2), ("error90_mm", 1), ("loop_mm", 2)):
            if np.isfinite(getattr(self, key)):
                record[key] = round(getattr(self, key), digits)
        if np.isfinite(self.position).all():
            record["position"] = np.round(self.position, 3).tolist()
        if self.reason:
            record["reason"] = self.reason
        if self.merged_with:
            record["merged_with"] = list(self.merged_with)
        if self.measurement is not None:
            record["measurement"] = measured(self.measurement, self.error)
        if self.fragments:
            record["fragments"] = [
                {"position": np.round(place, 3).tolist(), **size.to_dict()} for size, place in self.fragments
            ]
        return record


def measured(measurement: Measurement, error: ExpectedError | None) -> dict:
    """A measurement and its expected error as plain values."""
    return {**measurement.to_dict(), **({} if error is None else error.to_dict())}


@dataclass(frozen=True)
class TrackingResult:
    """What :func:`track_lesions` returns.

    Attributes:
        lesions: the baseline lesions.
        findings: one per lesion and follow-up, follow-up by follow-up.
        baseline: the measurement of each lesion's segment, or of the contour found in its box or at its diameters;
            None for points, and for lesions that lie outside the baseline.
        sources: names of the baseline and the follow-ups.
        errors: the expected errors of ``baseline``.
    """

    lesions: tuple[Lesion, ...]
    findings: tuple[Finding, ...]
    baseline: dict[str, Measurement | None]
    sources: tuple[str, ...]
    errors: dict[str, ExpectedError] = field(default_factory=dict)

    def of(self, lesion: str) -> list[Finding]:
        """The findings of one lesion in the order of the follow-ups."""
        return [finding for finding in self.findings if finding.lesion == lesion]

    def to_dict(self) -> dict:
        """Plain values for JSON: lesions, each with its time points."""
        lesions = []
        for lesion in self.lesions:
            record: dict = {"name": lesion.name, "point": np.round(lesion.point, 3).tolist()}
            if lesion.note:
                record["note"] = lesion.note
            measurement = self.baseline.get(lesion.name)
            if measurement is not None:
                record["measurement"] = measured(measurement, self.errors.get(lesion.name))
            record["timepoints"] = [finding.to_dict() for finding in self.of(lesion.name)]
            lesions.append(record)
        return {"baseline": self.sources[0], "follow_ups": list(self.sources[1:]), "lesions": lesions}

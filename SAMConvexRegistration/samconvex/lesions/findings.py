"""What tracking says of a lesion in a follow-up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..space.volume import Volume
from .lesion import Lesion
from .measurement import Measurement

FOUND = "found"
UNCERTAIN = "uncertain"
NOT_IN_VIEW = "not in the field of view"


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
        reason: one sentence on why the state is not "found", or on what it has merged with, else empty.
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
        if self.merged_with:
            record["merged_with"] = list(self.merged_with)
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
            if lesion.note:
                record["note"] = lesion.note
            measurement = self.baseline.get(lesion.name)
            if measurement is not None:
                record["measurement"] = measurement.to_dict()
            record["timepoints"] = [finding.to_dict() for finding in self.of(lesion.name)]
            lesions.append(record)
        return {"baseline": self.sources[0], "follow_ups": list(self.sources[1:]), "lesions": lesions}

"""Two runs of the same registration compared: the maps in millimeters, the warped images, and every figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..io.images import read_volume
from ..space.grid import Grid
from ..space.transforms import Transform
from .metrics import summary

# What a report holds beside the result: when, where, how long, and what was asked.
_CIRCUMSTANCES = {
    "date",
    "device",
    "environment",
    "inputs",
    "options",
    "outputs",
    "peak_memory_mib",
    "seconds",
    "threads",
    "version",
    "warnings",
    "weights",
}
_LATTICE_MM = 8.0
# A figure that is not in mm agrees within this share of itself, and this much where it is small.
_RELATIVE, _ABSOLUTE = 0.02, 0.02


@dataclass(frozen=True)
class Comparison:
    """What differs between an earlier run and a new one.

    Attributes:
        map_mm, inverse_mm: mean, median, p95 and max distance of mapped points of the fixed image; None where the
            earlier file is missing.
        warped: largest difference in the warped image's units, and the share of voxels that differ, percent; None
            where the earlier file is missing.
        figures: (name, earlier, new) of every figure that is not the same, in the order of the report.
        compared: how many figures there are.
    """

    map_mm: dict[str, float] | None
    inverse_mm: dict[str, float] | None
    warped: tuple[float, float] | None
    figures: list[tuple[str, Any, Any]] = field(default_factory=list)
    compared: int = 0

    @property
    def identical(self) -> bool:
        """True where map, inverse, warped image and every figure are the same to the last bit."""
        apart = [part["max"] for part in (self.map_mm, self.inverse_mm) if part is not None]
        return not any(apart) and not (self.warped and self.warped[0]) and not self.figures

    @property
    def map_max_mm(self) -> float:
        """Largest distance between the two maps, mm; 0 where no map could be compared."""
        return max([part["max"] for part in (self.map_mm, self.inverse_mm) if part is not None], default=0.0)

    def beyond(self, tolerance_mm: float) -> list[tuple[str, Any, Any]]:
        """The figures that differ by more than ``tolerance_mm``, or than a fiftieth where they are not in mm."""
        return [(name, then, now) for name, then, now in self.figures if not _near(name, then, now, tolerance_mm)]


def compared(earlier: Path, new: Path, reports: tuple[Mapping[str, Any], Mapping[str, Any]], fixed: Grid) -> Comparison:
    """Compare the results in two folders.

    Args:
        reports: the reports of the earlier and of the new run.
        fixed: grid of the fixed image.

    Raises:
        InputError: a result of the earlier run cannot be read.
    """
    lattice = fixed.canonical(_LATTICE_MM)
    points = lattice.voxel_centers().reshape(-1, 3).numpy().astype(float)
    points = points[fixed.contains(points)]
    names = [name for name in ("transform.h5", "inverse.h5") if (earlier / name).is_file()]
    apart = {name: _apart(earlier / name, new / name, fixed, points) for name in names}
    then, now = (dict(_leaves(report)) for report in reports)
    differing = [
        (name, then.get(name), now.get(name))
        for name in [*then, *(name for name in now if name not in then)]
        if then.get(name) != now.get(name)
    ]
    return Comparison(
        apart.get("transform.h5"), apart.get("inverse.h5"), _warped(earlier, new), differing, len({*then, *now})
    )


def _apart(earlier: Path, new: Path, fixed: Grid, points: np.ndarray) -> dict[str, float]:
    first, second = (Transform.load(path, fixed).map_points(points) for path in (earlier, new))
    return summary(np.linalg.norm(first - second, axis=1))


def _warped(earlier: Path, new: Path) -> tuple[float, float] | None:
    name = "warped.nii.gz"
    if not (earlier / name).is_file():
        return None
    first, second = (read_volume(folder / name) for folder in (earlier, new))
    if first.grid.size != second.grid.size:
        return float("inf"), 100.0
    difference = (first.tensor.double() - second.tensor.double()).abs()
    return float(difference.max()), 100 * float((difference > 0).double().mean())


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a report that belongs to the result."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if name or key not in _CIRCUMSTANCES:
                yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{name}.{number}")
    else:
        yield name, value


def _near(name: str, then: Any, now: Any, tolerance_mm: float) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (then, now))
    if not numbers:
        return False
    allowed = tolerance_mm if "_mm" in name else max(_ABSOLUTE, _RELATIVE * abs(then))
    return abs(then - now) <= allowed

"""Expected error of a lesion's diameters and volume, from the image's voxels, its slices and the contour.

Three things are not known of a size that was read from an image:

- where within a voxel either end of a diameter lies: uniform over the in-plane spacing s, variance s^2 / 12 an end;
- how far the slice with the longest diameter lies from the lesion's middle: uniform over half the slice distance h to
  either side, by which a ball of diameter D appears h^2 / (6 D) too small on average (the mean sagitta of its chord);
- where a reader or the contour suggested here puts a blurred border: CONTOUR_MM an end (one standard deviation; between
  readers it is larger).

Independent, they add in squares. The volume's error is that of a border misplaced everywhere by the same length, times
the surface of a ball of that volume, where the border along the body is uncertain by the slices (h^2 / 12).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..space.grid import Grid
from .measurement import Measurement

CONTOUR_MM = 0.6


@dataclass(frozen=True)
class ExpectedError:
    """One standard deviation of what a lesion measures: mm, mm, ml."""

    longest_mm: float
    short_axis_mm: float
    volume_ml: float

    def added(self, others: Iterable[ExpectedError]) -> ExpectedError:
        """The error of a sum whose parts are measured apart."""
        every = np.array([[one.longest_mm, one.short_axis_mm, one.volume_ml] for one in (self, *others)])
        return ExpectedError(*np.sqrt((every**2).sum(0)).tolist())

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {
            "longest_error_mm": round(self.longest_mm, 2),
            "short_axis_error_mm": round(self.short_axis_mm, 2),
            "volume_error_ml": round(self.volume_ml, 4),
        }


def expected_error(measured: Measurement, image: Grid) -> ExpectedError:
    """The expected error of a measurement in an image.

    Args:
        measured: diameters in the image's axial slices. image: the grid that the lesion was seen on, mm.
    """
    plane, slices = _spacings(image)
    ball = (6000.0 * measured.volume_ml / np.pi) ** (1 / 3)
    surface = np.pi * ball**2
    # The slices blur the border along one of three axes.
    border = np.sqrt(CONTOUR_MM**2 + (2 * plane**2 + slices**2) / 3 / 12)
    return ExpectedError(
        _diameter_error(measured.longest_mm, plane, slices),
        _diameter_error(measured.short_axis_mm, plane, slices),
        float(surface * border) / 1000.0,
    )


def _diameter_error(diameter: float, plane: float, slices: float) -> float:
    sagitta = slices**2 / (6 * max(diameter, slices))
    return float(np.sqrt(2 * plane**2 / 12 + 2 * CONTOUR_MM**2 + sagitta**2))


def _spacings(image: Grid) -> tuple[float, float]:
    """In-plane spacing and slice distance, mm; slices are those of the axis nearest to the patient's head-foot axis."""
    normal = int(np.argmax(np.abs(np.reshape(image.direction, (3, 3))[2])))
    spacing = np.asarray(image.spacing, dtype=float)
    return float(np.delete(spacing, normal).max()), float(spacing[normal])

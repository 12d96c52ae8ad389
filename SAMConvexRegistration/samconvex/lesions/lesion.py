"""A lesion of the baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..space.grid import as_points
from ..space.volume import Volume
from .measurement import centroid, trimmed


@dataclass(frozen=True)
class Lesion:
    """One lesion of the baseline. Frame: LPS mm.

    Attributes:
        name: how results call it; unique among the lesions of a run.
        point: (3,) in the lesion; the centroid of a segment, box or diameter.
        mask: binary label volume on any grid, where the lesion came as a segment.
        box: (2, 3) opposite corners, where it came as a box or ROI.
        diameters: (K, 2, 3) measured lines, end points.
        note: what reading noticed, one sentence or empty.
    """

    name: str
    point: np.ndarray
    mask: Volume | None = None
    box: np.ndarray | None = None
    diameters: np.ndarray | None = None
    note: str = ""

    @classmethod
    def from_mask(cls, name: str, mask: Volume) -> Lesion:
        """A lesion by its segment.

        Raises:
            InputError: the mask is empty.
        """
        cut = trimmed(mask)
        if cut is None:
            raise InputError(f"The segment of {name} is empty; draw it, or leave the lesion out.")
        return cls(name, centroid(cut), mask=cut)

    @classmethod
    def from_box(cls, name: str, box: np.ndarray) -> Lesion:
        """A lesion by opposite corners (2, 3) of a box around it.

        Raises:
            InputError: the box has no extent.
        """
        box = np.sort(as_points(box), axis=0)
        if box.shape != (2, 3) or not np.isfinite(box).all() or (box[1] - box[0]).min() < 0.5:
            raise InputError(f"The box of {name} has no extent; draw it around the lesion.")
        return cls(name, box.mean(0), box=box)

    @classmethod
    def from_diameters(cls, name: str, lines: np.ndarray) -> Lesion:
        """A lesion by measured lines (K, 2, 3), the longest diameter among them.

        Raises:
            InputError: a line has no length.
        """
        lines = np.asarray(lines, dtype=float).reshape(-1, 2, 3)
        length = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1)
        if not len(lines) or not np.isfinite(lines).all() or length.min() < 0.5:
            raise InputError(f"A diameter of {name} has no length; measure it again.")
        return cls(name, lines[int(length.argmax())].mean(0), diameters=lines)

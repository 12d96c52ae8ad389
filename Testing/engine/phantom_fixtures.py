"""A quick registration of phantoms, and how far its result is from the known motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from samconvex.settings.presets import PRESETS
from samconvex.settings.registration import Level
from samconvex.space.transforms import Transform

# Coarser than any preset, so that a registration of a 6 mm phantom takes about a second.
QUICK = replace(
    PRESETS["ct-lung-breathing"],
    name="quick",
    affine="none",
    levels=(Level(16.0, 2, 2), Level(8.0, 2, 2)),
    refine="none",
    working_spacing=4.0,
    field_spacing=8.0,
)


def error(transform: Transform, truth, points: np.ndarray) -> float:
    return float(np.linalg.norm(transform.map_points(points) - truth.map_points(points), axis=1).mean())

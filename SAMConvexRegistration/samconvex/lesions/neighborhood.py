"""The neighborhood of a lesion, registered by itself."""

from __future__ import annotations

import numpy as np
import torch

from ..align.consensus import reweighted_affine
from ..align.pairs import PointPairs
from ..anatomy.embedding import SamEmbedding
from ..deform.folding import without_folds
from ..deform.pyramid import run_pyramid
from ..deform.scene import Scene
from ..features.mind import Mind
from ..settings.registration import Level
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.intensity import ct_window, normalized_intensity
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume, average_to, resample
from .baseline import Baseline
from .contour import on_neighborhood
from .patches import crop

NEIGHBORHOOD_MM = 40.0
REACH_MM = 24.0
_LEVELS = (Level(8.0, 3), Level(4.0, 2), Level(3.0, 1))
_COUPLING = 0.06


def local_guide(guide: AffineTransform, pairs: PointPairs | None, point: np.ndarray) -> AffineTransform:
    """The affine map that the matched anatomy around a point agrees on."""
    if pairs is None or len(pairs) < 12:
        return guide
    distance = np.linalg.norm(pairs.fixed - point, axis=1)
    width = max(35.0, float(np.sort(distance)[min(24, len(distance) - 1)]))
    weighted = PointPairs(pairs.fixed, pairs.moving, pairs.score * np.exp(-((distance / width) ** 2)))
    return reweighted_affine(weighted, guide, stiffness_mm=60.0)


def register_neighborhood(
    baseline: Volume,
    template: SamEmbedding,
    entry: Baseline,
    follow_up: Volume,
    place: np.ndarray,
    start: AffineTransform,
) -> tuple[Transform, Transform]:
    """Maps of baseline points to follow-up points and back around a lesion, the lesion itself left out."""
    point = entry.lesion.point
    fixed = crop(baseline, point, NEIGHBORHOOD_MM + 4.0)
    moving = crop(follow_up, place, NEIGHBORHOOD_MM + REACH_MM)
    if fixed is None or moving is None:
        maps = Transform((start,))
        return maps, maps.inverse()
    box = np.stack(
        [
            np.maximum(point - NEIGHBORHOOD_MM, baseline.grid.corners().min(0)),
            np.minimum(point + NEIGHBORHOOD_MM, baseline.grid.corners().max(0)),
        ]
    )
    scene = Scene(
        fixed=_windowed(fixed, baseline),
        moving=_windowed(moving, follow_up),
        initial=Transform((start,)),
        box=box,
        fixed_mask=_surroundings(template, entry, Grid.covering(box, 2.0)),
    )
    mind = Mind()
    deformation = run_pyramid(scene, lambda name: mind, _LEVELS, coupling=_COUPLING)
    grid = Grid.covering(deformation.grid.corners(), 3.0, margin_mm=REACH_MM)
    deformation = without_folds(deformation.embedded(grid, REACH_MM))
    inverse: DisplacementField = deformation.inverse()
    forward = Transform((deformation, start))
    return forward, Transform((start.inverse(), inverse))


def _windowed(part: Volume, whole: Volume) -> Volume:
    """A crop averaged to 2 mm, in [0, 1]; a crop of soft tissue does not look like CT by itself."""
    part = average_to(part, 2.0)
    return part.with_tensor(ct_window(part.tensor) if whole.modality == "ct" else normalized_intensity(part))


def _surroundings(template: SamEmbedding, entry: Baseline, grid: Grid) -> Volume:
    """The body without the lesion and a rim around it, float on ``grid``."""
    body = Volume(template.body.float()[None, None].cpu(), template.fine.grid)
    weight = resample(body, grid, fill=0.0).tensor
    lesion = on_neighborhood(entry.contour, grid, 0.0).tensor
    rim = torch.nn.functional.max_pool3d((lesion > 0.2).float(), 5, 1, 2)
    return Volume(weight * (1 - rim), grid)

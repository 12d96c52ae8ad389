"""The expected error of a registration in millimeters, place by place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..deform.uncertainty import ANATOMY, COARSE_STRUCTURE, ORGANS, STRUCTURE, Evidence, Probe, evidence_of
from ..progress import stage
from ..settings.features import networks_of
from ..space.field import DisplacementField
from ..space.grid import Grid, as_points
from ..space.sampling import sample
from ..space.transforms import Transform
from ..space.volume import Volume
from ..weights.models import load_sam, weights_for
from .error_model import calibration_for, is_coarse
from .features import Extractors, not_for
from .prepare import Prepared
from .regions import Regions
from .run import Run
from .solve import scene_of

# What no evidence can tell apart.
_LEAST_MM, _MOST_MM = 0.1, 500.0


@dataclass(frozen=True)
class ExpectedError:
    """How far a registration may be off.

    Attributes:
        bound: float32 mm on the field's grid in the fixed space; nine of ten errors are below it.
        family: the kind of presets whose calibration it has.
        own: the preset itself was calibrated, not only its like.
    """

    bound: Volume
    family: str
    own: bool

    def scaled(self, factor: float) -> ExpectedError:
        """The same where every length is multiplied by ``factor``."""
        return replace(
            self, bound=replace(self.bound, tensor=self.bound.tensor * factor, grid=self.bound.grid.scaled(factor))
        )


def error_at(bound: Volume, points: np.ndarray) -> np.ndarray:
    """(N,) mm: the bound at (N, 3) LPS mm of the fixed space; beyond its grid that of the nearest place."""
    points = as_points(points)
    relative = torch.as_tensor(points - bound.grid.center, dtype=torch.float64)
    return (
        sample(bound.tensor.double(), bound.grid, relative[None, None], reference=bound.grid.center).flatten().numpy()
    )


def summarized(expected: ExpectedError, body: Volume) -> dict:
    """For the report: the bound inside the body, and whose calibration it has."""
    points = body.points()
    bounds = error_at(expected.bound, points[:: max(1, len(points) // 20_000)])
    figures = {"median": np.median(bounds), "p90": np.percentile(bounds, 90), "max": bounds.max()}
    return {**figures, "family": expected.family, "own_calibration": expected.own}


def expected_error(
    run: Run, images: Prepared, initial: Transform, forward: Transform, regions: Regions, device: torch.device
) -> ExpectedError:
    """The 90 % bound of the error of ``forward``, the whole map, on the grid of its field."""
    evidence = gathered(run, images, initial, forward, regions, device)
    calibration = calibration_for(run.settings, evidence.maps)
    bound = calibration.model.bound(evidence.maps).clamp(_LEAST_MM, _MOST_MM)
    field = _field(forward)
    grid = _linear_grid(images.fixed, run.settings.field_spacing) if field is None else field.grid
    points = grid.voxel_centers(reference=grid.center)
    volume = Volume(sample(bound, evidence.grid, points, reference=grid.center), grid)
    return ExpectedError(volume, calibration.family, calibration.own)


def gathered(
    run: Run, images: Prepared, initial: Transform, forward: Transform, regions: Regions, device: torch.device
) -> Evidence:
    """The evidence around ``forward``: by structure, and by the networks that the run asks anyway."""
    scene = scene_of(run, images, initial, regions, device)
    field = _field(forward)
    if field is not None:
        field = DisplacementField(field.tensor.to(device), field.grid)
    extractor = Extractors(
        scene, images.work.fixed, images.work.moving, run.options.weights, STRUCTURE.spacing, device, run.progress
    )
    return evidence_of(scene, extractor, field, _probes(run, images), stage(run.progress, "error"))


def _probes(run: Run, images: Prepared) -> tuple[Probe, ...]:
    settings, pair = run.settings, (images.work.fixed, images.work.moving)
    used = networks_of(settings.compared)
    probes = [COARSE_STRUCTURE if is_coarse(settings) else STRUCTURE]
    if settings.affine == "sam" or "sam" in used:
        model = load_sam(weights_for("sam", run.options.weights))
        if not_for(model, *pair) is None:
            probes.append(ANATOMY)
    if "semantic" in used and not_for(None, *pair) is None:
        probes.append(ORGANS)
    return tuple(probes)


def _field(forward: Transform) -> DisplacementField | None:
    """The deformation, which acts first."""
    first = forward.parts[0] if forward.parts else None
    return first if isinstance(first, DisplacementField) else None


def _linear_grid(fixed: Volume, spacing: float) -> Grid:
    return Grid.covering(fixed.grid.corners(), spacing, margin_mm=2 * spacing)

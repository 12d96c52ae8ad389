"""SAM-coarse of SAME (Liu et al., 2021): a coarse free field through points that embeddings match."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..anatomy.embedding import SamEmbedding
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.sampling import interpolate
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume
from .pairs import matched_pairs

# A sixteenth of an image of 2 mm.
SPACING_MM = 32.0
SMOOTHNESS = 0.04
ITERATIONS = 200
STEP_MM = 1.0
FEWEST_PAIRS = 12


def sam_coarse(
    fixed: SamEmbedding,
    moving: SamEmbedding,
    initial: Transform,
    box: np.ndarray,
    *,
    masks: tuple[Volume | None, Volume | None] = (None, None),
    least_share: float = 0.0,
    report: Callable[[float], None] = lambda fraction: None,
) -> DisplacementField | None:
    """The field before ``initial`` that brings matched points together; None where too few match.

    Adam on the displacements of a coarse grid: mean squared distance of the points plus the mean squared difference of
    neighbors.

    Args:
        initial: maps fixed to moving points.
        box: (2, 3) opposite corners, LPS mm, of the region of the fixed image.
        masks: of both images; only points inside count.
        least_share: of the points that ``initial`` maps into the other image, how many must agree with their neighbors.
        report: receives the finished fraction; may raise Cancelled.
    """
    near = initial.parts[0] if len(initial.parts) == 1 else None
    linear = near if isinstance(near, AffineTransform) else None
    pairs, tried = matched_pairs(fixed, moving, *masks, lambda f: report(0.7 * f), near=linear)
    if len(pairs) < max(FEWEST_PAIRS, least_share * tried):
        return None
    wanted = initial.inverse().map_points(pairs.moving) - pairs.fixed
    grid = Grid.covering(box, SPACING_MM)
    field = fitted(pairs.fixed, wanted, grid, lambda f: report(0.7 + 0.3 * f))
    return DisplacementField(field.to(fixed.device), grid)


def fitted(
    points: np.ndarray, wanted: np.ndarray, grid: Grid, report: Callable[[float], None] = lambda fraction: None
) -> torch.Tensor:
    """(1, 3, D, H, W) mm on ``grid`` that displaces (N, 3) ``points`` about as ``wanted``, (N, 3) mm."""
    target = torch.as_tensor(wanted, dtype=torch.float32)
    relative = torch.as_tensor(points - grid.center, dtype=torch.float32)
    places = grid.normalized(relative[None, None], grid.center)
    parameters = torch.zeros(1, 3, *grid.shape, requires_grad=True)
    optimizer = torch.optim.Adam([parameters], lr=STEP_MM)
    for iteration in range(ITERATIONS):
        error = interpolate(parameters, places)[0, :, 0, 0].T - target
        steps = [parameters.diff(dim=axis).square().mean() for axis in (2, 3, 4) if parameters.shape[axis] > 1]
        loss = error.square().sum(1).mean() + SMOOTHNESS * torch.stack([*steps, parameters.new_zeros(())]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report((iteration + 1) / ITERATIONS)
    return parameters.detach()

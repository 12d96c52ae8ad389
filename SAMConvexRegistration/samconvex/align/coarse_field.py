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
) -> tuple[DisplacementField | None, float]:
    """The field before ``initial`` that brings matched points together, and the share of the points that agree.

    No field where too few match.

    Adam on the displacements of a coarse grid: mean squared distance of the points plus the mean squared difference of
    neighbors.

    Args:
        initial: maps fixed to moving points. Points are matched near it where it is linear, else anywhere.
        box: (2, 3) opposite corners, LPS mm, of the region of the fixed image.
        masks: of both images; only points inside count.
        least_share: of the points that are matched, how many must agree with their neighbors.
        report: receives the finished fraction; may raise Cancelled.
    """
    linear: AffineTransform | None = AffineTransform.identity()
    for part in initial.parts:
        linear = part.after(linear) if linear is not None and isinstance(part, AffineTransform) else None
    pairs, tried = matched_pairs(fixed, moving, *masks, lambda f: report(0.7 * f), near=linear)
    share = len(pairs) / max(tried, 1)
    if len(pairs) < FEWEST_PAIRS or share < least_share:
        return None, share
    wanted = initial.inverse().map_points(pairs.moving) - pairs.fixed
    grid = Grid.covering(box, SPACING_MM)
    field = fitted(pairs.fixed, wanted, grid, lambda f: report(0.7 + 0.3 * f))
    return DisplacementField(field.to(fixed.device), grid), share


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

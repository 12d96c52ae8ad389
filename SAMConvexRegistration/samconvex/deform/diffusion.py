"""Regularized Gauss-Newton descent with a diffusion prior, solved by multigrid; differentiable.

The update of SUITS (Blendowski et al., Medical Image Analysis 2020): linearizing the warped moving features R around
the current field u turns one descent step into a sparse symmetric positive definite system for the increment d,

    (sum_c w grad R_c grad R_c^T + regularization L) d = -sum_c w (R_c - F_c) grad R_c - regularization L u,

three unknowns per voxel, L the six-neighbor Laplacian that acts on each component. Everything is in millimeters, so
``regularization`` weighs squared displacement gradients (mm per mm) against squared feature differences, whatever the
grid. The matrix is never stored: conjugate gradients with one geometric multigrid V-cycle as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from ..settings.registration import DiffusionSettings
from ..space.field import DisplacementField
from ..space.filters import smooth
from ..space.grid import Grid
from ..space.sampling import interpolate
from ..space.totals import total
from ..space.volume import FeatureMap
from .multigrid import ENTRIES, laplacian, solve


class Linearization:
    """Features of a pair, ready to be compared and linearized at any displacement; differentiable in the features.

    Args:
        fixed: (1, C, D, H, W) on ``grid``.
        moving: features in the same frame on an identity-direction grid of the same spacing that may reach further.
        weight: (1, 1, D, H, W) how much each voxel counts.
        grid: of the displacement and the fixed features.
    """

    def __init__(self, fixed: torch.Tensor, moving: FeatureMap, weight: torch.Tensor, grid: Grid) -> None:
        self.fixed, self.weight, self.grid = fixed, weight, grid
        self._moving = moving.tensor
        # Linear interpolation of central differences is the central difference of linear interpolation.
        slopes = [_central(moving.tensor, axis, moving.grid.spacing[4 - axis]) for axis in (4, 3, 2)]
        self._with_slopes = torch.cat([moving.tensor, *slopes], 1)
        points = grid.voxel_centers(reference=grid.center, device=fixed.device)
        self._places = moving.grid.normalized(points, grid.center).to(fixed.dtype)
        extent = [s * max(n - 1, 1) for s, n in zip(moving.grid.spacing, moving.grid.size, strict=True)]
        self._scale = 2 / torch.tensor(extent, device=fixed.device, dtype=fixed.dtype)

    def _at(self, values: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return interpolate(values, self._places + u[0].permute(1, 2, 3, 0) * self._scale)

    def distance(self, u: torch.Tensor) -> float:
        """Half the weighted squared feature difference at the displacement (1, 3, D, H, W)."""
        difference = self._at(self._moving, u) - self.fixed
        return 0.5 * float(total(difference.square().sum(1, keepdim=True) * self.weight))

    def system(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Data blocks (1, 6, D, H, W) and the data part of the right side (1, 3, D, H, W) at ``u``."""
        values = self._at(self._with_slopes, u)
        count = self.fixed.shape[1]
        difference = values[:, :count] - self.fixed
        slopes = values[:, count:].view(1, 3, count, *u.shape[2:])
        blocks = torch.stack([(slopes[:, a] * slopes[:, b]).sum(1) for a, b in ENTRIES], 1)
        right = -(slopes * difference[:, None]).sum(2)
        return blocks * self.weight, right * self.weight


def increment(
    pair: Linearization,
    u: torch.Tensor,
    regularization: float,
    *,
    warped: bool = False,
    tolerance: float = 1e-3,
    report: Callable[[], None] | None = None,
) -> torch.Tensor:
    """One Gauss-Newton step from ``u`` (1, 3, D, H, W) mm; differentiable in the pair's features.

    Args:
        warped: the pair's moving features are those of the image already warped by ``u``.
    """
    blocks, right = pair.system(torch.zeros_like(u) if warped else u)
    spacing = pair.grid.spacing
    right = right - laplacian(u, spacing, regularization)
    return solve(blocks, right, spacing, regularization, tolerance=tolerance, report=report)


def roughness(u: torch.Tensor, spacing: Sequence[float], regularization: float) -> float:
    """Half of ``regularization`` times the sum of squared displacement gradients, mm per mm."""
    terms = (total((u.diff(dim=axis) / spacing[4 - axis]).square()) for axis in (2, 3, 4))
    return 0.5 * regularization * float(sum(terms))


@torch.no_grad()
def descend(
    field: DisplacementField,
    fixed: FeatureMap,
    moving: FeatureMap,
    weight: torch.Tensor,
    settings: DiffusionSettings,
    *,
    grid: Grid,
    report: Callable[[float], None],
) -> DisplacementField:
    """Refine ``field`` by Gauss-Newton steps until the energy no longer falls.

    Args:
        field: start, on any identity-direction grid.
        fixed: features on ``grid``.
        moving: features in the same frame (initial transform applied), on a grid of the same spacing that may reach
            further.
        weight: (1, 1, D, H, W) on ``grid``.
        grid: grid of the result.
        report: receives the finished fraction; may raise Cancelled.
    """
    u = field.on_grid(grid, fill=None).tensor
    pair = Linearization(fixed.tensor, moving, weight, grid)
    strength = settings.regularization

    def energy(candidate: torch.Tensor) -> float:
        return pair.distance(candidate) + roughness(candidate, grid.spacing, strength)

    current = energy(u)
    for iteration in range(settings.iterations):
        done = iteration / settings.iterations
        direction = increment(pair, u, strength, tolerance=settings.tolerance, report=partial(report, done))
        share, best = settings.step, current
        for _ in range(4):
            found = energy(u + share * direction)
            if found < current:
                u, best = u + share * direction, found
                break
            share /= 2
        report((iteration + 1) / settings.iterations)
        if current - best <= settings.enough * current:
            break
        current = best
    report(1.0)
    return DisplacementField(u, grid)


@torch.no_grad()
def descend_anew(
    field: DisplacementField,
    fixed: torch.Tensor,
    moved: Callable[[torch.Tensor], torch.Tensor],
    weight: torch.Tensor,
    settings: DiffusionSettings,
    *,
    grid: Grid,
    report: Callable[[float], None] = lambda fraction: None,
) -> DisplacementField:
    """The descent as SUITS published it: before every step the moving image is warped and described anew.

    Args:
        field: start, on any identity-direction grid.
        fixed: (1, C, D, H, W) features on ``grid``.
        moved: gives the features on ``grid`` of the moving image warped by a displacement (1, 3, D, H, W) mm on
            ``grid``, spread to its voxels by :func:`quadratic_spline`.
        weight: (1, 1, D, H, W) on ``grid``.
        grid: of the displacement.
        report: receives the finished fraction; may raise Cancelled.

    Returns:
        The control field, whose :func:`quadratic_spline` is the map.
    """
    u = field.on_grid(grid, fill=None).tensor
    for iteration in range(settings.iterations):
        pair = Linearization(fixed, FeatureMap(moved(u), grid), weight, grid)
        done = partial(report, iteration / settings.iterations)
        u = u + settings.step * increment(
            pair, u, settings.regularization, warped=True, tolerance=settings.tolerance, report=done
        )
    report(1.0)
    return DisplacementField(u, grid)


def quadratic_spline(u: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A control field on ``shape`` voxels: linear, then the mean over 5^3 voxels, together a quadratic B-spline."""
    spread = F.interpolate(u, size=tuple(shape), mode="trilinear", align_corners=False)
    return smooth(spread, 1, radius=2)


def _central(values: torch.Tensor, axis: int, spacing: float) -> torch.Tensor:
    """Derivative per mm along ``axis``: central differences, one-sided at the border."""
    if values.shape[axis] == 1:
        return torch.zeros_like(values)
    return torch.gradient(values, spacing=spacing, dim=axis)[0]

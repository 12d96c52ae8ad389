"""Robust Gauss-Newton estimation of an affine map from dense features: score of a map, refinement of a map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..space.grid import Grid
from ..space.linear import limited, polar
from ..space.sampling import sample
from ..space.totals import total
from ..space.transforms import AffineTransform
from .translations import chance_level

# Standard deviations of the prior: shear and unequal stretch, uniform scale (log), rotation (rad). Patients differ
# mostly by scale and posture; chosen on head-neck CT pairs that are not used for evaluation.
PRIORS = {"affine": (0.06, 0.06, 0.35), "similarity": (1e-3, 0.06, 0.35), "rigid": (1e-3, 1e-3, 0.35)}
# Neighboring voxels repeat each other: the data count as this many independent observations per unit of noise.
INDEPENDENT_OBSERVATIONS = 300.0


class AffineProblem:
    """Feature vectors at points of the fixed body, to be found again in the moving feature image.

    Args:
        fixed, moving: (1, C, D, H, W) features on ``fixed_grid``, ``moving_grid``.
        fixed_region, moving_region: (1, 1, D, H, W) in [0, 1]: tissue that counts.
        points: how many fixed voxels to use at most (drawn with ``seed``).
        strictness: share of the chance level that counts as no agreement.
    """

    def __init__(
        self,
        fixed: torch.Tensor,
        fixed_region: torch.Tensor,
        fixed_grid: Grid,
        moving: torch.Tensor,
        moving_region: torch.Tensor,
        moving_grid: Grid,
        *,
        points: int,
        seed: int = 0,
        strictness: float = 0.9,
    ) -> None:
        index = torch.nonzero(fixed_region[0, 0] > 0.5)
        if len(index) > points:
            order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))[:points]
            index = index[order.sort().values.to(index.device)]
        self.fixed = fixed[0, :, index[:, 0], index[:, 1], index[:, 2]].T.contiguous()
        self.points = fixed_grid.voxels_to_points(index.cpu().numpy()[:, ::-1])
        self.moving = torch.cat([moving, moving_region], 1)
        self.grid = moving_grid
        self.chance = strictness * chance_level(fixed[0], fixed_region[0, 0], moving[0], moving_region[0, 0])
        self.center = self.points.mean(0)
        self.radius = float(np.sqrt(np.square(self.points - self.center).sum(1).mean()))
        volumes = [
            float(r.sum()) * float(np.prod(g.spacing))
            for r, g in ((fixed_region, fixed_grid), (moving_region, moving_grid))
        ]
        self.fixed_share = volumes[0] / max(min(volumes), 1e-6)

    def _sample(self, points: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(K, N, 3) LPS mm to moving features (K, N, C) and region (K, N)."""
        relative = torch.as_tensor((points - self.grid.center)[None], dtype=torch.float32, device=self.moving.device)
        values = sample(self.moving, self.grid, relative, reference=self.grid.center, fill=0.0)[0, :, 0]
        return values[:-1].permute(1, 2, 0), values[-1]

    def evaluate(self, transform: AffineTransform) -> dict[str, float]:
        """How well the map fits.

        Returns:
            gain: agreement better than chance, summed over the overlap, relative to the smaller body (at most 1);
            overlap: share of the smaller body that overlaps; inliers: share of the overlap that clearly agrees.
        """
        values, region = self._sample(transform.map_points(self.points)[None])
        squared = (values[0] - self.fixed).square().sum(1)
        overlap = float(total(region))
        inliers = float(total(region[0] * (squared < 0.5 * self.chance)))
        return {
            "gain": self._gain(squared, region[0]),
            "overlap": min(overlap / len(self.points) * self.fixed_share, 1.0),
            "inliers": inliers / max(overlap, 1e-6),
        }

    def _gain(self, squared: torch.Tensor, region: torch.Tensor) -> float:
        agreement = total(region * (self.chance - squared.clamp(max=1.5 * self.chance)))
        return float(agreement) / self.chance / len(self.points) * self.fixed_share

    def refine(
        self,
        start: AffineTransform,
        *,
        model: str = "affine",
        iterations: int = 15,
        report: Callable[[float], None] | None = None,
    ) -> AffineTransform:
        """Iteratively reweighted Gauss-Newton steps (Geman-McClure weights) with a prior toward similarity."""
        voxel = float(max(self.grid.spacing))
        half = 0.5 * float(min(self.grid.spacing))
        offsets = np.concatenate([np.zeros((1, 3)), np.eye(3) * half, -np.eye(3) * half])[:, None]
        local = torch.as_tensor((self.points - self.center) / self.radius, dtype=torch.float32)
        local = torch.cat([local, torch.ones(len(local), 1)], 1).to(self.moving.device)
        transform = start
        for step in range(iterations):
            if report is not None:
                report(step / iterations)
            values, region = self._sample(transform.map_points(self.points)[None] + offsets)
            if int((region[0] > 0.3).sum()) < 50:
                break
            residual = values[0] - self.fixed
            gradient = (values[1:4] - values[4:7]) / (2 * half)
            change = self._step(transform.matrix, residual, gradient, region[0], local, model)
            size = np.abs(change[:, 3]).max() + np.abs(change[:, :3]).max()
            change *= min(1.0, 3 * voxel / max(size, 1e-9))
            linear = change[:, :3] / self.radius
            shift = transform.map_points(self.center[None])[0] + change[:, 3]
            matrix = limited(transform.matrix + linear)
            transform = AffineTransform(matrix, shift - matrix @ self.center)
            if size < 0.01 * voxel:
                break
        matrix = limited(transform.matrix, model)
        return AffineTransform(matrix, transform.map_points(self.center[None])[0] - matrix @ self.center)

    def _step(
        self,
        matrix: np.ndarray,
        residual: torch.Tensor,
        gradient: torch.Tensor,
        region: torch.Tensor,
        local: torch.Tensor,
        model: str,
    ) -> np.ndarray:
        """(3, 4) change of the map in mm: columns x, y, z (at one body radius) and translation."""
        squared = residual.square().sum(1)
        scale = torch.quantile(squared[region > 0.3], 0.5).clamp(min=1e-6)
        weight = region * (scale / (scale + squared)).square()
        noise = (total(weight * squared) / total(weight).clamp(min=1e-6)).clamp(min=1e-5)
        share = INDEPENDENT_OBSERVATIONS / len(squared) / float(noise)
        normal = torch.einsum("anc,bnc->nab", gradient, gradient) * weight[:, None, None]
        slope = torch.einsum("anc,nc->na", gradient, residual) * weight[:, None]
        pairs = (local[:, :, None] * local[:, None]).flatten(1)
        products = (normal.flatten(1).T @ pairs).reshape(3, 3, 4, 4).permute(0, 2, 1, 3).reshape(12, 12)
        hessian = products.double().cpu().numpy() * share
        vector = (slope.T @ local).double().cpu().numpy().ravel() * share
        # The prior sees the nine matrix entries; its derivative by finite differences.
        prior = _prior_residual(matrix[None], model)[0]
        nudged = matrix + 1e-4 * np.eye(9).reshape(9, 3, 3)
        derivative = ((_prior_residual(nudged, model) - prior) / 1e-4).T / self.radius
        entries = [4 * row + column for row in range(3) for column in range(3)]
        hessian[np.ix_(entries, entries)] += derivative.T @ derivative
        vector[entries] += derivative.T @ prior
        hessian += np.diag(0.02 * np.diag(hessian) + 1e-9)
        return -np.linalg.solve(hessian, vector).reshape(3, 4)


def _prior_residual(matrices: np.ndarray, model: str) -> np.ndarray:
    """(K, 3, 3) to (K, 10): unequal stretch and shear (6), log scale (1), rotation (3), in standard deviations."""
    shear_sd, scale_sd, rotation_sd = PRIORS[model]
    rotation, stretch = polar(matrices)
    scale = np.trace(stretch, axis1=1, axis2=2) / 3
    deviator = stretch - scale[:, None, None] * np.eye(3)
    angle = np.stack([rotation[:, k, j] - rotation[:, j, k] for j, k in ((1, 2), (2, 0), (0, 1))], 1) / 2
    return np.concatenate(
        [
            deviator[:, [0, 1, 2], [0, 1, 2]] / shear_sd,
            deviator[:, [0, 0, 1], [1, 2, 2]] * np.sqrt(2) / shear_sd,
            np.log(np.maximum(scale, 1e-3))[:, None] / scale_sd,
            angle / rotation_sd,
        ],
        1,
    )

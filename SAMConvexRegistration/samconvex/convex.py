"""Coupled convex optimization of one pyramid level (Heinrich et al., MICCAI 2014; SAMConvex, section 2.2).

Alternates between the best candidate displacement near the current smooth field, v = argmin_d cost + c |d - u|^2, and
smoothing, u = box filters of v, while the coupling c grows. Distances are millimeters, so that a setting means the
same at every level and on anisotropic grids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .correlation import LocalCorrelation
from .field import smooth

COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def coupled_convex(
    correlation: LocalCorrelation,
    spacing: Sequence[float],
    *,
    coupling_per_mm2: float,
    box_passes: int = 2,
    weight: torch.Tensor | None = None,
    report: Callable[[float], None] | None = None,
) -> torch.Tensor:
    """Displacement that minimizes the correlation's cost under a smoothness prior.

    Args:
        correlation: costs on the control grid.
        spacing: control grid spacing x, y, z in mm.
        coupling_per_mm2: factor on the growing couplings ``COUPLINGS``, cost per squared millimeter.
        box_passes: 3^3 box filters after every pass; more is stiffer.
        weight: (1, 1, D, H, W) how much each voxel's own cost counts; the first smoothing spreads only what counts.
        report: receives the finished fraction; may raise Cancelled.

    Returns:
        (1, 3, D, H, W) displacement in LPS mm (identity-direction control grid), components x, y, z.
    """
    device = correlation.displacements().device
    candidates = correlation.displacements() * torch.as_tensor(spacing, dtype=torch.float32, device=device)
    # A tiny pull towards zero breaks ties (flat regions) in favor of no motion.
    length = candidates.square().sum(1)
    tie = 1e-6 * length / length.max().clamp(min=1e-6)
    u = torch.zeros(1, 3, *correlation.shape, device=device)
    passes = (0.0, *COUPLINGS)
    for number, strength in enumerate(passes):
        c = strength * coupling_per_mm2
        v = torch.empty_like(u)
        for z0, z1, costs in correlation:
            near = u[0, :, z0:z1].permute(1, 2, 3, 0).reshape(-1, 3)
            flat = costs.reshape(-1, correlation.count)
            # |d - u|^2 without its constant |u|^2: one matrix product with (u, 1).
            ones = torch.ones_like(near[:, :1])
            penalty = torch.cat([-2 * c * candidates, (c * length + tie)[:, None]], 1)
            best = torch.addmm(flat, torch.cat([near, ones], 1), penalty.T).argmin(1)
            v[0, :, z0:z1] = candidates[best].T.reshape(3, z1 - z0, *correlation.shape[1:])
            if report is not None:
                report((number + z1 / correlation.shape[0]) / len(passes))
        if number == 0 and weight is not None:
            # Voxels without data answered "no motion"; they take their neighbors' answer instead.
            trust = weight.clamp(min=1e-3)
            u = smooth(v * trust, box_passes) / smooth(trust, box_passes)
        else:
            u = smooth(v, box_passes)
    return u

"""Coupled convex optimization of one pyramid level (Heinrich et al., MICCAI 2014; SAMConvex, section 2.2).

Alternates between the best candidate displacement near the current smooth field, v = argmin_d cost + c |d - u|^2, and
smoothing, u = box filters of v, while the coupling c grows. Distances are millimeters, so that a setting means the
same at every level and on anisotropic grids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ..settings.registration import COUPLINGS
from ..space.filters import continued, smooth
from .correlation import LocalCorrelation


def coupled_convex(
    correlation: LocalCorrelation,
    spacing: Sequence[float],
    *,
    coupling_per_mm2: float,
    couplings: Sequence[float] = COUPLINGS,
    box_passes: int = 2,
    weight: torch.Tensor | None = None,
    report: Callable[[float], None] | None = None,
) -> torch.Tensor:
    """Displacement that minimizes the correlation's cost under a smoothness prior.

    Args:
        correlation: costs on the control grid.
        spacing: control grid spacing x, y, z in mm.
        coupling_per_mm2: factor on the growing ``couplings``, cost per squared millimeter.
        couplings: one a pass, weak to strong, after a first pass without.
        box_passes: 3^3 box filters after every pass; more is stiffer.
        weight: (1, 1, D, H, W) how much each voxel's own cost counts; what does not count continues what does.
        report: receives the finished fraction; may raise Cancelled.

    Returns:
        (1, 3, D, H, W) displacement in LPS mm (identity-direction control grid), components x, y, z.
    """
    steps = correlation.displacements()
    candidates = steps * torch.as_tensor(spacing, dtype=torch.float32, device=steps.device)
    # A tiny pull towards zero breaks ties (flat regions) in favor of no motion.
    length = candidates.square().sum(1)
    tie = 1e-6 * length / length.max().clamp(min=1e-6)
    u = torch.zeros(3, *correlation.shape, device=steps.device)
    trust = torch.ones(1, 1, *correlation.shape, device=steps.device) if weight is None else weight.float()
    known = trust > 0
    share_known = smooth(known.float(), box_passes).clamp(min=1e-6)
    passes = (0.0, *couplings)
    for number, strength in enumerate(passes):
        c = strength * coupling_per_mm2
        # |d - u|^2 without its constant |u|^2 is one matrix product with (u, 1).
        penalty = torch.cat([-2 * c * candidates, (c * length + tie)[:, None]], 1).T
        v = torch.zeros(3, known.numel(), device=steps.device)
        u = u.flatten(1)
        for fraction, voxels, costs in correlation:
            near = F.pad(u[:, voxels].T, (0, 1), value=1.0)
            best = torch.mm(near, penalty).add_(costs).min(1).indices  # several times faster than argmin
            v[:, voxels] = candidates[best].T
            if report is not None:
                report((number + fraction) / len(passes))
        v = v.view(1, 3, *correlation.shape)
        # Only what counts is asked again.
        if number == 0:  # without a prior, clear costs count more than doubtful ones
            u = (smooth(v * trust, box_passes) / smooth(trust, box_passes).clamp(min=1e-6))[0]
        elif number < len(passes) - 1:
            u = (smooth(v, box_passes) / share_known)[0]
    return smooth(continued(v, known), box_passes)

"""InfoNCE on points of coarse and fine embedding maps, with hard and diverse negatives (Yan et al., IEEE TMI 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_rows(features: Tensor, batch: Tensor, coordinates: Tensor, stride: int) -> Tensor:
    """Unit embedding vectors at continuous input positions.

    Args:
        features: (B, C, D, H, W) map, not necessarily normalized; channels-last memory makes this cheap.
        batch: (N,) item of each point.
        coordinates: (N, 3) input voxels, z, y, x.
        stride: of the map; its voxel ``i`` sits at ``stride * i + (stride - 1) / 2``.

    Returns:
        (N, C) float32 unit vectors; trilinear between unit vectors, positions clamped to the map.
    """
    b, c, d, h, w = features.shape
    rows = features.permute(0, 2, 3, 4, 1).reshape(-1, c)
    device = coordinates.device
    size = torch.tensor([d, h, w], dtype=torch.float32, device=device)
    position = ((coordinates - (stride - 1) / 2) / stride).clamp_min(0)
    position = torch.minimum(position, size - 1)
    base = torch.minimum(position.floor(), (size - 2).clamp_min(0))
    fraction = position - base
    base = base.long()
    limit = torch.tensor([d, h, w], device=device) - 1
    index, weight = [], []
    for corner in range(8):
        offset = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=device)
        z, y, x = torch.minimum(base + offset, limit).unbind(1)
        index.append(((batch * d + z) * h + y) * w + x)
        weight.append(torch.where(offset.bool(), fraction, 1 - fraction).prod(1))
    values = F.normalize(rows.index_select(0, torch.cat(index)).float(), dim=1)
    mixed = (values.reshape(8, -1, c) * torch.stack(weight)[..., None]).sum(0)
    return F.normalize(mixed, dim=1)


@dataclass
class Vectors:
    """Fine and coarse unit vectors of the same points: (N, Cf) and (N, Cc)."""

    fine: Tensor
    coarse: Tensor

    def at(self, index: Tensor | slice) -> Vectors:
        """The vectors of some of the points."""
        return Vectors(self.fine[index], self.coarse[index])


@dataclass
class LossSettings:
    """Temperature and numbers of negatives per positive."""

    temperature: float = 0.1
    hard: int = 200
    diverse: int = 300
    combined_weight: float = 1.0


def _cross_entropy(
    positive: Tensor, similarity: Tensor, index: Tensor, extra: Tensor | None, temperature: float
) -> Tensor:
    """InfoNCE of ``positive`` (N,) and entries ``index`` (N, K) of ``similarity`` (N, M), -inf where not allowed."""
    logits = [positive[:, None], similarity.gather(1, index)]
    if extra is not None:
        logits.append(extra)
    values = torch.cat(logits, 1) / temperature
    return (torch.logsumexp(values, 1) - values[:, 0]).mean()


def contrastive_loss(
    query: Vectors,
    positive: Vectors,
    candidates: Vectors,
    forbidden: Tensor,
    settings: LossSettings,
    others: Vectors | None = None,
    others_forbidden: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Fine, coarse and combined InfoNCE of ``query`` against ``positive`` (N) and negatives of ``candidates`` (M).

    Hard negatives are the candidates most similar in the combined map (as at inference); diverse ones are random. The
    coarse map draws its own hard negatives. ``others`` are points of other volumes: negatives for all.

    Args:
        forbidden: bool (N, M), candidates that are no certain negatives (too near the positive, or not visible).

    Returns:
        scalar loss, and the parts with the share of queries whose positive beats every negative.
    """
    similarity_fine = query.fine @ candidates.fine.T
    similarity_coarse = query.coarse @ candidates.coarse.T
    positive_fine = (query.fine * positive.fine).sum(1)
    positive_coarse = (query.coarse * positive.coarse).sum(1)
    nothing = float("-inf")
    similarity_fine = similarity_fine.masked_fill(forbidden, nothing)
    similarity_coarse = similarity_coarse.masked_fill(forbidden, nothing)
    combined = (similarity_fine + similarity_coarse) / 2
    positive_combined = (positive_fine + positive_coarse) / 2
    count = combined.shape[1]
    with torch.no_grad():
        hard = combined.topk(min(settings.hard, count), dim=1)
        diverse = torch.randint(0, count, (len(combined), min(settings.diverse, count)), device=combined.device)
        index = torch.cat([hard.indices, diverse], 1)
        hard_coarse = similarity_coarse.topk(min(settings.hard, count), dim=1).indices
        index_coarse = torch.cat([hard_coarse, diverse], 1)
        accuracy = (positive_combined > hard.values[:, 0]).float().mean()
    extra_fine = extra_coarse = extra_combined = None
    if others is not None:
        extra_fine, extra_coarse = query.fine @ others.fine.T, query.coarse @ others.coarse.T
        if others_forbidden is not None:
            extra_fine = extra_fine.masked_fill(others_forbidden, nothing)
            extra_coarse = extra_coarse.masked_fill(others_forbidden, nothing)
        extra_combined = (extra_fine + extra_coarse) / 2
    t = settings.temperature
    fine = _cross_entropy(positive_fine, similarity_fine, index, extra_fine, t)
    coarse = _cross_entropy(positive_coarse, similarity_coarse, index_coarse, extra_coarse, t)
    both = _cross_entropy(positive_combined, combined, index, extra_combined, t * 0.7)
    loss = fine + coarse + settings.combined_weight * both
    return loss, {
        "fine": fine.detach(),
        "coarse": coarse.detach(),
        "both": both.detach(),
        "hit": accuracy,
    }

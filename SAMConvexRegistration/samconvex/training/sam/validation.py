"""Real landmark error during training: label centroids of one patient found in another."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.sam_compact import SAMCompact
from ..data.cases import AIR, Case
from ..data.views import random_view
from ..loop import half_precise
from .losses import sample_rows


@torch.inference_mode()
def embed(network: SAMCompact, case: Case, bfloat16: bool = True) -> tuple[Tensor, Tensor]:
    """Fine and coarse unit maps of a whole case, body only, padded with air at the far ends."""
    device = next(network.parameters()).device
    value = network.preprocess(case.masked)
    padding = [(-n) % multiple for n, multiple in zip(value.shape[2:], network.multiples, strict=True)]
    value = F.pad(value, (0, padding[2], 0, padding[1], 0, padding[0]))
    with half_precise(device, bfloat16):
        maps = network(value.to(device))
    return maps["fine"].cpu(), maps["coarse"].cpu()


@torch.inference_mode()
def match(
    network: SAMCompact, template: tuple[Tensor, Tensor], points: Tensor, query: tuple[Tensor, Tensor], body: Tensor
) -> Tensor:
    """Points (N, 3) of the template in voxels -> best positions (N, 3) in the query's body, to a part of a voxel."""
    none = torch.zeros(len(points), dtype=torch.long)
    fine_vectors = sample_rows(template[0], none, points, network.fine_stride)
    coarse_vectors = sample_rows(template[1], none, points, network.coarse_stride)
    fine = query[0]
    size = fine.shape[2:]
    coarse = F.normalize(F.interpolate(query[1], size=size, mode="trilinear", align_corners=False), dim=1)
    score = torch.einsum("nc,cdhw->ndhw", fine_vectors, fine[0]) + torch.einsum(
        "nc,cdhw->ndhw", coarse_vectors, coarse[0]
    )
    padded = torch.zeros([n * network.fine_stride for n in size])
    padded[: body.shape[0], : body.shape[1], : body.shape[2]] = body.float()
    allowed = F.max_pool3d(padded[None, None], network.fine_stride)[0, 0] > 0
    score = (score / 2).masked_fill(~allowed, -1.0)
    best = score.flatten(1).argmax(1)
    d, h, w = size
    index = torch.stack([best // (h * w), best // w % h, best % w], 1)
    result = []
    for row, start in enumerate(index.tolist()):
        low = [max(0, s - 1) for s in start]
        part = score[row, low[0] : start[0] + 2, low[1] : start[1] + 2, low[2] : start[2] + 2]
        weight = torch.softmax(part.flatten() / 0.02, 0)
        axes = torch.meshgrid(*(torch.arange(n) + low[k] for k, n in enumerate(part.shape)), indexing="ij")
        result.append(torch.stack([(a.flatten().float() * weight).sum() for a in axes]))
    stride = torch.tensor([1 if n == 1 else network.fine_stride for n in size])
    return torch.stack(result) * stride + (stride - 1) / 2


def landmark_errors(network: SAMCompact, cases: list[Case]) -> dict[int, list[float]]:
    """Errors in mm of matched centroids of whole, compact labels, each case into the next, by label."""
    was_training = network.training
    network.eval()
    maps = [embed(network, case) for case in cases]
    errors: dict[int, list[float]] = {}
    for k in range(len(cases)):
        first, second = cases[k], cases[(k + 1) % len(cases)]
        keys = [v for v in first.labels if v in second.labels]
        keys = [v for v in keys if all(c.labels[v].whole and c.labels[v].axis is None for c in (first, second))]
        if not keys or first is second:
            continue
        points = torch.from_numpy(np.stack([first.labels[v].centroid for v in keys])).float()
        found = match(network, maps[k], points, maps[(k + 1) % len(cases)], second.body).numpy()
        for key, position in zip(keys, found, strict=True):
            distance = float(np.linalg.norm(position - second.labels[key].centroid) * network.spacing_mm)
            errors.setdefault(key, []).append(distance)
    network.train(was_training)
    return errors


def summarize(errors: dict[int, list[float]]) -> dict[str, object]:
    """Mean, median, 90th percentile and maximum in mm, hit rate within 10 mm, count, and the median per label."""
    values = np.array([e for group in errors.values() for e in group])
    if not len(values):
        return {"n": 0}
    return {
        "n": len(values),
        "mean": round(float(values.mean()), 2),
        "median": round(float(np.median(values)), 2),
        "p90": round(float(np.percentile(values, 90)), 2),
        "max": round(float(values.max()), 2),
        "within_10mm": round(float((values < 10).mean()), 3),
        "median_by_label": {str(k): round(float(np.median(v)), 2) for k, v in sorted(errors.items())},
    }


def warp_errors(network: SAMCompact, cases: list[Case], count: int = 40, seed: int = 7) -> dict[int, list[float]]:
    """Distances in mm between matched and true places of random body points in a known deformation of each case."""
    was_training = network.training
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    errors: dict[int, list[float]] = {0: []}
    for case in cases:
        size = torch.tensor(case.body.shape, dtype=torch.float32)
        shape = tuple(min(160, -(-int(n) // network.multiple) * network.multiple) for n in size)
        view = random_view((size - 1) / 2, (shape[0], shape[1], shape[2]), generator, cut_probability=0.0)
        image = view.sample(case.masked, float(AIR))
        air = image <= AIR + 1
        warped = Case(case.name, case.group, image, image, (~air).to(torch.uint8)[0, 0], case.points, case.grid)
        chosen = case.points[torch.randperm(len(case.points), generator=generator)[: count * 2]]
        places, visible = view.locate(chosen)
        chosen, places = chosen[visible][:count], places[visible][:count]
        if not len(chosen):
            continue
        found = match(network, embed(network, case), chosen, embed(network, warped), warped.body)
        errors[0] += ((found - places).norm(dim=1) * network.spacing_mm).tolist()
    network.train(was_training)
    return errors

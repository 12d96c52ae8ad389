"""The contrastive loss and how it reads vectors out of maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from samconvex.training.sam.losses import LossSettings, Vectors, contrastive_loss, sample_rows


def _vectors(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Vectors(*(F.normalize(torch.randn(count, 16, generator=generator), dim=1) for _ in range(2)))


def test_vectors_at_voxel_centers_are_the_voxels():
    features = torch.randn(2, 5, 4, 6, 8)
    index = torch.tensor([[0, 0, 0], [3, 5, 7], [1, 2, 3]])
    item = torch.tensor([0, 1, 1])
    coordinates = index * 8.0 + 3.5
    voxels = [features[b, :, z, y, x] for b, (z, y, x) in zip(item, index, strict=True)]
    expected = F.normalize(torch.stack(voxels), dim=1)
    torch.testing.assert_close(sample_rows(features, item, coordinates, 8), expected)


def test_between_voxels_vectors_mix():
    features = torch.zeros(1, 2, 2, 2, 2)
    features[0, 0, 0], features[0, 1, 1] = 1.0, 1.0
    middle = sample_rows(features, torch.tensor([0]), torch.tensor([[1.5, 0.5, 0.5]]), 2)
    torch.testing.assert_close(middle, torch.full((1, 2), 0.5**0.5))


def test_right_positives_cost_less_than_wrong_ones():
    points = _vectors(50)
    nothing = torch.eye(50, dtype=torch.bool)
    right, parts = contrastive_loss(points, points, points, nothing, LossSettings())
    wrong, _ = contrastive_loss(points, points.at(torch.arange(50).roll(1)), points, nothing, LossSettings())
    assert float(right) < float(wrong) - 1
    assert parts["hit"] == 1.0


def test_forbidden_candidates_do_not_count():
    query, others = _vectors(20), _vectors(300, 1)
    copies = Vectors(torch.cat([others.fine, query.fine]), torch.cat([others.coarse, query.coarse]))
    forbidden = torch.zeros(20, 320, dtype=torch.bool)
    settings = LossSettings(hard=1000, diverse=0)
    counted, _ = contrastive_loss(query, query, copies, forbidden, settings)
    forbidden[:, 300:] = True
    ignored, _ = contrastive_loss(query, query, copies, forbidden, settings)
    alone, _ = contrastive_loss(query, query, others, forbidden[:, :300], settings)
    assert float(ignored) < float(counted)
    torch.testing.assert_close(ignored, alone)


def test_other_volumes_push_away():
    query, candidates, others = _vectors(20), _vectors(100, 1), _vectors(100, 2)
    forbidden = torch.zeros(20, 100, dtype=torch.bool)
    settings = LossSettings(diverse=0)
    without, _ = contrastive_loss(query, query, candidates, forbidden, settings)
    more, _ = contrastive_loss(query, query, candidates, forbidden, settings, others)
    barred, _ = contrastive_loss(query, query, candidates, forbidden, settings, others, ~forbidden)
    assert float(more) > float(without)
    torch.testing.assert_close(barred, without)

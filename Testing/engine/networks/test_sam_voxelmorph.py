"""SAM-VoxelMorph: the published shape, correlation of neighbors, a field that integrates velocities."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from samconvex.networks.sam_voxelmorph import SAMVoxelMorph, correlation


def test_the_network_has_the_published_channels():
    network = SAMVoxelMorph()
    assert [layer[0].out_channels for layer in network.down] == [16, 32, 32, 32]
    decoder = [layer[0].out_channels for layer in [*network.up, *network.full]]
    assert decoder == [32, 32, 32, 32, 32, 16, 16] and network.flow.in_channels == 16
    # The correlation joins the maps at half resolution, on the way down and on the way up.
    assert network.down[1][0].in_channels == 16 + 27
    assert network.up[3][0].in_channels == 32 + 16 + 27


def test_the_correlation_tells_where_a_neighbor_is_alike():
    torch.manual_seed(0)
    moving = F.normalize(torch.randn(1, 16, 6, 6, 6), dim=1)
    found = correlation(moving.roll((1, -1), (2, 4)), moving)
    # What the fixed image shows at a voxel lies one voxel before it along z and behind it along x.
    expected = 0 * 9 + 1 * 3 + 2
    assert (found[0, :, 1:-1, 1:-1, 1:-1].argmax(0) == expected).all()
    torch.testing.assert_close(found[0, expected, 1:-1, 1:-1, 1:-1], torch.ones(4, 4, 4))


def test_it_starts_from_hardly_any_displacement_and_learns_one():
    torch.manual_seed(0)
    network = SAMVoxelMorph(width=0.25)
    images = torch.rand(2, 1, 1, 16, 32, 16)
    maps = F.normalize(torch.rand(2, 1, 4, 8, 16, 8), dim=2)
    found = network(*images, *maps)
    assert found.shape == (1, 3, 16, 32, 16) and float(found.abs().max()) < 1e-3
    (found - 0.1).square().mean().backward()
    gradients = [float(layer[0].weight.grad.abs().sum()) for layer in [*network.down, *network.up, *network.full]]
    assert min(gradients) > 0
    with pytest.raises(ValueError, match="multiples of 16"):
        network(images[0][..., :8], images[1][..., :8], *maps)


def test_a_shift_is_as_many_voxels_in_an_image_of_another_size():
    network = SAMVoxelMorph(width=0.1, shape=(16, 16, 16))
    with torch.no_grad():
        network.flow.weight.zero_()
        network.flow.bias.copy_(torch.tensor([0.2, 0.0, 0.0]))
        found = network(*torch.rand(2, 1, 1, 16, 16, 32), *torch.zeros(2, 1, 1, 8, 8, 16))
    # 0.2 of half of 16 voxels' extent.
    torch.testing.assert_close(found[0, 0] * (32 - 1) / 2, torch.full((16, 16, 32), 0.2 * (16 - 1) / 2))

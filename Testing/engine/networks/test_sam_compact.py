"""The compact network: geometry of its features, its size, its input."""

from __future__ import annotations

import pytest
import torch
from samconvex.networks.sam_compact import SAMCompact, preprocess


def _small(**changes):
    torch.manual_seed(0)
    return SAMCompact(**{"widths": [4, 4, 4, 4], "fine_channels": 8, "coarse_channels": 8, **changes}).eval()


def test_maps_have_their_strides_and_unit_vectors():
    with torch.inference_mode():
        maps = _small()(torch.rand(1, 1, 32, 48, 64))
    assert maps["fine"].shape == (1, 8, 16, 24, 32)
    assert maps["coarse"].shape == (1, 8, 4, 6, 8)
    for features in maps.values():
        torch.testing.assert_close(features.norm(dim=1), torch.ones(features[:, 0].shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("head", "stride"), [(0, 2), (1, 8)])
def test_feature_voxels_look_at_the_place_they_claim(head, stride):
    network = _small(blocks=[0, 0, 0, 0])
    with torch.no_grad():  # all kernels equal and positive: what features see is then centered where they sit
        for parameter in network.parameters():
            parameter.fill_(0.1)
    image = torch.rand(1, 1, 112, 112, 112, requires_grad=True)
    # One period of the network's lattice: single voxels lean towards the middle of the coarser voxel that they share.
    index = slice(48 // stride, 64 // stride)
    network.raw_features(image)[head][0, :, index, index, index].sum().backward()
    weight = image.grad[0, 0].abs()
    middle = (index.start + index.stop - 1) / 2
    for axis in range(3):
        profile = weight.sum([k for k in range(3) if k != axis])
        assert profile[0] == 0 and profile[-1] == 0, "the receptive field must fit for this test to mean anything"
        center = float((profile * torch.arange(112.0)).sum() / profile.sum())
        assert center == pytest.approx(stride * middle + SAMCompact.feature_center_offset(stride), abs=1e-3)


def test_whole_volume_and_crop_are_treated_alike():
    network = _small(blocks=[0, 0, 0, 0])
    image = torch.rand(1, 1, 128, 96, 96)
    with torch.inference_mode():
        whole = network(image)["fine"][:, :, 24:40, 20:28, 20:28]
        crop = network(image[:, :, :112])["fine"][:, :, 24:40, 20:28, 20:28]
    # 40 mm and more from the cut, what lies beyond it does not matter: no statistics over the image enter.
    torch.testing.assert_close(whole[:, :, :8], crop[:, :, :8], atol=1e-5, rtol=0)


def test_the_configuration_rebuilds_the_network():
    network = _small(blocks=[1, 1, 0, 2], spacing_mm=3.0)
    again = SAMCompact(**network.config).eval()
    again.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(image)["fine"], again(image)["fine"])
    assert again.spacing_mm == 3.0


def test_air_is_zero_and_tissue_is_one():
    values = preprocess(torch.tensor([-2000.0, -1000.0, 40.0, 60.0, 3000.0]))
    assert values[0] == values[1] == pytest.approx(0.0, abs=1e-6)
    assert float(values[2]) == pytest.approx(1.0)
    assert float(values[3] - values[2]) > 0.04, "20 HU of soft tissue must be visible"
    assert float(values[4]) < 2.2


def test_the_default_network_is_small():
    parameters = sum(p.numel() for p in SAMCompact().parameters())
    assert parameters * 2 < 8e6, "the shipped half precision file has a few megabytes"


def test_other_sizes_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="multiples of 16"):
        _small().raw_features(torch.rand(1, 1, 40, 32, 32))

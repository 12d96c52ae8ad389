"""Reduced precision must leave the gradient what it is, however few slices a layer sees."""

from __future__ import annotations

import pytest
import torch
from samconvex.networks.convolution import Conv3d
from samconvex.networks.featcnn import FeatCNN
from samconvex.networks.sam_compact import SAMCompact
from samconvex.networks.semantic import SemanticNet
from torch import Tensor, nn

SMALL: dict = {"widths": [4, 4, 4, 4], "blocks": [1, 1, 1, 1]}


def gradients(layers: list[Conv3d], loss, bfloat16: bool) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        value = loss()
    return [g.detach().clone() for g in torch.autograd.grad(value, [layer.weight for layer in layers])]


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_gradients_in_bfloat16_are_those_of_float32(slices):
    torch.manual_seed(0)
    layer = Conv3d(32, 32, 3, padding=1)
    image, slope = torch.randn(2, 32, slices, 4, 4), torch.randn(2, 32, slices, 4, 4)
    (true,) = gradients([layer], lambda: (layer(image) * slope).sum(), False)
    for _ in range(5):
        (found,) = gradients([layer], lambda: (layer(image) * slope).sum(), True)
        assert float((found - true).norm()) < 0.03 * float(true.norm())


@pytest.mark.parametrize(
    ("network", "depth", "call"),
    [
        (SAMCompact(**SMALL, fine_channels=4, coarse_channels=4), 32, lambda n, x: n.raw_features(x)[1]),
        (SemanticNet(**SMALL, detail=4), 32, lambda n, x: n(x)),
        (FeatCNN(), 4, lambda n, x: n(x, "ct")),
    ],
    ids=["sam", "semantic", "featcnn"],
)
def test_no_layer_of_a_trained_network_meets_two_slices_in_bfloat16(network: nn.Module, depth, call):
    met = []

    def look(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        if inputs[0].shape[2] == 2:
            met.append(output.dtype)

    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(look)
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        call(network, torch.rand(2, 1, depth, 32, 32))
    assert met and set(met) == {torch.float32}

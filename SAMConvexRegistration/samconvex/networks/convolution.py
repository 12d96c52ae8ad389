"""The 3D convolution of the networks that are trained in reduced precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """As torch's, with the right gradient where the image has exactly two slices.

    There the bfloat16 kernels of oneDNN (seen with torch 2.13 and AVX-512) take the gradient of a padded convolution's
    weights from memory that nobody wrote: it is noise, infinite or none, another one at each call. The layers that see
    two slices are the coarsest ones; full precision costs them nothing that counts.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C', D', H', W')."""
        if input.shape[-3] == 2 and input.device.type == "cpu" and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.to(self.weight.dtype))
        return super().forward(input)

"""What intensities mean: the window of CT, the range of other modalities."""

from __future__ import annotations

import torch

from ..errors import InputError
from .volume import Volume

# Hounsfield units that normalized intensities span.
CT_RANGE = (-1000.0, 1000.0)


def ct_window(tensor: torch.Tensor, lower: float = CT_RANGE[0], upper: float = CT_RANGE[1]) -> torch.Tensor:
    """Clip Hounsfield units and scale to [0, 1]."""
    return ((tensor.float() - lower) / (upper - lower)).clamp_(0, 1)


def normalized_intensity(volume: Volume) -> torch.Tensor:
    """(1, 1, D, H, W) float32 in [0, 1]: a wide CT window, or the 0.2 to 99.8 percentile range of other modalities."""
    if volume.modality == "ct":
        return ct_window(volume.tensor)
    values = volume.as_float()
    flat = values.flatten()
    flat = flat[:: max(1, flat.numel() // 1_000_000)]
    lower, upper = torch.quantile(flat, torch.tensor([0.002, 0.998], device=flat.device)).tolist()
    return ct_window(values, lower, max(upper, lower + 1e-6))


def looks_like_ct(volume: Volume) -> bool:
    """Hounsfield units: air near -1000, or, in a crop inside the body, at least the negative values of fat."""
    return volume.modality == "ct" or volume.background <= -100


def check_ct(volume: Volume) -> None:
    """Raise InputError unless an image for a network that knows CT alone is one."""
    if not looks_like_ct(volume):
        raise InputError(
            f"{volume.name} is no CT in Hounsfield units; this works on CT only. Choose a CT, or for a registration a "
            "preset for other images."
        )

"""Random changes of an image's appearance: calibration, noise, blur, thick slices, contrast curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# What stands for gas inside the body where grey values were cut to a soft tissue window.
GAS_HU, AIR_HU = -850.0, -1000.0
_NO_TISSUE = -500.0


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator)) * (high - low) + low


def _normal(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Normal noise where it is needed; ``generator`` is the CPU's, and decides everywhere."""
    if device.type == "cpu":
        return torch.randn(*shape, generator=generator)
    there = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    return torch.randn(*shape, generator=there, device=device)


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand(1, generator=generator)) < probability


def augment_hu(image: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """(1, 1, D, H, W) HU -> the same shape as another scanner might have seen it; ``strength`` 0 leaves it as is."""
    if strength <= 0:
        return image
    shape = image.shape[2:]
    if _chance(0.3, generator):  # thick slices
        slab = int(torch.randint(2, 5, (1,), generator=generator))
        thick = F.avg_pool3d(image, (slab, 1, 1), ceil_mode=True, count_include_pad=False)
        image = F.interpolate(thick, size=shape, mode="trilinear", align_corners=False)
    if _chance(0.3, generator):  # coarse pixels or a soft kernel
        if _chance(0.5, generator):
            thick = F.avg_pool3d(image, (1, 2, 2), ceil_mode=True, count_include_pad=False)
            image = F.interpolate(thick, size=shape, mode="trilinear", align_corners=False)
        else:
            image = F.avg_pool3d(image, 3, 1, 1, count_include_pad=False)
    if _chance(0.5, generator):
        sigma = _uniform(5, 50, generator) * strength
        if _chance(0.5, generator):
            image = image + _normal(image.shape, generator, image.device) * sigma
        else:
            half = [(n + 1) // 2 for n in shape]
            noise = _normal((1, 1, *half), generator, image.device) * sigma
            image = image + F.interpolate(noise, size=shape, mode="trilinear", align_corners=False)
    gain = 1 + _uniform(-0.06, 0.06, generator) * strength
    return image * gain + _uniform(-20, 20, generator) * strength


def augment_curve(value: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Bend the contrast curve of a preprocessed image (air 0, soft tissue 1); air stays air."""
    if strength <= 0 or not _chance(0.6, generator):
        return value
    exponent = 2 ** (_uniform(-0.35, 0.35, generator) * strength)
    return value.clamp_min(0) ** exponent * (1 + _uniform(-0.08, 0.08, generator) * strength)


def augment_radiograph(image: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """(1, 1, 1, H, W) line integrals -> an X-ray image of another exposure and display, 0 where nothing attenuates."""
    if strength <= 0:
        return image
    value = image / image.max().clamp(min=1e-6)
    if _chance(0.5, generator):  # between the logarithm of the detected dose and the dose itself
        contrast = _uniform(0.5, 4.0, generator) * strength
        value = (1 - torch.exp(-contrast * value)) / (1 - math.exp(-contrast))
    value = value ** (2 ** (_uniform(-0.7, 0.7, generator) * strength))
    shape = value.shape[2:]
    if _chance(0.4, generator):  # local contrast as the device's software sets it, or blur
        small = F.avg_pool3d(F.pad(value, (8, 8, 8, 8, 0, 0), mode="replicate"), (1, 17, 17), 1)
        value = (value + _uniform(-0.3, 1.0, generator) * strength * (value - small)).clamp(min=0)
    if _chance(0.4, generator):  # heel effect, scatter
        shade = 1 + 0.15 * strength * _normal((1, 1, 1, 2, 2), generator, image.device)
        value = value * F.interpolate(shade, size=shape, mode="trilinear", align_corners=True).clamp(min=0.3)
    sigma = _uniform(0, 0.03, generator) * strength
    return value + _normal(value.shape, generator, image.device) * sigma


def augment_window(image: Tensor, window: Sequence[float], windowed: bool, generator: torch.Generator) -> Tensor:
    """Half of the time, (1, 1, D, H, W) HU as of the other kind of set: cut to a window, or ``windowed`` and beyond it.

    Mixed training sets must not be told apart by the range of their grey values.
    """
    if not _chance(0.5, generator):
        return image
    return beyond_window(image, window[1], generator) if windowed else cut_to_window(image, window[0], window[1])


def cut_to_window(image: Tensor, lower: float, upper: float) -> Tensor:
    """(1, 1, D, H, W) HU as if kept in a soft tissue window, with one value for air and one for gas in the body."""
    air = image < AIR_HU + 50
    # Lungs and bowel, but not the blurred rim between skin and air.
    gas = (image < _NO_TISSUE) & (F.max_pool3d(air.float(), 3, 1, 1) == 0)
    cut = image.clamp(lower, upper)
    return cut.masked_fill_(image < _NO_TISSUE, AIR_HU).masked_fill_(gas, GAS_HU)


def beyond_window(image: Tensor, upper: float, generator: torch.Generator) -> Tensor:
    """(1, 1, D, H, W) HU cut to a window -> bone above it and texture in the lungs, roughly as the scanner saw them."""
    bone = (image >= upper - 10).float()
    # Dense inside, soft at its rim: about what a cut bone was.
    dense = bone * F.avg_pool3d(bone, 3, 1, 1) ** 2 * _uniform(100, 900, generator)
    noise = F.avg_pool3d(_normal(image.shape, generator, image.device), 3, 1, 1)
    lung = ((image < _NO_TISSUE) & (image > AIR_HU + 50)) * noise * _uniform(100, 400, generator)
    return image + dense + lung

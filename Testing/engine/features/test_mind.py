"""MIND-SSC does not see brightness, contrast or modality, and follows the image where it goes."""

from __future__ import annotations

import torch
from samconvex.features.mind import CHANNELS, mind_ssc


def image() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.avg_pool3d(torch.rand(1, 1, 26, 26, 26), 3)


def test_there_are_twelve_channels_and_the_best_is_one() -> None:
    features = mind_ssc(image())
    assert CHANNELS == 12
    assert features.shape == (1, 12, 8, 8, 8)
    torch.testing.assert_close(features.amax(1), torch.ones(1, 8, 8, 8))
    assert float(features.min()) > 0


def test_brightness_contrast_and_inversion_change_nothing() -> None:
    reference = mind_ssc(image())
    torch.testing.assert_close(mind_ssc(image() * 3 + 7), reference, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mind_ssc(1 - image()), reference, atol=1e-3, rtol=1e-3)


def test_features_follow_a_shift() -> None:
    torch.manual_seed(1)
    texture = torch.rand(1, 1, 20, 20, 20)
    features, moved = mind_ssc(texture), mind_ssc(texture.roll(2, 4))
    inner = (..., slice(6, 14), slice(6, 14))
    expected = features.roll(2, 4)[inner]
    # The noise estimate is clamped relative to the whole image, so equality is up to that clamp.
    assert float((moved[inner] - expected).abs().max()) < 1e-3


def test_against_a_direct_computation_of_one_voxel() -> None:
    values = image()[0, 0].double()
    features = mind_ssc(image().double(), radius=1, dilation=2)
    center, offsets = (4, 4, 4), [(-2, 0, 0), (2, 0, 0), (0, -2, 0), (0, 2, 0), (0, 0, -2), (0, 0, 2)]

    def at(z: int, y: int, x: int) -> torch.Tensor:
        return values[min(max(z, 0), 7), min(max(y, 0), 7), min(max(x, 0), 7)]

    def patch_distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> torch.Tensor:
        cube = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        terms = [
            (
                at(*(c + o + s for c, o, s in zip(center, p, a, strict=True)))
                - at(*(c + o + s for c, o, s in zip(center, p, b, strict=True)))
            )
            ** 2
            for p in cube
        ]
        return torch.stack(terms).mean()

    distances = torch.stack(
        [
            patch_distance(a, b)
            for i, a in enumerate(offsets)
            for b in offsets[i + 1 :]
            if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 8
        ]
    )
    distances = distances - distances.min()
    expected = torch.exp(-distances / distances.mean())
    torch.testing.assert_close(features[0, :, 4, 4, 4], expected, atol=1e-6, rtol=1e-6)

"""The shifts give what ITK's filters give."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.space.filters import closed_across_slices, closed_in_slices, opened_in_slices


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """Blobs of all sizes, some at the border."""
    noise = np.random.default_rng(0).normal(size=(9, 40, 50))
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(noise), 1.5))
    return smooth > 0


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_discs_are_those_of_itk(mask: np.ndarray, radius: int) -> None:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    for ours, filtered in (
        (opened_in_slices, sitk.BinaryMorphologicalOpening),
        (closed_in_slices, sitk.BinaryMorphologicalClosing),
    ):
        expected = sitk.GetArrayFromImage(filtered(image, (radius, radius, 0))) > 0
        assert (expected != mask).any()
        assert (ours(mask, radius) == expected).all()


def test_gaps_between_slices_are_closed_as_by_itk(mask: np.ndarray) -> None:
    gappy = mask.copy()
    gappy[4:6] = False
    closed = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(gappy.astype(np.uint8)), (0, 0, 2))
    expected = sitk.GetArrayFromImage(closed) > 0
    assert expected[4:6].any()
    assert (closed_across_slices(gappy, 2) == expected).all()

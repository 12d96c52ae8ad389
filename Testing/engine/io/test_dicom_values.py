"""Values and patients of DICOM slices that GDCM would make up, turn or mix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from samconvex.errors import InputError
from samconvex.io.images import read_volume

pytest.importorskip("pydicom")
from engine.io import dicom_files as files  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402


def _set(**values: object) -> Callable[[Dataset, int], None]:
    return lambda data, index: [setattr(data, name, value) for name, value in values.items()] and None


def _short_pixels(data: Dataset, index: int) -> None:
    if index == 4:
        data.PixelData = data.PixelData[:-20]


def _table(data: Dataset, index: int) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [4, 0, 16], "HU", bytes(8)
    data.ModalityLUTSequence = [table]
    for name in ("RescaleSlope", "RescaleIntercept"):
        if name in data:
            delattr(data, name)


def _two_patients(data: Dataset, index: int) -> None:
    data.PatientID = "A" if index < 6 else "B"


@pytest.mark.parametrize(
    ("tweak", "sentence"),
    [
        (_short_pixels, r"im004\.dcm is cut short \(its pixels end too early\)"),
        (_table, r"gives its values by a table \(ModalityLUTSequence\)"),
        (_two_patients, r"mixes 2 patients in one series \(im000\.dcm and im006\.dcm differ in PatientID\)"),
        (_set(BitsStored=12, HighBit=15), r"keeps 12 bits of a pixel below bit 15 \(HighBit\)"),
        (_set(PhotometricInterpretation="PALETTE COLOR", PixelRepresentation=0), "is a color image"),
    ],
)
def test_pixels_of_unsure_meaning_are_refused(tmp_path: Path, tweak: Callable, sentence: str) -> None:
    files.write_series(tmp_path, files.voxels(), files.places(), tweak=tweak)
    with pytest.raises(InputError, match=sentence):
        read_volume(tmp_path)


@pytest.mark.parametrize("signed", [0, 1])
def test_an_image_that_is_displayed_inverted_keeps_its_values(tmp_path: Path, signed: int) -> None:
    array = files.voxels() if signed else np.abs(files.voxels()).astype(np.uint16)
    tweak = _set(
        PhotometricInterpretation="MONOCHROME1", PixelRepresentation=signed, RescaleSlope=2, RescaleIntercept=-1000
    )
    files.write_series(tmp_path, array, files.places(), tweak=tweak)
    np.testing.assert_array_equal(read_volume(tmp_path).tensor[0, 0].numpy(), array.astype(int) * 2 - 1000)


def test_several_frames_of_reference_are_said(tmp_path: Path) -> None:
    def tweak(data: Dataset, index: int) -> None:
        data.FrameOfReferenceUID = f"1.2.{1 + index // 6}"

    files.write_series(tmp_path, files.voxels(), files.places(), tweak=tweak)
    assert "belong to 2 frames of reference" in read_volume(tmp_path).notes[0]


def test_an_empty_file_among_the_slices_is_named(tmp_path: Path) -> None:
    files.write_series(tmp_path, files.voxels(), files.places())
    (tmp_path / "im005.dcm").write_bytes(b"")
    with pytest.raises(InputError, match=r"im005\.dcm is empty"):
        read_volume(tmp_path)


def test_a_gap_names_the_slice_that_was_left_out(tmp_path: Path) -> None:
    def tweak(data: Dataset, index: int) -> None:
        if index == 4:
            data.Rows -= 1
            data.PixelData = data.PixelData[: 2 * data.Rows * data.Columns]

    files.write_series(tmp_path, files.voxels(), files.places(), tweak=tweak)
    with pytest.raises(InputError, match=r"lacks slices .* left out \(a scout\?\): .*im004\.dcm"):
        read_volume(tmp_path)

"""A DICOM folder is read with its true geometry, or refused where ITK would invent one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import InputError
from samconvex.io.images import read_volume

EVEN = np.arange(12) * 2.5


def _series(folder: Path, heights: np.ndarray, tilt: float = 0.0, number: int = 1) -> Path:
    """Write axial slices at ``heights`` mm; ``tilt`` shifts each slice by that share of its height."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    random = np.random.default_rng(0)
    for index, height in enumerate(heights):
        image = sitk.GetImageFromArray(random.integers(-1000, 1000, (16, 18)).astype(np.int16))
        image.SetSpacing((1.5, 1.5))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.{number}.{index + 1}",
            "0008|0060": "CT",
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{number}",
            "0020|0013": str(index + 1),
            "0020|0032": f"5\\{tilt * height:.4f}\\{height:.4f}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0052": "1.2.9",
            "0028|0030": "1.5\\1.5",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{number}_{index:03d}.dcm"))
        writer.Execute(image)
    return folder


def test_a_regular_series_is_read_with_its_geometry(tmp_path: Path) -> None:
    volume = read_volume(_series(tmp_path / "even", EVEN))
    assert volume.grid.size == (18, 16, 12)
    np.testing.assert_allclose(volume.grid.spacing, (1.5, 1.5, 2.5), atol=1e-6)
    np.testing.assert_allclose(volume.grid.origin, (5.0, 0.0, 0.0), atol=1e-6)
    assert volume.notes == ()


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gap lacks slices \(a gap of 5\.0 mm among slices 2\.5 mm apart\)"):
        read_volume(_series(tmp_path / "gap", np.delete(EVEN, 6)))


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tilted gantry \(11 degrees\)"):
        read_volume(_series(tmp_path / "tilted", EVEN, tilt=0.2))


def test_two_phases_in_one_series_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="several slices at one position"):
        read_volume(_series(tmp_path / "phases", np.repeat(EVEN, 2)))


def test_slightly_uneven_slices_are_read_and_remarked(tmp_path: Path) -> None:
    uneven = EVEN + np.tile([0.0, 0.2], 6)
    assert "unevenly spaced" in read_volume(_series(tmp_path / "uneven", uneven)).notes[0]


def test_of_several_series_the_largest_is_read_and_said(tmp_path: Path) -> None:
    _series(tmp_path / "two", EVEN[:9])
    volume = read_volume(_series(tmp_path / "two", EVEN, number=2))
    assert volume.grid.size[2] == 12
    assert "2 DICOM series" in volume.notes[0]

"""A NIfTI file that is damaged or holds NaN is refused, although ITK would read zeros from it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import InputError
from samconvex.space.nifti import check_nifti

NAMES = ["image.nii", "image.nii.gz"]


def _save(path: Path, voxels: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_whole_files_pass(tmp_path: Path, name: str, dtype: type) -> None:
    check_nifti(_save(tmp_path / name, np.arange(1000).reshape(10, 10, 10).astype(dtype)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("lost", [40, 1500])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, name: str, dtype: type, lost: int) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (10, 10, 20)).astype(dtype)
    path = _save(tmp_path / name, noise)
    os.truncate(path, path.stat().st_size - lost)
    with pytest.raises(InputError, match="cut short") as caught:
        check_nifti(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_seen_in_the_file(tmp_path: Path, name: str, value: float) -> None:
    voxels = np.zeros((10, 10, 10), np.float32)
    voxels[9, 9, 9] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        check_nifti(_save(tmp_path / name, voxels))


def test_a_big_endian_file_is_understood(tmp_path: Path) -> None:
    path = _save(tmp_path / "image.nii", np.ones((8, 8, 8), np.float32))
    content = path.read_bytes()
    header = bytearray(content[:352])
    for start, stop, width in ((0, 4, 4), (40, 56, 2), (70, 74, 2), (76, 112, 4)):
        for at in range(start, stop, width):
            header[at : at + width] = header[at : at + width][::-1]
    voxels = np.ones(512, ">f4")
    voxels[3] = np.nan
    path.write_bytes(bytes(header) + voxels.tobytes())
    with pytest.raises(InputError, match="NaN"):
        check_nifti(path)
    path.write_bytes(bytes(header) + np.ones(512, ">f4").tobytes())
    check_nifti(path)


def test_gzip_files_of_several_members_pass(tmp_path: Path) -> None:
    content = _save(tmp_path / "image.nii", np.ones((8, 8, 8), np.int16)).read_bytes()
    path = tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
    check_nifti(path)


def test_other_contents_are_left_to_itk(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"something else")
        check_nifti(tmp_path / name)


@pytest.mark.parametrize("offset", [np.nan, np.inf, -8.0])
def test_an_offset_that_is_none_becomes_no_foreign_error(tmp_path: Path, offset: float) -> None:
    path = _save(tmp_path / "image.nii", np.ones((8, 8, 8), np.int16))
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    path.write_bytes(content)
    check_nifti(path)

"""Voxels that ITK would make up, and headers whose meaning it leaves out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import InputError
from samconvex.io.images import read_labels, read_volume

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (10, 9, 8)).astype(np.int16)
PLACE = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 5 6 7\nElementSpacing = 2 1.5 3\n"


def _meta_image(path: Path, fields: str, file: str, data: bytes = b"") -> Path:
    head = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\n{PLACE}{fields}DimSize = 8 9 10\nElementType = MET_SHORT\n"
    )
    path.write_bytes(f"{head}ElementDataFile = {file}\n".encode() + data)
    return path


def _nrrd(path: Path, fields: str) -> Path:
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 8 9 10\nencoding: raw\nendian: little\n{fields}"
    path.write_bytes(f"{head}\n".encode() + ARRAY.tobytes())
    return path


def _values(path: Path) -> np.ndarray:
    return read_volume(path).tensor[0, 0].numpy()


@pytest.mark.parametrize(
    "name", ["image.mha", "image.mhd", "image.nrrd", "image.nhdr", "image.nii.gz", "image.gipl.gz"]
)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_compressed_voxels_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path), True)
    assert np.array_equal(_values(path), ARRAY)
    file = {".mhd": tmp_path / "image.zraw", ".nhdr": tmp_path / "image.raw.gz"}.get(path.suffix, path)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[-60:]
    else:
        content[-60:-40] = bytes(20)
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} could not be read"):
        read_volume(path)


def test_compressed_voxels_of_unknown_length_are_refused(tmp_path: Path) -> None:
    data = zlib.compress(ARRAY.tobytes())
    path = _meta_image(tmp_path / "a.mha", "CompressedData = True\n", "LOCAL", data)
    with pytest.raises(InputError, match="states no CompressedDataSize"):
        read_volume(path)
    path = _meta_image(tmp_path / "a.mha", f"CompressedData = True\nCompressedDataSize = {len(data)}\n", "LOCAL", data)
    assert np.array_equal(_values(path), ARRAY)


@pytest.mark.parametrize(
    "whole, short",
    [
        ("LIST\n" + "\n".join(f"s{k}.raw" for k in range(10)), "LIST\ns0.raw\ns1.raw"),
        ("s%d.raw 0 9 1", "s%d.raw 0 1 1"),
    ],
)
def test_a_list_of_slices_that_ends_early_is_refused(tmp_path: Path, whole: str, short: str) -> None:
    for number, plane in enumerate(ARRAY):
        (tmp_path / f"s{number}.raw").write_bytes(plane.tobytes())
    assert np.array_equal(_values(_meta_image(tmp_path / "a.mhd", "", whole)), ARRAY)
    with pytest.raises(InputError, match="names 2 data files but needs 10"):
        read_volume(_meta_image(tmp_path / "a.mhd", "", short))


def test_slope_and_offset_of_a_meta_image_count(tmp_path: Path) -> None:
    fields = "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -1024\n"
    path = _meta_image(tmp_path / "a.mha", fields, "LOCAL", ARRAY.tobytes())
    assert np.array_equal(_values(path), ARRAY * 2.0 - 1024)


@pytest.mark.parametrize("name", ["image.mrc", "image.tif", "image.vtk", "image.gipl"])
def test_rarer_formats_that_were_cut_short_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path))
    assert np.array_equal(_values(path), ARRAY)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="cut short or damaged"):
        read_volume(path)


def test_a_tiff_states_no_place(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(tmp_path / "a.tif"))
    assert "no position and no distance of slices" in read_volume(tmp_path / "a.tif").notes[0]


AXES = "space directions: (2,0,0) (0,1.5,0) (0,0,3)\nspace origin: (50,40,-20)\n"


def test_nrrd_lengths_in_another_unit_are_refused(tmp_path: Path) -> None:
    path = _nrrd(tmp_path / "a.nrrd", f'space: LPS\nspace units: "um" "um" "um"\n{AXES}')
    with pytest.raises(InputError, match=r"gives its lengths in um \(space units\)"):
        read_volume(path)
    path = _nrrd(tmp_path / "a.nrrd", f'space: LPS\nspace units: "mm" "mm" "mm"\n{AXES}')
    assert read_volume(path).notes == ()


@pytest.mark.parametrize(
    "fields, note",
    [
        (f"space: right-anterior-superior\n{AXES}", None),
        (f"space: LAS\n{AXES}", None),
        (f"space: scanner-xyz\n{AXES}", "does not say how it lies in the patient (space scanner-xyz)"),
        (f"space dimension: 3\n{AXES}", "does not say how it lies in the patient (no space)"),
        (
            "spacings: 2 1.5 nan\n",
            "states no spacing and no position; it was read as if it lay at 0 with voxels of 1 mm",
        ),
        ("spacings: 2 1.5 3\n", "states no position; it was read as if it lay at 0."),
        ("spacings: 2 1.5 3\naxis mins: 1 2 3\n", None),
    ],
)
def test_what_a_nrrd_header_leaves_open_is_said(tmp_path: Path, fields: str, note: str | None) -> None:
    notes = read_volume(_nrrd(tmp_path / "a.nrrd", fields)).notes
    assert notes == () if note is None else (len(notes) == 1 and note in notes[0])


def _nifti(path: Path, place: int, code: str, *values: float) -> Path:
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((2.0, 1.5, 3.0))
    sitk.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into(code, content, place, *values)
    path.write_bytes(content)
    return path


def test_an_intercept_without_a_slope_scales_nothing(tmp_path: Path) -> None:
    assert np.array_equal(_values(_nifti(tmp_path / "a.nii", 112, "<2f", 0.0, -1024.0)), ARRAY)
    assert np.array_equal(_values(_nifti(tmp_path / "a.nii", 112, "<2f", 1.0, -1024.0)), ARRAY - 1024.0)


def test_an_sform_of_other_lengths_than_pixdim_is_refused(tmp_path: Path) -> None:
    path = _nifti(tmp_path / "a.nii", 252, "<2h", 0, 2)
    assert read_volume(path).grid.spacing == (2.0, 1.5, 3.0)
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 80, 1.0, 1.0, 1.0)
    path.write_bytes(content)
    with pytest.raises(InputError, match="2 x 1.5 x 3 mm in its sform but of 1 x 1 x 1 mm in its pixdim"):
        read_volume(path)


@pytest.mark.parametrize("unit, length", [(1, 2000.0), (3, 0.002)])
def test_two_frames_in_one_unit_agree(tmp_path: Path, unit: int, length: float) -> None:
    volume = read_volume(_nifti(tmp_path / "a.nii", 123, "<B", unit))
    assert volume.grid.spacing[0] == pytest.approx(length) and volume.notes == ()


@pytest.mark.parametrize("kind, bits, words", [(1, 1, "single bits"), (1792, 128, "complex numbers")])
def test_voxels_of_an_unread_kind_are_named(tmp_path: Path, kind: int, bits: int, words: str) -> None:
    path = _nifti(tmp_path / "a.nii", 70, "<2h", kind, bits)
    path.write_bytes(path.read_bytes() * 9)
    with pytest.raises(InputError, match=f"holds {words}"):
        read_volume(path)


def test_an_analyze_file_has_no_sides(tmp_path: Path) -> None:
    path = _nifti(tmp_path / "a.hdr", 344, "<4B", 0, 0, 0, 0)
    assert "states no position and no sides" in read_volume(path).notes[0]


def test_labels_that_are_no_numbers_become_background(tmp_path: Path) -> None:
    array = np.abs(ARRAY).astype(np.float32)
    array[0, 0, 0] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.nii"))
    with pytest.raises(InputError, match=r"for example by 0\)"):
        read_labels(tmp_path / "a.nii")


@pytest.mark.parametrize("start", [0.0, 348.0])
def test_voxels_that_begin_within_the_header_are_refused(tmp_path: Path, start: float) -> None:
    with pytest.raises(InputError, match=rf"vox_offset {start:.0f}\); correct it to 352"):
        read_volume(_nifti(tmp_path / "a.nii", 108, "<f", start))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"PK\x03\x04" + bytes(400), "a zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_what_came_in_place_of_an_image_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"is {words}, not an image"):
        read_volume(tmp_path / name)

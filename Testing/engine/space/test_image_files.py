"""The file that is named is the file that is read, whatever lies beside it; a refusal names the real reason."""

from __future__ import annotations

import gzip
import shutil
import struct
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import InputError
from samconvex.io.images import read_grid, read_labels, read_volume
from samconvex.space.image_files import read_header, read_image
from samconvex.space.transforms import Transform

NAMES = ("ct.nii", "ct.nii.gz", "ct.hdr", "ct.hdr.gz")
SFORM, SFORM_CODE, QFORM_CODE = 280, 254, 252


def _image(value: int, size: int = 9) -> sitk.Image:
    image = sitk.Image([size, 10, 11], sitk.sitkInt16) + value
    image[0, 0, 0] = value + 1
    image.SetOrigin((float(value), 0.0, 0.0))
    return image


def _write(image: sitk.Image, path: Path) -> Path:
    """Write alone, then move, so that the writer cannot disturb the twins."""
    alone = path.parent / f"alone_{path.name.replace('.', '_')}"
    alone.mkdir()
    sitk.WriteImage(image, str(alone / path.name.replace(".hdr.gz", ".img.gz")))
    for file in alone.iterdir():
        shutil.move(file, path.parent / file.name)
    alone.rmdir()
    return path


@pytest.mark.parametrize(("named", "twin"), list(permutations(NAMES, 2)))
@pytest.mark.parametrize("size", [9, 12])
def test_a_twin_is_never_read_in_place_of_the_named_file(tmp_path: Path, named: str, twin: str, size: int) -> None:
    _write(_image(5), tmp_path / named)
    _write(_image(40, size), tmp_path / twin)
    volume = read_volume(tmp_path / named)
    np.testing.assert_array_equal(volume.tensor[0, 0].numpy(), sitk.GetArrayFromImage(_image(5)))
    assert volume.grid.origin[0] == read_grid(tmp_path / named).origin[0] == 5.0
    assert read_header(tmp_path / named).GetSize() == (9, 10, 11)
    np.testing.assert_array_equal(read_labels(tmp_path / named).tensor, volume.tensor)


def test_the_twin_of_a_displacement_field_is_not_applied(tmp_path: Path) -> None:
    for name, shift in (("field.nii.gz", 2.0), ("field.nii", -7.0)):
        array = np.full((6, 6, 6, 3), shift)
        _write(sitk.GetImageFromArray(array, isVector=True), tmp_path / name)
    np.testing.assert_allclose(Transform.load(tmp_path / "field.nii.gz").map_points([[2, 2, 2]]), [[4, 4, 4]])


@pytest.mark.parametrize(("right", "wrong"), [("a.nii.gz", "ct.nii"), ("a.nii", "ct.nii.gz"), ("a.nii", "CT.NII")])
def test_an_ending_that_hides_the_compression_does_no_harm(tmp_path: Path, right: str, wrong: str) -> None:
    content = _write(_image(5), tmp_path / right).read_bytes()
    (tmp_path / wrong).write_bytes(content)
    np.testing.assert_array_equal(read_volume(tmp_path / wrong).tensor[0, 0], sitk.GetArrayFromImage(_image(5)))


def _with_sform(path: Path, matrix: np.ndarray, qform: int) -> Path:
    content = bytearray(_write(_image(5), path).read_bytes())
    content[SFORM : SFORM + 48] = struct.pack("<12f", *matrix[:3].ravel())
    content[QFORM_CODE : QFORM_CODE + 4] = struct.pack("<2h", qform, 1)
    path.write_bytes(content)
    return path


def test_a_sheared_sform_is_named_where_there_is_no_qform(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[1, 2] = 0.5
    path = _with_sform(tmp_path / "tilted.nii", sheared, qform=0)
    for read in (read_volume, read_grid):
        with pytest.raises(InputError, match=r"tilted\.nii lies on a sheared grid \(sform, 26\.6 degrees"):
            read(path)


def test_a_frame_that_was_not_used_is_said_in_millimeters(tmp_path: Path) -> None:
    sheared = np.diag([-1.0, -1.0, 1.0, 1.0])
    sheared[0, 3] = -5.0
    assert read_volume(_with_sform(tmp_path / "same.nii", sheared, qform=1)).notes == ()
    sheared[1, 2] = 0.5
    note = read_volume(_with_sform(tmp_path / "both.nii", sheared, qform=1)).notes[0]
    assert "both.nii has two frames that differ by up to 5.2 mm" in note


def test_a_nifti_without_orientation_is_said(tmp_path: Path) -> None:
    path = _with_sform(tmp_path / "bare.nii", np.eye(4), qform=0)
    content = bytearray(path.read_bytes())
    content[SFORM_CODE : SFORM_CODE + 2] = struct.pack("<h", 0)
    path.write_bytes(content)
    assert "bare.nii states no orientation" in read_volume(path).notes[0]


def test_nifti_2_is_named(tmp_path: Path) -> None:
    for name, pack in (("two.nii", bytes), ("two.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(struct.pack("<i", 540) + b"n+2\0\r\n\032\n" + bytes(600)))
        with pytest.raises(InputError, match=r"two\.nii.* is a NIfTI-2 file"):
            read_image(tmp_path / name)


def test_half_a_pair_and_an_empty_file_are_named(tmp_path: Path) -> None:
    _write(_image(5), tmp_path / "ct.hdr")
    (tmp_path / "ct.img").rename(tmp_path / "other.bin")
    with pytest.raises(InputError, match=r"ct\.hdr has no \.img file beside it"):
        read_volume(tmp_path / "ct.hdr")
    (tmp_path / "empty.nrrd").touch()
    with pytest.raises(InputError, match=r"empty\.nrrd is empty"):
        read_volume(tmp_path / "empty.nrrd")


def test_a_pair_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    _write(_image(5), tmp_path / "ct.hdr")
    voxels = (tmp_path / "ct.img").read_bytes()
    (tmp_path / "ct.img").write_bytes(voxels[:-300])
    for name in ("ct.hdr", "ct.img"):
        with pytest.raises(InputError, match="cut short"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("a.nrrd", (b"space directions", b"space origin"), "no spacing and no position"),
        ("a.nrrd", (b"space origin",), "states no position;"),
        ("a.mha", (b"ElementSpacing",), "states no spacing;"),
        ("a.mha", (b"Offset",), "states no position;"),
    ],
)
def test_a_header_without_spacing_or_position_is_said(
    tmp_path: Path, name: str, fields: tuple[bytes, ...], words: str
) -> None:
    path = _write(_image(5), tmp_path / name)
    assert read_volume(path).notes == ()
    head, mark, data = path.read_bytes().partition(b"\n\n" if name == "a.nrrd" else b"ElementDataFile")
    # NRRD knows no directions without a space.
    gone = (*fields, b"space: ") if b"space directions" in fields else fields
    lines = [line for line in head.split(b"\n") if not line.startswith(gone)]
    path.write_bytes(b"\n".join(lines) + mark + data)
    assert words in read_volume(path).notes[0]


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.gipl", "a.vtk"])
def test_other_formats_that_were_cut_short_are_refused(tmp_path: Path, name: str) -> None:
    path = _write(_image(5), tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[:-500])
    with pytest.raises(InputError, match=rf"{name} could not be read .*(cut short|75% of expected|fread got only)"):
        read_image(path)


def test_axes_that_span_no_space_are_refused(tmp_path: Path) -> None:
    path = _write(_image(5), tmp_path / "flat.mha")
    path.write_bytes(path.read_bytes().replace(b"TransformMatrix = 1 0 0", b"TransformMatrix = 0 0 0"))
    for read in (read_grid, read_volume):
        with pytest.raises(InputError, match=r"flat\.mha"):
            read(path)

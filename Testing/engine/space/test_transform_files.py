"""A field or transform of another tool is used in the direction and meaning it was written with, or refused by name."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import InputError
from samconvex.space.grid import Grid
from samconvex.space.transforms import Transform

SIZE, SPACING, ORIGIN = 12, 20.0, (-110.0, -100.0, -90.0)
MIDDLE = np.array(ORIGIN)[None] + SPACING * 5.5
INTENT_P1, INTENT_CODE, INTENT_NAME = 56, 68, 328


def _field(shift: np.ndarray | None = None) -> sitk.Image:
    z, y, x = np.mgrid[:SIZE, :SIZE, :SIZE] - 5.5
    bump = np.exp(-(x**2 + y**2 + z**2) / 8)
    array = bump[..., None] * np.array([10.0, 0.0, -6.0]) if shift is None else shift
    image = sitk.GetImageFromArray(array, isVector=True)
    image.SetSpacing([SPACING] * 3)
    image.SetOrigin(ORIGIN)
    return image


def _truth() -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(_field())


def _positions() -> np.ndarray:
    z, y, x = np.mgrid[:SIZE, :SIZE, :SIZE]
    return np.stack([x, y, z], -1) * SPACING + np.array(ORIGIN)


def test_a_modeling_field_of_slicer_is_applied_backwards(tmp_path: Path) -> None:
    sitk.WriteImage(_field(), str(tmp_path / "plain.nrrd"))
    head, data = (tmp_path / "plain.nrrd").read_bytes().split(b"\n\n", 1)
    marked = tmp_path / "modeling.nrrd"
    marked.write_bytes(head + b"\ndisplacement field type:=modeling\n\n" + data)
    forward = Transform.load(tmp_path / "plain.nrrd").map_points(MIDDLE)
    np.testing.assert_allclose(forward, [_truth().TransformPoint(MIDDLE[0])], atol=1e-4)
    read = Transform.load(marked)
    np.testing.assert_allclose(read.map_points(forward), MIDDLE, atol=1e-3)
    np.testing.assert_allclose(read.inverse().map_points(MIDDLE), forward, atol=1e-6)
    grid = Grid((4, 5, 6), (8.0, 8.0, 8.0), tuple(MIDDLE[0] - 15.0))
    dense = read.displacement_field(grid).map_points(grid.voxels_to_points([[1, 2, 3]]))
    np.testing.assert_allclose(dense, read.map_points(grid.voxels_to_points([[1, 2, 3]])), atol=1e-2)
    read.save(tmp_path / "saved.h5")
    np.testing.assert_allclose(Transform.load(tmp_path / "saved.h5").map_points(forward), MIDDLE, atol=0.8)
    assert "modeling" in read.notes[0]


@pytest.mark.parametrize("ending", ["tfm", "h5"])
def test_an_inverse_class_of_slicer_is_the_inverse(tmp_path: Path, ending: str) -> None:
    shift = sitk.TranslationTransform(3, (5.0, 7.0, 9.0))
    cases = {"one": _truth(), "chain": sitk.CompositeTransform([shift, _truth()])}
    for name, transform in cases.items():
        path = tmp_path / f"{name}.{ending}"
        sitk.WriteTransform(transform, str(path))
        _mark_inverse(path)
        got = Transform.load(path).map_points(MIDDLE)
        # ITK's composite applies the part added last first.
        start = got - (name == "chain") * np.array([5.0, 7.0, 9.0])
        np.testing.assert_allclose([_truth().TransformPoint(start[0])], MIDDLE, atol=1e-3)
        assert np.linalg.norm(got - transform.TransformPoint(MIDDLE[0])) > 5.0


def _mark_inverse(path: Path) -> None:
    """Name the field's class as Slicer does; in HDF5 the string in the heap grows from 37 to 44 bytes."""
    content, name = path.read_bytes(), b"DisplacementFieldTransform_double_3_3"
    if path.suffix == ".tfm":
        path.write_bytes(content.replace(name, b"Inverse" + name))
        return
    at = content.index(name)
    following = at + 40
    room = content.index(b"\0" * 64, following)
    tail = content[following:room]
    new = content[: at - 8] + struct.pack("<Q", 44) + (b"Inverse" + name).ljust(48, b"\0")
    # What followed moves by eight bytes into the heap's free space, whose header (index 0) shrinks with it.
    free = re.search(rb"\0{8}(.{8})$", tail, re.DOTALL)
    if free:
        tail = tail[: free.start(1)] + struct.pack("<Q", struct.unpack("<Q", free[1])[0] - 8)
    content = new + tail + content[room + 8 :]
    # References to the string hold its length, the heap's address and its index.
    content = re.sub(rb"\x25\0\0\0(.{8}.{4})", lambda m: b"\x2c\0\0\0" + m[1], content, flags=re.DOTALL)
    path.write_bytes(content)


def _save_nifti(path: Path, values: np.ndarray, code: int = 0, name: bytes = b"", parameter: float = 0.0) -> Path:
    sitk.WriteImage(_field(values.astype(np.float32)), str(path))
    content = bytearray(path.read_bytes())
    content[INTENT_P1 : INTENT_P1 + 4] = struct.pack("<f", parameter)
    content[INTENT_CODE : INTENT_CODE + 2] = struct.pack("<h", code or 1007)
    content[INTENT_NAME : INTENT_NAME + 16] = name.ljust(16, b"\0")
    path.write_bytes(content)
    return path


RAS = np.array([-1.0, -1.0, 1.0])
SHIFT = np.array([3.0, -2.0, 4.0])


@pytest.mark.parametrize(
    ("values", "name", "parameter"),
    [
        ((_positions() + SHIFT) * RAS, b"Mapping", 0.0),
        ((_positions() + SHIFT) * RAS, b"NREG_TRANS", 0.0),
        (np.broadcast_to(SHIFT * RAS, (SIZE, SIZE, SIZE, 3)), b"NREG_TRANS", 1.0),
        (np.broadcast_to(SHIFT, (SIZE, SIZE, SIZE, 3)), b"", 0.0),
    ],
    ids=["SPM", "NiftyReg positions", "NiftyReg displacements", "ITK"],
)
def test_positions_and_displacements_of_nifti_fields(
    tmp_path: Path, values: np.ndarray, name: bytes, parameter: float
) -> None:
    read = Transform.load(_save_nifti(tmp_path / "y_ct.nii", values, name=name, parameter=parameter))
    np.testing.assert_allclose(read.map_points(MIDDLE), MIDDLE + SHIFT, atol=1e-3)


@pytest.mark.parametrize("flip", [RAS, np.ones(3)])
def test_positions_without_a_name_are_refused(tmp_path: Path, flip: np.ndarray) -> None:
    sitk.WriteImage(_field((_positions() + SHIFT) * flip), str(tmp_path / "y.nrrd"))
    with pytest.raises(InputError, match=r"y\.nrrd holds positions, not displacements"):
        Transform.load(tmp_path / "y.nrrd")


def test_fields_of_fsl_and_control_points_are_refused_by_name(tmp_path: Path) -> None:
    still = np.zeros((SIZE, SIZE, SIZE, 3))
    with pytest.raises(InputError, match="FNIRT"):
        Transform.load(_save_nifti(tmp_path / "warp.nii", still, code=2006))
    with pytest.raises(InputError, match="control points or velocities of NiftyReg"):
        Transform.load(_save_nifti(tmp_path / "cpp.nii", still, name=b"NREG_TRANS", parameter=2.0))


@pytest.mark.parametrize("name", ["f.nrrd", "f.nii", "f.nii.gz", "f.mha", "f.h5"])
def test_a_field_with_nan_is_refused(tmp_path: Path, name: str) -> None:
    values = np.zeros((SIZE, SIZE, SIZE, 3))
    values[:3] = np.nan
    if name == "f.h5":
        sitk.WriteTransform(sitk.DisplacementFieldTransform(_field(values)), str(tmp_path / name))
    else:
        sitk.WriteImage(_field(values), str(tmp_path / name))
    with pytest.raises(InputError, match="NaN") as caught:
        Transform.load(tmp_path / name)
    assert name in str(caught.value)


def test_a_transform_that_mirrors_is_said(tmp_path: Path) -> None:
    mirror = sitk.AffineTransform(3)
    mirror.Scale((-1.0, 1.0, 1.0))
    sitk.WriteTransform(mirror, str(tmp_path / "mirror.tfm"))
    sitk.WriteImage(_field(_positions() * np.array([-2.0, 0.0, 0.0])), str(tmp_path / "mirror.nrrd"))
    for name in ("mirror.tfm", "mirror.nrrd"):
        assert f"{name} mirrors" in Transform.load(tmp_path / name).notes[0]
    sitk.WriteTransform(sitk.CompositeTransform([mirror, mirror]), str(tmp_path / "twice.tfm"))
    assert Transform.load(tmp_path / "twice.tfm").notes == ()


def test_bytes_of_a_damaged_file_become_no_foreign_error(tmp_path: Path) -> None:
    sitk.WriteTransform(_truth(), str(tmp_path / "t.tfm"))
    content = (tmp_path / "t.tfm").read_bytes()
    (tmp_path / "t.tfm").write_bytes(content.replace(b"Transform: Disp", b"Transform: D\xffsp"))
    with pytest.raises(InputError, match=r"t\.tfm could not be read as a transform"):
        Transform.load(tmp_path / "t.tfm")

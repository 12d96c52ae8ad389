"""A DICOM object that is no plain image is read for what it is, or refused by name and with what to give instead."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import InputError
from samconvex.io.dicom_segmentation import segment_names
from samconvex.io.images import read_grid, read_labels, read_volume
from samconvex.lesions.files import lesion_notes, read_lesions
from samconvex.space.image_files import read_dicom_image
from samconvex.space.volume import resample

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

from engine.io import dicom_files as files  # noqa: E402
from pydicom.uid import RLELossless  # noqa: E402

DEPTH = 12


def _labels() -> np.ndarray:
    """(slices, rows, columns): two segments apart, one of them in a single slice."""
    labels = np.zeros((DEPTH, *files.SHAPE[1:]), np.uint8)
    labels[2:5, 3:7, 1:4] = 1
    labels[8, 5:9, 5:8] = 2
    return labels


def _segmentation(folder: Path, labels: np.ndarray, kind: str = "BINARY", **options: object) -> Path:
    """A series in ``folder``/ct and its segmentation in ``folder``/seg.dcm; segments by label or by last axis."""
    files.write_series(folder / "ct", files.voxels(DEPTH), files.places(DEPTH))
    source = [pydicom.dcmread(path) for path in sorted((folder / "ct").iterdir())]
    concept = pydicom.sr.codedict.codes.SCT.Neoplasm
    count = labels.shape[3] if labels.ndim == 4 else int(labels.max())
    described = [
        highdicom.seg.SegmentDescription(
            number, f"lesion {chr(64 + number)}", concept, concept, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number in range(1, count + 1)
    ]
    made = highdicom.seg.Segmentation(
        source,
        labels,
        highdicom.seg.SegmentationTypeValues[kind],
        described,
        highdicom.UID(),
        7,
        highdicom.UID(),
        1,
        "X",
        "X",
        "1",
        "1",
        **options,
    )
    made.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_segmentation_is_its_label_map(tmp_path: Path, kind: str, everywhere: bool) -> None:
    path = _segmentation(tmp_path, _labels(), kind, omit_empty_frames=not everywhere)
    series = read_volume(tmp_path / "ct")
    for place in (path, shutil.copytree(tmp_path, tmp_path / "folder", ignore=shutil.ignore_patterns("ct"))):
        on_series = resample(read_labels(place), series.grid, mode="nearest")
        np.testing.assert_array_equal(on_series.tensor[0, 0].numpy(), _labels())
    assert segment_names(path) == {1: "lesion A", 2: "lesion B"}


def test_the_lesions_of_a_segmentation_keep_their_names_and_places(tmp_path: Path) -> None:
    lesions = read_lesions(_segmentation(tmp_path, _labels()))
    assert [lesion.name for lesion in lesions] == ["lesion A", "lesion B"]
    series = read_volume(tmp_path / "ct")
    grid = series.grid
    # The object stores the frames with segments only.
    assert any("seg.dcm is on another grid" in note for note in lesion_notes(lesions, series))
    for lesion, middle in zip(lesions, ([2, 4.5, 3], [6, 6.5, 8]), strict=True):
        np.testing.assert_allclose(lesion.point, grid.voxels_to_points([middle])[0], atol=2.0)


def test_a_segmentation_is_no_image(tmp_path: Path) -> None:
    path = _segmentation(tmp_path, _labels())
    with pytest.raises(InputError, match=r"seg\.dcm is a DICOM segmentation \(SEG\), not an image; give it as labels"):
        read_volume(path)
    # Beside its series it does not disturb it.
    shutil.copy(path, tmp_path / "ct")
    np.testing.assert_array_equal(read_volume(tmp_path / "ct").tensor[0, 0].numpy(), files.voxels(DEPTH))
    np.testing.assert_array_equal(np.unique(read_labels(tmp_path / "ct").tensor), [0, 1, 2])


def test_segments_that_no_label_map_holds_are_refused(tmp_path: Path) -> None:
    both = np.zeros((DEPTH, *files.SHAPE[1:], 2), np.uint8)
    both[3, 2:6, 2:6, 0] = both[3, 4:8, 4:8, 1] = 1
    with pytest.raises(InputError, match=r"Segments 1 and 2 of .*seg\.dcm overlap"):
        read_labels(_segmentation(tmp_path / "overlap", both))
    with pytest.raises(InputError, match="is a fractional segmentation"):
        read_labels(_segmentation(tmp_path / "soft", (both[..., :1] * 0.5).astype(np.float32), "FRACTIONAL"))


def test_frames_off_the_grid_are_refused(tmp_path: Path) -> None:
    path = _segmentation(tmp_path, _labels())
    data = pydicom.dcmread(path)
    data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient[0] += 4.0
    data.save_as(path)
    with pytest.raises(InputError, match=r"frame 2 of .*seg\.dcm lies 4\.0 mm off"):
        read_labels(path)


@pytest.mark.parametrize(
    ("end", "name"),
    [
        ("66.1", "registration or raw data"),
        ("66.5", "surface segmentation"),
        ("481.2", r"dose \(RTDOSE\)"),
        ("481.3", r"structure set \(RTSTRUCT\)"),
        ("481.5", "radiotherapy object"),
        ("7", "secondary capture"),
        ("7.2", "secondary capture"),
        ("11.1", "presentation state"),
        ("88.33", "structured report"),
        ("104.1", "encapsulated document"),
    ],
)
def test_other_objects_are_refused_by_name(tmp_path: Path, end: str, name: str) -> None:
    data = files.new_object(f"1.2.840.10008.5.1.4.1.1.{end}", "1.2.3.8")
    if end[0] in "47":
        files.set_pixels(data, files.voxels(1)[0])
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], list(files.AXIAL)
        data.PixelSpacing = [1, 1]
    path = files.save(data, tmp_path / "folder" / "object.dcm")
    for read in (read_volume, read_labels):
        for place in (path, path.parent):
            with pytest.raises(InputError, match=rf"object\.dcm is a DICOM {name}.*(export|convert)"):
                read(place)
    # Beside a series the series is read.
    files.write_series(path.parent, files.voxels(), files.places())
    np.testing.assert_array_equal(read_volume(path.parent).tensor[0, 0].numpy(), files.voxels())


def test_folders_without_a_series_say_where_there_is_one(tmp_path: Path) -> None:
    files.write_series(tmp_path / "patient" / "ct", files.voxels(), files.places())
    with pytest.raises(InputError, match="holds no DICOM series itself but its folder ct does"):
        read_volume(tmp_path / "patient")
    (tmp_path / "images").mkdir()
    sitk.WriteImage(sitk.Image(9, 9, 9, sitk.sitkUInt8), str(tmp_path / "images" / "a.nii.gz"))
    with pytest.raises(InputError, match=r"holds no DICOM series but 1 image files.*a\.nii\.gz"):
        read_volume(tmp_path / "images")
    with pytest.raises(InputError, match="is one slice of a DICOM series; give its folder"):
        read_volume(tmp_path / "patient" / "ct" / "im000.dcm")


def test_files_of_other_kinds_beside_a_series_do_not_disturb(tmp_path: Path) -> None:
    folder = files.write_series(tmp_path, files.voxels(), files.places())
    (folder / "notes.txt").write_text("read me")
    (folder / "empty").touch()
    sitk.WriteImage(sitk.Image(9, 9, 9, sitk.sitkUInt8), str(folder / "a.nii.gz"))
    np.testing.assert_array_equal(read_volume(folder).tensor[0, 0].numpy(), files.voxels())


def test_a_2d_image_without_a_place_is_still_a_query(tmp_path: Path) -> None:
    data = files.new_object("1.2.840.10008.5.1.4.1.1.1.1", modality="DX")
    files.set_pixels(data, files.voxels(1)[0])
    files.save(data, tmp_path / "chest.dcm")
    assert read_volume(tmp_path / "chest.dcm", slices=True).grid.size == (10, 11, 1)


def test_pixels_that_no_file_of_this_size_holds_are_refused(tmp_path: Path) -> None:
    path = sorted(files.write_series(tmp_path, files.voxels(), files.places()).iterdir())[0]
    data = files.read(path)
    data.Rows = data.Columns = 65535
    files.save(data, path)
    with pytest.raises(InputError, match=r"announces \d+ MiB of voxels but holds 0\.0 MiB"):
        read_dicom_image(path)


@pytest.mark.parametrize(
    ("rest", "sound"),
    [
        (b"", True),
        (bytes(64), True),
        (b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0" + bytes(4), True),
        (b"\xfc\xff\xfc\xffOB\0\0\0\0\0\x80" + bytes(4), False),
        (b"\x9c\xfd\x3d\xfc\xfc\xe6\3\xb5" + bytes(8), False),
    ],
)
def test_what_follows_the_pixels_must_fit_the_file(tmp_path: Path, rest: bytes, sound: bool) -> None:
    path = sorted(files.write_series(tmp_path, files.voxels(), files.places()).iterdir())[3]
    path.write_bytes(path.read_bytes() + rest)
    if sound:
        np.testing.assert_array_equal(read_volume(tmp_path).tensor[0, 0].numpy(), files.voxels())
    else:
        with pytest.raises(InputError, match=rf"{path.name} is a DICOM file that is cut short or damaged"):
            read_volume(tmp_path)


def _compressed(folder: Path) -> Path:
    """A series whose second slice is RLE-compressed; returns that slice."""
    path = sorted(files.write_series(folder, files.voxels(), files.places()).iterdir())[1]
    data = files.read(path)
    data.compress(RLELossless, generate_instance_uid=False)
    data.save_as(str(path), enforce_file_format=True)
    return path


def test_compressed_pixels_that_end_early_are_refused(tmp_path: Path) -> None:
    path = _compressed(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path).tensor[0, 0].numpy(), files.voxels())
    content = path.read_bytes()
    start = content.rindex(b"\xe0\x7f\x10\0OB") + 12
    offsets = 8 + int.from_bytes(content[start + 4 : start + 8], "little")
    fragment = start + offsets
    length = int.from_bytes(content[fragment + 4 : fragment + 8], "little")
    half = content[:fragment] + content[fragment : fragment + 4] + (length // 4 * 2).to_bytes(4, "little")
    path.write_bytes(content[:-8])
    # Some writers leave the end mark out.
    np.testing.assert_array_equal(read_volume(tmp_path).tensor[0, 0].numpy(), files.voxels())
    damaged = {
        "cut short": content[:-40],
        "no fragment": content[:fragment] + content[-8:],
        "longer than the file": content[: fragment + 4] + (1 << 30).to_bytes(4, "little") + content[fragment + 8 :],
        "half a frame": half + content[fragment + 8 : fragment + 8 + length // 4 * 2] + content[-8:],
    }
    for kind, bad in damaged.items():
        path.write_bytes(bad)
        with pytest.raises(InputError, match=rf"{path.name} (is a DICOM file that is cut|could not be dec)"):
            read_volume(tmp_path)
        if kind != "half a frame":
            with pytest.raises(InputError, match=rf"{path.name} is a DICOM file that is cut short or damaged"):
                read_grid(tmp_path)

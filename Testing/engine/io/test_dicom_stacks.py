"""Slices and frames lie where headers say and hold what slopes say, or are refused by file and millimeters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.cli import main
from samconvex.errors import InputError
from samconvex.io.dicom_tags import read_header
from samconvex.io.images import read_grid, read_volume

pytest.importorskip("pydicom")
from engine.io import dicom_files as files  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian  # noqa: E402

GRID = ((10, 11, 12), (1.5, 2.0, 3.0), (5.0, -7.0, -20.0))


def _assert_is(path: Path, expected: np.ndarray, grid: tuple = GRID) -> tuple[str, ...]:
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.tensor[0, 0].numpy(), expected)
    assert volume.grid.size == grid[0]
    np.testing.assert_allclose(volume.grid.spacing, grid[1])
    np.testing.assert_allclose(volume.grid.origin, grid[2])
    assert read_grid(path) == volume.grid
    return volume.notes


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, None], ids=["implicit", "deflated", "explicit"]
)
def test_every_encoding_of_headers_is_read(tmp_path: Path, syntax: str | None) -> None:
    options = {"syntax": syntax} if syntax else {}
    files.write_series(tmp_path / "slices", files.voxels(), files.places(), **options)
    assert _assert_is(tmp_path / "slices", files.voxels()) == ()
    files.write_enhanced(tmp_path / "frames.dcm", files.voxels(), files.places(), **options)
    assert _assert_is(tmp_path / "frames.dcm", files.voxels().astype(np.int32) * 2 - 1000) == ()


def test_big_endian_headers_are_read(tmp_path: Path) -> None:
    files.write_series(tmp_path, files.voxels().astype(">i2"), files.places(), syntax=ExplicitVRBigEndian)
    assert read_grid(tmp_path).spacing == GRID[1]


def _variable(wide: float) -> list[tuple[float, float, float]]:
    heights = [*np.arange(8) * 2.5, *(17.5 + wide * np.arange(1, 7))]
    return [(5.0, -7.0, float(height)) for height in heights]


@pytest.mark.parametrize(("wide", "error"), [(3.5, "3.2"), (5.0, "8.1"), (7.5, "16.2")])
def test_a_spacing_that_changes_is_refused_with_the_error(tmp_path: Path, wide: float, error: str) -> None:
    files.write_series(tmp_path / "ct", files.voxels(14), _variable(wide))
    with pytest.raises(InputError, match=rf"2\.50 to {wide}0 mm apart.*im007\.dcm would lie {error} mm off"):
        read_volume(tmp_path / "ct")


def test_missing_slices_and_frames_are_said_to_lack(tmp_path: Path) -> None:
    kept = np.delete(np.arange(12), [5])
    files.write_series(tmp_path / "ct", files.voxels()[kept], [files.places()[index] for index in kept])
    files.write_enhanced(tmp_path / "frames.dcm", files.voxels()[kept], [files.places()[index] for index in kept])
    for name, where in (("ct", r"im004\.dcm"), ("frames.dcm", r"frame 5 of .*frames\.dcm")):
        with pytest.raises(
            InputError, match=rf"lacks slices \(a gap of 6\.0 mm among slices 3\.0 mm apart\) after .*{where}"
        ):
            read_volume(tmp_path / name)


def test_frames_in_any_order_go_to_their_places(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(12)
    files.write_enhanced(tmp_path / "a.dcm", files.voxels()[order], [files.places()[index] for index in order])
    assert _assert_is(tmp_path / "a.dcm", files.voxels().astype(np.int32) * 2 - 1000) == ()


def test_frames_that_are_there_twice_are_left_out_and_said(tmp_path: Path) -> None:
    order = [*range(12), 3, 7]
    files.write_enhanced(tmp_path / "a.dcm", files.voxels()[order], [files.places()[index] for index in order])
    assert "2 slices twice" in _assert_is(tmp_path / "a.dcm", files.voxels().astype(np.int32) * 2 - 1000)[0]
    other = np.concatenate([files.voxels(), files.voxels(2, seed=9)])
    files.write_enhanced(tmp_path / "b.dcm", other, [*files.places(), *files.places()[:2]])
    with pytest.raises(InputError, match=r"several slices at one position \(frame 1 of"):
        read_volume(tmp_path / "b.dcm")


def test_the_same_file_under_two_names_is_read_once(tmp_path: Path) -> None:
    files.write_series(tmp_path, files.voxels(), files.places())
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "im004.dcm").read_bytes())
    assert "1 slices twice" in _assert_is(tmp_path, files.voxels())[0]


def _phase(group: Dataset, index: int) -> None:
    group.FrameContentSequence[0].TemporalPositionIndex = 1 + index // 12


@pytest.mark.parametrize("enhanced", [False, True])
def test_of_two_phases_the_first_is_read_and_said(tmp_path: Path, enhanced: bool) -> None:
    array, positions = np.concatenate([files.voxels(), files.voxels(seed=5)]), files.places() * 2
    if enhanced:
        files.write_enhanced(tmp_path / "a.dcm", array, positions, tweak=_phase)
        expected = files.voxels().astype(np.int32) * 2 - 1000
    else:
        expected = files.voxels()
        files.write_series(
            tmp_path, array, positions, tweak=lambda data, index: setattr(data, "AcquisitionNumber", 1 + index // 12)
        )
    notes = _assert_is(tmp_path, expected)
    assert "2 passes or phases" in notes[0]
    assert "1 was read (12 slices)" in notes[0]


@pytest.mark.parametrize("offset", [1.5, 1.0, 16.7])
def test_a_second_pass_between_or_behind_the_first_is_left_out(tmp_path: Path, offset: float) -> None:
    array = np.concatenate([files.voxels(), files.voxels(9, seed=5)])
    positions = [*files.places(), *files.places(9, start=-20.0 + offset)]
    files.write_series(
        tmp_path, array, positions, tweak=lambda data, index: setattr(data, "AcquisitionNumber", 1 + index // 12)
    )
    assert "AcquisitionNumber 1, 2" in _assert_is(tmp_path, files.voxels())[0]


def test_passes_that_interleave_to_an_even_stack_are_told_apart(tmp_path: Path) -> None:
    array = np.concatenate([files.voxels(), files.voxels(seed=5)])
    positions = [*files.places(), *files.places(start=-18.5)]
    files.write_series(
        tmp_path, array, positions, tweak=lambda data, index: setattr(data, "AcquisitionNumber", 1 + index // 12)
    )
    assert "2 passes" in _assert_is(tmp_path, files.voxels())[0]


def test_passes_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    array = np.concatenate([files.voxels(), files.voxels(12, seed=5)])
    files.write_series(tmp_path / "ct", array, [*files.places(), *files.places(start=-2.7)])
    with pytest.raises(InputError, match=r"mm off"):
        read_volume(tmp_path / "ct")


def test_a_scout_among_the_slices_is_left_out_and_said(tmp_path: Path) -> None:
    files.write_series(tmp_path, files.voxels(), files.places())
    coronal = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    files.write_series(tmp_path, files.voxels(2, 7), files.places(2), prefix="scout", orientation=coronal)
    notes = _assert_is(tmp_path, files.voxels())
    assert "2 slices of another orientation" in notes[0]
    assert "scout000.dcm" in notes[0]


def test_as_many_slices_of_another_orientation_are_refused(tmp_path: Path) -> None:
    files.write_series(tmp_path / "ct", files.voxels(), files.places())
    files.write_series(tmp_path / "ct", files.voxels(9), files.places(9), prefix="b", orientation=(0, 1, 0, 0, 0, -1))
    with pytest.raises(InputError, match=r"several orientations.*\(12, 9 slices\)"):
        read_volume(tmp_path / "ct")


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("ImagePositionPatient", "no position"),
        ("ImageOrientationPatient", "no valid orientation"),
        ("PixelSpacing", "no spacing"),
    ],
)
def test_images_without_a_place_are_refused(tmp_path: Path, tag: str, words: str) -> None:
    files.write_series(tmp_path / "ct", files.voxels(), files.places(), tweak=lambda data, index: delattr(data, tag))
    with pytest.raises(InputError, match=rf"im000\.dcm states {words} \({tag}\)"):
        read_volume(tmp_path / "ct")


def test_frames_without_a_place_are_refused(tmp_path: Path) -> None:
    files.write_enhanced(
        tmp_path / "a.dcm",
        files.voxels(),
        files.places(),
        tweak=lambda group, index: index == 4 and delattr(group, "PlanePositionSequence"),
    )
    with pytest.raises(InputError, match=r"frame 5 of .*a\.dcm states no position"):
        read_volume(tmp_path / "a.dcm")


def test_every_slice_keeps_its_own_slope(tmp_path: Path) -> None:
    slopes = [1 + 0.37 * index for index in range(12)]

    def scale(data: Dataset, index: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = f"{slopes[index]:.4f}", "-10.5"

    files.write_series(tmp_path / "ct", files.voxels(), files.places(), tweak=scale)
    stored = files.voxels().astype(float)
    expected = (stored * np.array([float(f"{s:.4f}") for s in slopes])[:, None, None] - 10.5).astype(np.float32)
    _assert_is(tmp_path / "ct", expected)
    assert read_volume(tmp_path / "ct").tensor.numpy().dtype == np.float32

    def scale_frame(group: Dataset, index: int) -> None:
        value = Dataset()
        value.RescaleSlope, value.RescaleIntercept = f"{slopes[index]:.4f}", "-10.5"
        group.PixelValueTransformationSequence = [value]

    files.write_enhanced(tmp_path / "a.dcm", files.voxels(), files.places(), tweak=scale_frame)
    _assert_is(tmp_path / "a.dcm", expected)


def test_whole_slopes_after_the_first_slice_are_not_cut(tmp_path: Path) -> None:
    def scale(data: Dataset, index: int) -> None:
        data.RescaleSlope = str(1 + 40 * (index > 5))

    files.write_series(tmp_path, files.voxels(), files.places(), tweak=scale)
    _assert_is(tmp_path, files.voxels().astype(np.int32) * (1 + 40 * (np.arange(12) > 5))[:, None, None])


def test_the_series_read_of_several_is_described(tmp_path: Path) -> None:
    def describe(data: Dataset, index: int) -> None:
        data.SeriesDescription, data.SeriesDate = "Thorax 1.0", "20200131"

    files.write_enhanced(tmp_path / "big.dcm", files.voxels(), files.places())
    big = files.read(tmp_path / "big.dcm")
    describe(big, 0)
    big.save_as(tmp_path / "big.dcm")
    files.write_series(tmp_path, files.voxels(4), files.places(4), series="1.2.3.2")
    notes = _assert_is(tmp_path, files.voxels().astype(np.int32) * 2 - 1000)
    assert "2 DICOM series; the largest was read ('Thorax 1.0', 2020-01-31, 12 slices)" in notes[0]


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    folder = files.write_series(tmp_path / "ct", files.voxels(), files.places())
    content = (folder / "im003.dcm").read_bytes()
    for keep in (300, len(content) - 40):
        (folder / "im003.dcm").write_bytes(content[:keep])
        with pytest.raises(InputError, match=r"im003\.dcm"):
            read_volume(folder)


def test_a_file_without_preamble_is_read_and_numbers_are_not_taken_for_one(tmp_path: Path) -> None:
    folder = files.write_series(tmp_path, files.voxels(), files.places())
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    _assert_is(folder, files.voxels())
    zeros = folder / "zeros.dcm"
    zeros.write_bytes(b"\x08\0" + bytes(4_000_000))
    assert read_header(zeros) is None
    _assert_is(folder, files.voxels())


def test_apply_says_which_series_of_every_folder_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, series in (("a", "1.2.3.1"), ("b", "1.2.3.5")):
        files.write_series(tmp_path / name, files.voxels(), files.places(), series=series)
        files.write_series(tmp_path / name, files.voxels(3), files.places(3), series=f"{series}.9", prefix="other")
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "t.tfm"))
    words = [str(tmp_path / name) for name in ("t.tfm", "a")]
    assert main(["apply", *words, "--like", str(tmp_path / "b"), "-o", str(tmp_path / "o.nrrd")]) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path / 'a'} holds 2 DICOM series" in said
    assert f"{tmp_path / 'b'} holds 2 DICOM series" in said

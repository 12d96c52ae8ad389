"""DICOM folders and files as volumes: which series, which slices of it, and numbers as each slice means them.

ITK's series reader takes the pixel type and the spacing of the first slices for all, and reads a segmentation, a dose
or a screenshot as if it were an image.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..space.image_files import read_dicom_image
from .dicom_segmentation import is_segmentation, read_segmentation
from .dicom_stack import Slice, choose_stack, slices_of
from .dicom_tags import Header, read_header

_ORIGINAL = "export the CT or MR series itself"
_LABEL_MAP = "as labels convert it to a label map first, for example in 3D Slicer (SlicerRT); as an image " + _ORIGINAL
# Storage classes that are no plain image, by the beginning of their identifiers, and what to give instead.
_NO_IMAGE = (
    ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation (SEG)", "give it as labels, not as an image"),
    ("1.2.840.10008.5.1.4.1.1.66.7", "segmentation (SEG)", "give it as labels, not as an image"),
    ("1.2.840.10008.5.1.4.1.1.66.5", "surface segmentation", _LABEL_MAP),
    ("1.2.840.10008.5.1.4.1.1.66", "registration or raw data object", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.67", "real world value mapping", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.481.3", "structure set (RTSTRUCT)", _LABEL_MAP),
    ("1.2.840.10008.5.1.4.1.1.481.2", "dose (RTDOSE)", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.481", "radiotherapy object", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.7", "secondary capture (a picture without a place in the patient)", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.11", "presentation state", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.88", "structured report", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.104", "encapsulated document", _ORIGINAL),
    ("1.2.840.10008.5.1.4.1.1.9", "waveform", _ORIGINAL),
    ("1.2.840.10008.1.3.10", "directory (DICOMDIR)", "give the folder that directly contains the slices"),
)
_COLORS = ("PALETTE", "RGB", "YBR", "HSV", "ARGB", "CMYK")


def is_dicom(path: Path) -> bool:
    """True for a folder, and for a file that holds DICOM.

    Raises:
        InputError: a damaged DICOM file, or one that may not be opened.
    """
    return path.is_dir() or bool(_objects(path))


def read_dicom(path: Path, *, labels: bool = False, slices: bool = False) -> tuple[sitk.Image, tuple[str, ...]]:
    """Read the largest series of a folder, or one file.

    Args:
        labels: a segmentation object (SEG) is wanted where there is one.
        slices: a single 2D image is welcome, even without a place in the patient.

    Returns:
        The image, and notes on what was chosen.

    Raises:
        InputError: no image in it, not clear which, or no even stack.
    """
    objects = _objects(path)
    if labels:
        segmentations = [item for item in objects if is_segmentation(item)]
        if len(segmentations) > 1:
            raise InputError(f"{path} holds {len(segmentations)} DICOM segmentations; name one of the files.")
        if segmentations:
            return read_segmentation(segmentations[0])
    if slices and len(objects) == 1 and objects[0].frames == 1 and objects[0].pixels is not None:
        return read_dicom_image(objects[0].path), ()
    images = [item for item in objects if _refusal(item) is None]
    if not images:
        raise InputError(_refusal(objects[0]) if objects else _nothing_here(path))
    if path.is_file() and images[0].frames == 1:
        raise InputError(f"{path} is one slice of a DICOM series; give its folder, or a multi-frame file.")
    chosen, notes = _largest_series(images, path)
    notes += _of_one_patient(chosen, path)
    found = [item for header in chosen for item in slices_of(header)]
    reader = _Pixels()
    stack = choose_stack(found, str(path), chosen[0].data.text("Modality"), reader.same)
    return _assembled(stack.slices, reader), notes + stack.notes


def _objects(path: Path) -> list[Header]:
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        found = [header for file in files if (header := read_header(file)) is not None]
        ending = {header.path.suffix.lower() for header in found}
        empty = next((file for file in files if file.suffix.lower() in ending and file.stat().st_size == 0), None)
        if empty is not None:
            raise InputError(f"{empty} is empty; copy the series again, or leave it out.")
        return found
    except OSError as error:
        raise InputError(
            f"{error.filename or path} could not be opened ({error.strerror}); check its permissions."
        ) from error


def _refusal(header: Header) -> str | None:
    """The sentence on an object that is no plain image; None for images."""
    for start, kind, way_out in _NO_IMAGE:
        if header.sop_class == start or header.sop_class.startswith(f"{start}."):
            return f"{header.path} is a DICOM {kind}, not an image; {way_out}."
    if header.pixels is None:
        return f"{header.path} is a DICOM object without pixels of whole numbers; {_ORIGINAL}."
    if header.data.text("Photometric").startswith(_COLORS):
        return f"{header.path} is a color image; {_ORIGINAL}."
    return None


def _nothing_here(folder: Path) -> str:
    """Why a folder without DICOM files cannot be read."""
    way_out = "give the folder that directly contains the slices"
    below = next((file.parent for file in _files_below(folder) if read_header(file) is not None), None)
    if below is not None:
        return f"{folder} holds no DICOM series itself but its folder {below.relative_to(folder)} does; give that one."
    endings = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")
    others = [file.name for file in sorted(folder.iterdir()) if file.name.lower().endswith(endings)]
    if others:
        return f"{folder} holds no DICOM series but {len(others)} image files; name one of them, such as {others[0]}."
    return f"{folder} holds no DICOM series; {way_out}."


def _of_one_patient(headers: list[Header], path: Path) -> tuple[str, ...]:
    """Refuse a series of several patients; a note where its positions are relative to several origins."""
    first: dict[str, Path] = {}
    for header in headers:
        if header.data.text("Patient"):
            first.setdefault(header.data.text("Patient"), header.path)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        raise InputError(
            f"{path} mixes {len(first)} patients in one series ({one.name} and {other.name} differ in PatientID); give "
            "each a folder of its own."
        )
    frames = {header.data.text("FrameOfReference") for header in headers} - {""}
    if len(frames) < 2:
        return ()
    return (f"The slices of {path} belong to {len(frames)} frames of reference; check that they fit together.",)


def _files_below(folder: Path) -> list[Path]:
    """The first files of the folders just below."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK))[:100]
    files = [file for inner in below for file in sorted(inner.iterdir())[:3]]
    return [file for file in files if file.is_file() and os.access(file, os.R_OK)]


def _largest_series(images: list[Header], path: Path) -> tuple[list[Header], tuple[str, ...]]:
    series: dict[str, list[Header]] = {}
    for header in images:
        series.setdefault(header.data.text("SeriesInstance"), []).append(header)
    chosen = max(series.values(), key=lambda headers: sum(header.frames for header in headers))
    if len(series) == 1:
        return chosen, ()
    data = chosen[0].data
    date = next((data.text(tag) for tag in ("AcquisitionDate", "SeriesDate", "StudyDate") if data.text(tag)), "")
    if len(date) == 8 and date.isdigit():
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    description = f"'{data.text('SeriesDescription')}'" if data.text("SeriesDescription") else "without description"
    count = sum(header.frames for header in chosen)
    return chosen, (
        f"{path} holds {len(series)} DICOM series; the largest was read ({description}, {date or 'without date'}, "
        f"{count} slices). Give another a folder of its own to use it.",
    )


def _check_pixels(header: Header) -> None:
    """Refuse pixels that GDCM would make up or take for other values.

    Raises:
        InputError: too few, bits in an unusual place, or a table in place of slope and intercept.
    """
    if header.data.first("ModalityTable") is not None:
        raise InputError(
            f"{header.path} gives its values by a table (ModalityLUTSequence), which is not read; export it with a "
            "rescale slope and intercept."
        )
    stored, high = header.data.short("BitsStored"), header.data.short("HighBit")
    if stored and "HighBit" in header.data.values and high != stored - 1:
        raise InputError(
            f"{header.path} keeps {stored} bits of a pixel below bit {high} (HighBit), which is not read; export it "
            "again."
        )
    if header.pixels is not None and header.pixels[1] is not None:
        count = header.frames * header.data.short("Rows") * header.data.short("Columns")
        if header.pixels[1] < (count * header.data.short("BitsAllocated") + 7) // 8:
            raise InputError(f"{header.path} is cut short (its pixels end too early); copy or export it again.")


def _not_inverted(header: Header, array: np.ndarray) -> np.ndarray:
    """Values as their slope gives them: GDCM turns those of MONOCHROME1, which only says how they are displayed."""
    if header.data.text("Photometric") != "MONOCHROME1":
        return array
    slope, intercept = slices_of(header)[0].rescale
    span = -1 if header.data.short("PixelRepresentation") else 2 ** header.data.short("BitsStored") - 1
    turned = slope * span + 2 * intercept - array.astype(np.float64)
    return turned.astype(array.dtype if array.dtype.kind == "f" else np.int32)


class _Pixels:
    """Pixels of slices, in the units their own slope and intercept give; the file read last is kept."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames = np.empty(0)

    def of(self, item: Slice) -> np.ndarray:
        """(rows, columns) of integers, or float32 where the slope makes fractions."""
        if self._path != item.header.path:
            self._frames, self._path = self._read(item.header), item.header.path
        return self._frames[item.frame]

    def same(self, first: Slice, second: Slice) -> bool:
        return np.array_equal(self.of(first).copy(), self.of(second))

    def _read(self, header: Header) -> np.ndarray:
        _check_pixels(header)
        scales = {item.rescale for item in slices_of(header)} if header.frames > 1 else set()
        if len(scales) > 1:
            return self._scaled_frames(header)
        image = read_dicom_image(header.path)
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise InputError(f"{header.path} is a color image; {_ORIGINAL}.")
        array = sitk.GetArrayFromImage(image)
        array = array.reshape(-1, *array.shape[-2:])
        if len(array) != header.frames:
            raise InputError(f"{header.path} announces {header.frames} frames but holds {len(array)}; export it again.")
        array = _not_inverted(header, array)
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    @staticmethod
    def _scaled_frames(header: Header) -> np.ndarray:
        """Frames that each have their own slope, of which GDCM knows one."""
        stored = header.native_pixels()
        if stored is None:
            raise InputError(
                f"{header.path} is compressed and its frames differ in their rescale slope; export it uncompressed."
            )
        scales = np.array([item.rescale for item in slices_of(header)])[:, :, None, None]
        return (stored * scales[:, 0] + scales[:, 1]).astype(np.float32)


def _assembled(slices: list[Slice], reader: _Pixels) -> sitk.Image:
    """One image of slices in the order of their positions."""
    volume: np.ndarray | None = None
    for index, item in enumerate(slices):
        pixels = reader.of(item)
        if volume is None:
            volume = np.empty((len(slices), *pixels.shape), pixels.dtype)
        if pixels.shape != volume.shape[1:]:
            raise InputError(f"{item.name} holds another number of pixels than its header says; export it again.")
        common = np.result_type(volume.dtype, pixels.dtype)
        # Slices with a slope of their own may need another type than those before them.
        wanted = np.dtype(np.float32) if common.kind == "f" else common
        if wanted != volume.dtype:
            volume = volume.astype(wanted)
        volume[index] = pixels
    assert volume is not None
    image = sitk.GetImageFromArray(volume)
    first = slices[0]
    length = float((slices[-1].position - first.position) @ first.normal) / max(1, len(slices) - 1)
    image.SetSpacing((*first.spacing, length or 1.0))
    image.SetOrigin(first.position.tolist())
    image.SetDirection(np.stack([*first.axes, first.normal], 1).ravel().tolist())
    return image
